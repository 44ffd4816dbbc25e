"""Making a backup, checking it, and restoring it to another folder, file by file with checksums."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import duckdb

from sluice.backup import catalogs, manifest
from sluice.backup.manifest import BackedUpFile, Manifest
from sluice.errors import BackupError, SluiceError, StorageFullError
from sluice.eventlog.embedded import EmbeddedLog
from sluice.lake import Lake
from sluice.publication import current_publication
from sluice.readers import refresh_readers
from sluice.settings import Settings, load_settings
from sluice.sqlite_catalog import UNFINISHED

DATA, TOPICS = "data/", "topics/"

# What a backup makes in its folder, with what SQLite keeps beside a database it writes. Nothing else is removed there.
_MADE = {
    manifest.UNFINISHED,
    DATA.rstrip("/"),
    TOPICS.rstrip("/"),
    *(
        name + end
        for name in (*catalogs.COPIES.values(), manifest.NAME)
        for end in ("", ".part", "-journal", "-wal", "-shm")
    ),
}

# How often the catalog is copied anew because maintenance has removed files of the last copy. It removes what was
# replaced a day ago, so one round does unless somebody removes at once, again and again.
ROUNDS = 5

# Of folders that are made: all the lake holds is in them, whoever was let into the old ones.
OWNER_ONLY = 0o700

_BLOCK = 1 << 20


def back_up(settings: Settings, destination: Path) -> Manifest:
    """Copy the lake as of one instant into a folder. Loads, builds, maintenance and readers go on meanwhile.

    Started again after it was interrupted, it takes the catalog anew and copies only the files that lack.

    Args:
        settings: of the lake.
        destination: not there, empty, or an unfinished backup.

    Raises:
        BackupError: the folder holds something else, lies in the home or another folder of Sluice's own, a backup to
            it is under way, the lake lacks a file that its catalog names, its data lies in a bucket, or the folder
            cannot be written to.
        NoLakeError: there is no lake yet; nothing was written.
        LakeUnavailableError: the lake's catalog is gone, or cannot be read.
        StorageFullError: no room; run it again when there is.
    """
    if "://" in settings.lake_data_path:
        raise BackupError(
            f"The lake's data lies in {settings.lake_data_path}: `sluice backup` copies folders only. See "
            "docs/backup.md, 'Data in a bucket'."
        )
    data = Path(settings.lake_data_path)
    target = destination.resolve()
    _check_apart(settings, destination)
    # Of a catalog that is no lake's, or of one half made, nobody could restore anything.
    with Lake(settings).reading():
        pass
    with _told(destination), _claimed(target):
        contents, files = _copy(settings, data, target)
        # After the catalog: no position in it is beyond what the topics hold.
        files |= _copy_topics(settings, target)
        _remove_strays(target, files)
        # Contents before the name that vouches for them.
        os.sync()
        kind = catalogs.POSTGRES if settings.uses_postgres else catalogs.SQLITE
        made = Manifest(
            kind,
            contents.snapshot_id,
            datetime.now(UTC).isoformat(timespec="seconds"),
            tuple(files[path] for path in sorted(files)),
        )
        manifest.write(target, made)
    return made


def _copy(settings: Settings, data: Path, target: Path) -> tuple[catalogs.Contents, dict[str, BackedUpFile]]:
    """Copy the catalog and all it names; the catalog anew when files have gone meanwhile."""
    gone: list[str] = []
    for _ in range(ROUNDS):
        contents = catalogs.copy_catalog(settings, target)
        # Files go after the catalog has stopped naming them, never before.
        lost = sorted(contents.files.keys() & set(gone))
        if lost:
            raise BackupError(
                f"The lake is damaged: its catalog names {data / lost[0]} ({len(lost)} such files), which is not "
                "there. Restore an earlier backup, or load again what that table holds."
            )
        copied = {}
        gone = []
        for path, size in contents.files.items():
            try:
                copied[DATA + path] = _copy_file(data / path, target / DATA / path, DATA + path, size)
            except FileNotFoundError:
                if (data / path).exists():
                    raise
                gone.append(path)
        if not gone:
            name = catalogs.COPIES[catalogs.POSTGRES if settings.uses_postgres else catalogs.SQLITE]
            size, digest = _digest(target / name)
            return contents, {**copied, name: BackedUpFile(name, size, digest)}
    raise BackupError(
        f"Files were removed from the lake {ROUNDS} times while they were copied. Is maintenance run with grace_hours "
        "0, again and again? Run the backup when it has ended."
    )


def _copy_file(source: Path, target: Path, name: str, size: int) -> BackedUpFile:
    """Copy a data file, unless it is there already; its name never stands for another content."""
    if target.exists():
        found = _digest(source)
        if _digest(target) != found:
            target.unlink()
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        found = _copied(source, target)
    if found[0] != size:
        raise BackupError(f"The lake is damaged: {source} has {found[0]} bytes, its catalog says {size}.")
    return BackedUpFile(name, *found)


def _copy_topics(settings: Settings, target: Path) -> dict[str, BackedUpFile]:
    """Copy the topics of the embedded log; those of a Kafka are its own."""
    copied: dict[str, BackedUpFile] = {}
    with EmbeddedLog(settings.topics_path) as log:
        for topic in log.topics():
            for path, file, size in log.stored(topic):
                name = TOPICS + path.as_posix()
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                copied[name] = BackedUpFile(name, *_written(file, target / name, size))
    return copied


def _remove_strays(target: Path, files: Container[str]) -> None:
    """Remove what an interrupted backup has left that this one does not need."""
    for path in sorted([*(target / DATA).rglob("*"), *(target / TOPICS).rglob("*")], reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(target).as_posix() not in files:
            path.unlink()
    for left in target.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left)
    for name in _MADE - {manifest.UNFINISHED, DATA.rstrip("/"), TOPICS.rstrip("/")}:
        if name not in files:
            (target / name).unlink(missing_ok=True)


def verify(backup: Path) -> Manifest:
    """Read all of a backup and hold it against its manifest.

    Raises:
        BackupError: it is not whole, naming the first file that is missing, too much, or not what it was.
    """
    found = manifest.read(backup)
    for file in found.files:
        _compare(backup / file.path, file, _digest(backup / file.path))
    if found.catalog == catalogs.SQLITE:
        _names(backup, found, catalogs.read_sqlite(backup / catalogs.COPIES[catalogs.SQLITE]))
    return found


def restore(backup: Path, to: Path, settings: Settings) -> Manifest:
    """Make a home folder of a backup; nothing is there before every file has been verified.

    Args:
        backup: made by `back_up`.
        to: the new home; not there, or empty.
        settings: of a backup whose catalog was PostgreSQL, `catalog` names the empty database for it.

    Raises:
        BackupError: the backup is not whole, the target is not empty or lies in a folder of the home of `settings`
            that is Sluice's own, or the catalog does not fit the settings.
        LakeUnavailableError: the PostgreSQL server cannot be reached.
        StorageFullError: no room.
    """
    home = to.resolve()
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise BackupError(f"{to} is not empty. Restore to a new folder; nothing was changed.")
    if home.is_relative_to(backup.resolve()):
        raise BackupError(f"{to} lies in the backup. Restore to another folder.")
    _check_apart(settings, to)
    found = manifest.read(backup)
    if (found.catalog == catalogs.POSTGRES) != settings.uses_postgres:
        raise BackupError(
            "The backup's catalog is PostgreSQL: set SLUICE_CATALOG to an empty database for it."
            if found.catalog == catalogs.POSTGRES
            else "The backup's catalog is SQLite, and SLUICE_CATALOG names PostgreSQL. Unset it, then restore."
        )
    # A name of its own: what lies beside may be anybody's, and a second restore must not meet it.
    staging = home.with_name(f"{home.name}.restoring-{uuid.uuid4().hex[:12]}")
    data_path = str(home / "lake" / "data") + "/"
    with _told(to):
        try:
            _stage(backup, found, staging)
            copy = staging / "lake" / catalogs.COPIES[found.catalog]
            if found.catalog == catalogs.SQLITE:
                _names(backup, found, catalogs.read_sqlite(copy))
                catalogs.move_sqlite(copy, data_path)
            else:
                _names(backup, found, catalogs.restore_postgres(settings, copy, data_path))
                copy.unlink()
            os.sync()
            if home.exists():
                shutil.copymode(home, staging)
            staging.rename(home)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    _prove(load_settings(home=str(home), data_path="", catalog=settings.catalog), found)
    return found


def _check_apart(settings: Settings, folder: Path) -> None:
    """Refuse a folder that lies where Sluice keeps files itself."""
    target = folder.resolve()
    if "://" not in settings.lake_data_path and target.is_relative_to(Path(settings.lake_data_path).resolve()):
        raise BackupError(f"{folder} lies in the lake's data folder, where maintenance removes it. Choose another.")
    for own in settings.own_folders:
        if target.is_relative_to(own.resolve()):
            raise BackupError(f"{folder} lies in {own}, where Sluice reads and removes files. Choose another.")
    home = settings.home.resolve()
    if target != home and target.is_relative_to(home):
        raise BackupError(
            f"{folder} lies in the home folder {settings.home}, all of which `sluice erase` searches: it would find "
            "there whoever is to be erased, and changes no backup and no other home. Choose a folder elsewhere."
        )


def _stage(backup: Path, found: Manifest, staging: Path) -> None:
    staging.mkdir(mode=OWNER_ONLY, parents=True)
    (staging / "lake" / "data").mkdir(parents=True)
    for file in found.files:
        target = (staging if file.path.startswith(TOPICS) else staging / "lake") / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        _compare(backup / file.path, file, _copied(backup / file.path, target))


def _prove(settings: Settings, found: Manifest) -> None:
    """Open what was restored, and let readers in where something was published."""
    try:
        snapshot = catalogs.opens(settings)
    except (SluiceError, duckdb.Error) as error:
        raise BackupError(
            f"{settings.home} was restored, every checksum fits, and it does not open: {error}"
        ) from error
    if snapshot != found.snapshot_id:
        raise BackupError(
            f"{settings.home} was restored, and its newest snapshot is {snapshot} instead of {found.snapshot_id}."
        )
    with Lake(settings).reading() as con:
        published = con.execute(
            "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'ops' AND table_name = 'publications'"
        )
        known = published.fetchone() is not None
    if known and current_publication(Lake(settings)):
        refresh_readers(settings)


def _names(backup: Path, found: Manifest, contents: catalogs.Contents) -> None:
    """Hold what the catalog names against what the manifest names."""
    listed = {f.path.removeprefix(DATA): f.size for f in found.files if f.path.startswith(DATA)}
    for path in sorted(contents.files.keys() | listed.keys()):
        if contents.files.get(path) != listed.get(path):
            raise BackupError(
                f"The manifest of {backup} does not fit its catalog: {DATA}{path} has {contents.files.get(path)} bytes "
                f"in the catalog, {listed.get(path)} in the manifest. Use another backup."
            )
    if contents.snapshot_id != found.snapshot_id:
        raise BackupError(
            f"The manifest of {backup} does not fit its catalog, which ends with snapshot {contents.snapshot_id}."
        )


def _compare(path: Path, file: BackedUpFile, found: tuple[int, str]) -> None:
    if found != (file.size, file.sha256):
        raise BackupError(
            f"{path} is not what was backed up: {found[0]} bytes with SHA-256 {found[1][:16]}…, the manifest says "
            f"{file.size} with {file.sha256[:16]}…. Use another backup."
        )


def _digest(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _copied(source: Path, target: Path) -> tuple[int, str]:
    """Copy a file; returns its size and SHA-256."""
    with source.open("rb") as file:
        return _written(file, target)


def _written(file: BinaryIO, target: Path, most: int | None = None) -> tuple[int, str]:
    """Copy a file to its end, or so many bytes of it, under another name until it is whole; its size and SHA-256."""
    temporary = target.with_name(target.name + ".part")
    digest, size = hashlib.sha256(), 0
    with temporary.open("wb") as copy:
        while block := file.read(_BLOCK if most is None else min(_BLOCK, most - size)):
            digest.update(block)
            size += len(block)
            copy.write(block)
    temporary.replace(target)
    return size, digest.hexdigest()


@contextmanager
def _claimed(target: Path) -> Iterator[None]:
    """The folder as an unfinished backup of this process alone; finished when the body ends well."""
    if (target / manifest.NAME).exists():
        raise BackupError(f"{target} holds a backup already. Choose a new folder; nothing was changed.")
    if target.exists():
        there = {p.name for p in target.iterdir()} if target.is_dir() else {target.name}
        if there and not manifest.is_unfinished(target):
            raise BackupError(f"{target} is neither empty nor an unfinished backup. Choose another folder.")
        if foreign := sorted(name for name in there - _MADE if not name.startswith(UNFINISHED)):
            raise BackupError(
                f"{target / foreign[0]} is of no backup. Move it away, or choose another folder; nothing was changed."
            )
    target.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
    mark = target / manifest.UNFINISHED
    with mark.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"A backup to {target} is under way. Wait for it, or choose another folder.") from None
        if mark.stat().st_size != len(manifest.MARK):
            lock.truncate(0)
            lock.write(manifest.MARK)
            lock.flush()
            os.fsync(lock.fileno())
        yield
        mark.unlink()


@contextmanager
def _told(where: Path) -> Iterator[None]:
    """Say of an operating system's error where it met and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError(f"The disk of {where} is full. Make room and run it again.") from error
        raise BackupError(
            f"{error.filename or where}: {error.strerror}. Check the path and its rights; nothing was put in place."
        ) from error
