"""`sluice erase`: arguments and output. What is done belongs to `sluice.erasure`.

The build of the warehouse is the very job the UI runs, as a process of its own: the engine knows no orchestrator.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from sluice.commands import many, me
from sluice.errors import ErasureError
from sluice.settings import PROJECT, Settings

if TYPE_CHECKING:
    from sluice.erasure.search import Findings
    from sluice.lake import Lake

# Of a long list of places the first say enough.
_SHOWN = 30


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of `sluice`."""
    command = commands.add_parser("erase", help="remove a person from every layer, and prove it")
    who = command.add_mutually_exclusive_group()
    who.add_argument("--customer", metavar="ID", help="short for --subject customer --id ID")
    who.add_argument("--id", metavar="ID", help="of the person; - reads it from standard input")
    who.add_argument("--list", action="store_true", help="who was erased when, without saying who")
    command.add_argument("--subject", default="customer", help="what kind of person, as the contracts say (customer)")
    command.add_argument(
        "--find",
        action="store_true",
        help="only search; exit 1 if the person is anywhere, or not all could be searched",
    )
    command.add_argument("--by", default=me(), help="who asks for it, kept in the list of the erased (you)")
    command.add_argument(
        "--from-logs", action="store_true", help="erase an id that stands in logs only, whatever it means there"
    )
    command.add_argument("--yes", action="store_true", help="do not ask first, as it does on a terminal")
    command.set_defaults(run=_erase)


def _erase(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.contracts import load_contracts
    from sluice.erasure.run import erase, find
    from sluice.lake import Lake

    lake = Lake(settings)
    # Who mistyped SLUICE_HOME is told, and gets no empty lake there: nobody can be erased from none.
    with lake.reading():
        pass
    if chosen.list:
        if chosen.find:
            raise ErasureError("--list tells of all who were erased, --find looks for one person: give one of them.")
        return _list(lake)
    person = chosen.customer if chosen.customer is not None else chosen.id
    if person is None:
        raise ErasureError("Say who: --customer ID, or --subject KIND --id ID.")
    if person == "-":
        # As arguments come, bytes that are no text among them; they are told of as what is no id.
        person = sys.stdin.buffer.readline().decode("utf-8", "surrogateescape").strip()
    subject = "customer" if chosen.customer is not None else chosen.subject
    contracts = list(load_contracts(settings.contracts).values())
    logs = [PROJECT / "dbt_project" / name for name in ("logs", "target")]
    if chosen.find:
        return _tell(find(lake, contracts, subject, person, logs), again="look again")
    if not chosen.yes and not _confirmed():
        print("Nothing was changed.")
        return 1
    done = erase(
        lake,
        contracts,
        subject,
        person,
        rebuild=lambda: _build(settings),
        by=chosen.by,
        logs=logs,
        from_logs=chosen.from_logs,
        tell=lambda step: print(f"{step} …", flush=True),
    )
    print(
        f"bronze: {done.rows.rows_removed:,} rows removed, {done.rows.rows_emptied:,} rows kept without the person; "
        f"{done.rows.letters_emptied:,} dead letters emptied\n"
        f"{many(done.landing_files, 'landing file')} and {many(done.messages, 'message')} rewritten, "
        f"{many(done.logs, 'log')} blanked\n"
        f"{done.snapshots:,} snapshots expired, {done.files:,} data files deleted"
    )
    if done.again:
        print("The person had been erased before, or an erasure had been cut short: what was left is done now.")
    if done.values_shared:
        print(
            f"{done.values_shared} personal values were not searched for: others have them too, or they are too short."
        )
    if settings.uses_postgres:
        print(
            "PostgreSQL keeps deleted rows of the catalog until VACUUM FULL, and in its write-ahead log and replicas "
            "(docs/privacy.md)."
        )
    if settings.uses_kafka:
        print(
            "Kafka's topics were not reached: they keep messages until retention or compaction lets go of them "
            "(docs/privacy.md). Nothing of the person that is read from there comes into the lake again."
        )
    told = _tell(done.findings, again="run the same command again")
    for file in done.delivered:
        print(f"{file}: delivered meanwhile, and left as it came: run the same command again.")
    return 1 if done.delivered else told


def _confirmed() -> bool:
    """Whether who sits at the terminal means it; a script, which has none, does."""
    if not sys.stdin.isatty():
        return True
    print("This cannot be undone: the person goes from every layer, and everything readers saw until now is forgotten.")
    print("Type yes to go on: ", end="", flush=True)
    return sys.stdin.readline().strip() == "yes"


def _tell(findings: Findings, again: str) -> int:
    print(
        f"searched {findings.files:,} files ({findings.bytes:,} bytes, packed and unpacked) and {findings.rows:,} rows "
        f"in them for the id and {findings.values - 1} personal values"
    )
    for title, places in (
        ("the same digits with another meaning", {p: f"{hits:,}" for p, hits in findings.elsewhere.items()}),
        ("NOT SEARCHED", findings.unsearched),
        ("FOUND", {p: f"{hits:,}" for p, hits in findings.found.items()}),
    ):
        for number, (place, told) in enumerate(sorted(places.items())):
            if number == _SHOWN:
                print(f"  {title}: {len(places) - _SHOWN} more places")
                break
            print(f"  {title}: {place} ({told})")
    end = "The person is still there" if findings.found else "Nothing was found"
    if findings.unsearched:
        it = "it" if len(findings.unsearched) == 1 else "them"
        joined = ", and" if findings.found else ", but"
        unsearched = many(len(findings.unsearched), "place")
        end += f"{joined} {unsearched} could not be searched: mend or remove {it}, and {again}"
    print(f"{end}.")
    return 0 if findings.nowhere else 1


def _list(lake: Lake) -> int:
    with lake.reading() as con:
        # A lake from before there were erasures has no table of them, and who may only read makes none.
        known = con.execute("SELECT 1 FROM duckdb_tables() WHERE schema_name = 'ops' AND table_name = 'erasures'")
        if not known.fetchall():
            print("0 erasures, 0 unfinished")
            return 0
        rows = con.execute(
            "SELECT requested_at, subject, left(subject_hash, 12), state, rows_removed, rows_emptied, letters_emptied, "
            "coalesce(requested_by, '-') FROM ops.erasures ORDER BY requested_at"
        ).fetchall()
    for at, subject, digest, state, removed, emptied, letters, by in rows:
        print(
            f"{at:%Y-%m-%d %H:%M:%S}  {subject} {digest}…  {state}  {removed:,} rows removed, {emptied:,} emptied, "
            f"{letters:,} dead letters  {by}"
        )
    unfinished = sum(row[3] != "done" for row in rows)
    print(f"{many(len(rows), 'erasure')}, {unfinished} unfinished" + (": run them again" if unfinished else ""))
    return 1 if unfinished else 0


def _build(settings: Settings) -> None:
    """Build, test, audit and publish silver and gold.

    Raises:
        ErasureError: it failed.
    """
    environment = {
        **os.environ,
        "SLUICE_HOME": str(settings.home),
        "DAGSTER_HOME": str(settings.home / "dagster"),
    }
    for arguments in (
        ["resources.instance"],
        ["dagster", "job", "execute", "-m", "definitions", "-j", "build_warehouse"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            # What the job says of itself; else the end of what it printed.
            told = re.search(r"\d+ of the warehouse's models or checks failed.*?(?=\n\s*\n|\n\s*Stack|\Z)", said, re.S)
            raise ErasureError(
                "The build after the erasure failed; run the same command again when it is mended.\n"
                + (told.group() if told else "\n".join(said.splitlines()[-15:]))
            )
