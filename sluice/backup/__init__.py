"""Backup of a lake and restoring it elsewhere: a consistent copy of its catalog, every file that names, the topics.

Belongs here: the copy, its manifest and checksums, and the way back. Not in a backup, because they are not the lake:
landing files, settings, contracts, Dagster's instance (docs/backup.md says what becomes of each).

    copying     backup, verification, restoring: files
    catalogs    what differs between a SQLite and a PostgreSQL catalog
    manifest    what a backup says of itself
"""

from sluice.backup.copying import back_up, restore, verify
from sluice.backup.manifest import BackedUpFile, Manifest

__all__ = ["BackedUpFile", "Manifest", "back_up", "restore", "verify"]
