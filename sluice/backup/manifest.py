"""What a backup says of itself: which files it consists of, their sizes and SHA-256.

The manifest is written last, so a folder without one is no backup, however much lies in it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from sluice.errors import BackupError

NAME = "manifest.json"
# In the folder from the first moment to the last: who finds it finds a backup under way, or one that was interrupted.
UNFINISHED = "unfinished"
# What stands in it. Anybody's file may have that name, and what lies beside it must not be taken for a backup.
MARK = b"An unfinished backup of a lake by Sluice: run `sluice backup` with this folder again.\n"
FORMAT = 1


@dataclass(frozen=True)
class BackedUpFile:
    """A file of a backup: path relative to its folder, bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A whole backup.

    Args:
        catalog: `sqlite` or `postgres`.
        snapshot_id: newest snapshot of the lake in it.
        made_at: ISO 8601, UTC.
        files: all but the manifest itself, by path.
    """

    catalog: str
    snapshot_id: int
    made_at: str
    files: tuple[BackedUpFile, ...]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(f.size for f in self.files)


def is_unfinished(folder: Path) -> bool:
    """Whether a folder is a backup under way, or one that was interrupted."""
    path = folder / UNFINISHED
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        found = file.read(len(MARK) + 1)
    # It is written when nothing else is there yet: then even a part of it will do.
    return found == MARK or (MARK.startswith(found) and [p.name for p in folder.iterdir()] == [UNFINISHED])


def write(folder: Path, manifest: Manifest) -> None:
    """Put the manifest in place, in one step, when everything it speaks of is on the disk."""
    content = {"format": FORMAT, **asdict(manifest)}
    content["digest"] = _digest(content)
    temporary = folder / (NAME + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / NAME)


def read(folder: Path) -> Manifest:
    """Read a backup's manifest and hold it against the names and sizes in the folder; contents are not read.

    Raises:
        BackupError: there is none, it was damaged, it names what cannot be in a backup, or a file is missing, of
            another size, or not named by it.
    """
    path = folder / NAME
    if not path.is_file():
        if is_unfinished(folder):
            raise BackupError(
                f"{folder} is an unfinished backup: `sluice backup` was interrupted or is under way. Run it again with "
                "the same folder; what is there already is not copied twice."
            )
        raise BackupError(f"{folder} is no backup: there is no {NAME} in it.")
    manifest = _parse(path)
    _same_files(folder, manifest)
    return manifest


def _parse(path: Path) -> Manifest:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        said, version = content.pop("digest"), content.pop("format")
        manifest = Manifest(
            content["catalog"],
            content["snapshot_id"],
            content["made_at"],
            tuple(BackedUpFile(f["path"], f["size"], f["sha256"]) for f in content["files"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupError(f"{path} was damaged and cannot be read ({error!r}). Use another backup.") from None
    if version != FORMAT:
        raise BackupError(
            f"{path} is of format {version}; this Sluice reads format {FORMAT}. Use the one that wrote it."
        )
    if said != _digest({"format": version, **content}):
        raise BackupError(f"{path} was changed after it was written: its digest does not fit. Use another backup.")
    for file in manifest.files:
        parts = PurePosixPath(file.path)
        if parts.is_absolute() or ".." in parts.parts:
            raise BackupError(f"{path} names {file.path!r}, which lies outside the backup. Do not use it.")
    return manifest


def _same_files(folder: Path, manifest: Manifest) -> None:
    links = [p for p in folder.rglob("*") if p.is_symlink()]
    if links:
        raise BackupError(f"{links[0]} is a link; a backup holds files only. Use another backup.")
    there = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    del there[NAME]
    # Left by one that was stopped after the manifest was in place, and before the last step.
    there.pop(UNFINISHED, None)
    named = {f.path: f.size for f in manifest.files}
    for path in sorted(named.keys() - there.keys()):
        raise BackupError(f"{folder / path} is missing, and the manifest names it. Use another backup.")
    for path in sorted(there.keys() - named.keys()):
        raise BackupError(f"{folder / path} is not named by the manifest. Remove it if you put it there.")
    for path, size in named.items():
        if there[path] != size:
            raise BackupError(f"{folder / path} has {there[path]} bytes, the manifest says {size}. Use another backup.")


def _digest(content: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
