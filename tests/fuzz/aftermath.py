"""After a round: what the commands print and write, that nothing was executed, that nothing is left lying about."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sluice.cli import main as cli
from sluice.lake import Lake
from sluice.ops_tables import OPS_TABLES
from tests.fuzz import poison
from tests.fuzz.sources import SOURCES


def command_line(lake: Lake, folder: Path, letters: int) -> Iterator[str]:
    """Run the commands on `lake`, which has so many dead letters, with exports into `folder`; yields complaints."""
    os.environ["SLUICE_HOME"], os.environ["SLUICE_CONTRACTS"] = (
        str(lake.settings.home),
        str(lake.settings.contracts),
    )
    exported = folder / "letters.csv"
    for arguments in (
        ["dead-letters", "list", "--status", "all"],
        ["dead-letters", "show", "--status", "all", "--limit", "3000"],
        ["books"],
        ["dead-letters", "export", "--status", "all", str(exported)],
        ["dead-letters", "export", "--status", "all", str(folder / "letters.jsonl")],
    ):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli(arguments)
        if code:
            yield (f"{arguments} ended with {code}: {err.getvalue()[:500]}")
        for line in (out.getvalue() + err.getvalue()).split("\n"):
            if not line.isprintable():
                yield (f"{arguments} prints control characters: {line!r:.300}")
                break
    csv.field_size_limit(100_000_000)
    with exported.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(_without_nul(file)))
    if len(rows) - 1 != letters:
        yield (f"{len(rows) - 1} letters exported, there are {letters}")
    for row in rows:
        for cell in row:
            if re.match(r"[=+\-@\t\r]", cell):
                yield (f"a spreadsheet would take a cell of the export for a formula: {cell[:100]!r}")
                return


def nothing_executed(lake: Lake, folder: Path) -> Iterator[str]:
    """Look for traces of canaries in `folder`, in the process's own folder and in the lake; yields complaints."""
    strays = [p for p in Path.cwd().rglob("*") if poison.MARK in p.name] + list(Path.cwd().iterdir())
    landing = lake.settings.landing_path
    for base, folders, files in os.walk(os.fsencode(folder)):
        if os.fsencode(landing) == base:
            folders[:] = []
            continue
        strays += [Path(os.fsdecode(base)) / os.fsdecode(f) for f in files if poison.MARK.encode() in f]
    if strays:
        yield (f"something was executed: {strays[:5]}")
    if sorted(p.name for p in folder.iterdir()) != [
        "contracts",
        "cwd",
        "home",
        "letters.csv",
        "letters.jsonl",
        "outside",
    ]:
        yield (f"files beside the home: {sorted(p.name for p in folder.iterdir())}")
    if {p.name for p in lake.settings.home.iterdir()} - {"lake", "landing", "tmp"}:
        yield (f"files in the home that belong nowhere: {sorted(p.name for p in lake.settings.home.iterdir())}")
    if list(lake.settings.temp_path.iterdir()):
        yield (f"scratch files are left: {list(lake.settings.temp_path.iterdir())[:5]}")
    with lake.reading() as con:
        tables = set(
            con.execute("SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'lake'").fetchall()
        )
        wanted = {("ops", name) for name in OPS_TABLES} | {("bronze", name) for name in SOURCES}
        if tables != wanted:
            yield (f"tables {tables ^ wanted} are missing or new")
        passwd = Path("/etc/passwd").read_text().splitlines()[0]
        for schema, table in wanted:
            found = [
                con.execute(f"SELECT max(contains(COLUMNS(*)::VARCHAR, ?)) FROM {schema}.{table}", [what]).fetchone()
                for what in (passwd, poison.SECRET)
            ]
            if any(column for row in found if row for column in row):
                yield (f"{schema}.{table} holds what only this machine knows: a file or a variable was read")


def _without_nul(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield line.replace("\0", "0")
