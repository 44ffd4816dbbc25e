"""`sluice backup | restore`: arguments and output. What is done belongs to `sluice.backup`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sluice.settings import Settings


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both to the parser of `sluice`."""
    backup = commands.add_parser("backup", help="copy the lake as of one instant, with checksums, while it is used")
    backup.add_argument(
        "folder", type=Path, metavar="DEST", help="a new folder, or that of a backup interrupted before"
    )
    backup.add_argument("--verify", action="store_true", help="make none: read all of the backup that is there")
    backup.set_defaults(run=_backup)
    restore = commands.add_parser("restore", help="make a new home of a backup, when every checksum fits")
    restore.add_argument("backup", type=Path, metavar="BACKUP")
    restore.add_argument("to", type=Path, metavar="TO", help="the new SLUICE_HOME; not there, or empty")
    restore.set_defaults(run=_restore)


def _backup(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.backup import back_up, verify

    done = verify(chosen.folder) if chosen.verify else back_up(settings, chosen.folder)
    print(
        f"{chosen.folder}: {'whole' if chosen.verify else 'backed up'}, snapshot {done.snapshot_id} of {done.made_at}, "
        f"{len(done.files)} files, {done.bytes / 1e6:.1f} MB"
    )
    return 0


def _restore(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.backup import restore

    done = restore(chosen.backup, chosen.to, settings)
    print(
        f"{chosen.to}: restored to snapshot {done.snapshot_id} of {done.made_at}, {len(done.files)} files, "
        f"{done.bytes / 1e6:.1f} MB, every checksum fits. Use it with SLUICE_HOME={chosen.to.resolve()}"
    )
    print(
        "Before anything is loaded or read (docs/backup.md, 'Restoring'):\n"
        "- erasure.key, settings.env, dagster/ and landing/ are in no backup. Copy those that lay in the old home.\n"
        f"- Whoever was erased after {done.made_at}, or while the backup was made, is in it again. Run again what "
        "`sluice erase --list` has with the old home, where that can be read, and not with this one."
    )
    return 0
