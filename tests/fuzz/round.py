"""One round: some hundred cases delivered into a home of their own, ingested for real, and every row looked for.

Runs in a process of its own (`campaign` starts it), so that a crash of native code is a finding and its memory can be
measured. Prints one JSON document: what was tried and every complaint.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

import duckdb

from sluice.books import books
from sluice.contracts import Contract, load_contracts
from sluice.dead_letters import Choice
from sluice.ingest import ingest
from sluice.inventory import take_inventory
from sluice.lake import Lake
from sluice.replay import replay
from sluice.settings import load_settings
from tests.fuzz import poison
from tests.fuzz.aftermath import command_line, nothing_executed
from tests.fuzz.cases import Case, make_case
from tests.fuzz.comparison import Comparison
from tests.fuzz.sources import SOURCES


def peak_mb() -> int:
    """Most memory this process has held, in MB.

    Not `ru_maxrss`: a process starts with that of the one that started it, here a worker with all tests before.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


class Round:
    """A home, the cases delivered to it, and what was found wrong."""

    def __init__(self, folder: Path, cases: list[Case], threads: int = 1) -> None:
        self.folder = folder
        self.cases = cases
        contracts = folder / "contracts"
        contracts.mkdir(parents=True)
        for source in SOURCES.values():
            source.write_contract(contracts)
        (folder / "outside").mkdir()
        (folder / "outside" / "secret.csv").write_text(f"{poison.SECRET}\n" * 3)
        self.settings = load_settings(home=folder / "home", contracts=contracts, threads=threads, memory_limit="1GB")
        self.contracts: dict[str, Contract] = load_contracts(contracts)
        self.lake = Lake(self.settings)
        self.settings.landing_path.mkdir(parents=True)
        self.delivered: list[Case] = []

    def deliver(self) -> None:
        """Write the files; a name the file system refuses is no case."""
        for case in self.cases:
            path = self.settings.landing_path / os.fsdecode(case.path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if case.link:
                    path.symlink_to(case.link)
                else:
                    with path.open("xb") as file:
                        file.write(case.data)
            except OSError:
                continue
            self.delivered.append(case)

    def run(self) -> Comparison:
        """Deliver, ingest, and look for every row; what was found."""
        self.deliver()
        told = set()
        for name, contract in self.contracts.items():
            told |= {(name, p.file) for p in ingest(self.lake, contract).problems if p.detail.strip()}
        take_inventory(self.lake, self.contracts.values())
        found = self.compare(told)
        before = books(self.lake, sorted(self.contracts))
        for each in before:
            if not each.balanced:
                found.complain(f"the books do not balance: {each}")
        moved: dict[str, int] = {}
        for contract in self.contracts.values():
            again = ingest(self.lake, contract)
            changed = [b.partition_key for b in again.batches if not b.unchanged]
            if changed:
                found.complain(f"{contract.name}: ingesting again changed {changed[:3]}")
            first, second = (replay(self.lake, contract, Choice()) for _ in range(2))
            if first.accepted or second.accepted or second.duplicate:
                found.complain(f"{contract.name}: replaying under the same contract accepted rows: {first}, {second}")
            if first.duplicate != self.repeats(contract.name):
                found.complain(f"{contract.name}: replaying settled letters that are no repeats: {first}")
            moved[contract.name] = first.duplicate
        wanted = [
            replace(
                each,
                rows_dead_lettered=each.rows_dead_lettered - moved[each.source],
                rows_in_dead_letters=each.rows_in_dead_letters - moved[each.source],
                rows_duplicate=each.rows_duplicate + moved[each.source],
            )
            for each in before
        ]
        if books(self.lake, sorted(self.contracts)) != wanted:
            found.complain(f"running again changed the books: {before}")
        letters = sum(map(len, found.letters.values()))
        for complaint in command_line(self.lake, self.folder, letters):
            found.complain(complaint)
        for complaint in nothing_executed(self.lake, self.folder):
            found.complain(complaint)
        return found

    def repeats(self, source: str) -> int:
        """Letters replayed of which all that was wrong is that an earlier row has their value.

        Of two lines that differ in nothing a column holds (a key that is let go of, say), the second is a dead letter,
        for files are compared by their texts; and a duplicate when it is replayed, for bronze keeps values.
        """
        with self.lake.reading() as con:
            row = con.execute(
                "SELECT count(*) FROM ops.dead_letters WHERE source = ? AND status = 'replayed' "
                "AND list_distinct(list_transform(reasons, lambda r: r.\"rule\")) = ['unique']",
                [source],
            ).fetchone()
        return row[0] if row else 0

    def compare(self, told: set[tuple[str, str]]) -> Comparison:
        """What is in the lake, held against what must be."""
        found = Comparison(self.delivered, self.contracts)
        with self.lake.reading() as con:
            found.look(con, told)
        return found


def main(arguments: list[str]) -> int:
    """`python -m tests.fuzz.round FOLDER SEED NUMBER...`; a range of numbers is `FIRST-LAST`."""
    folder, seed = Path(arguments[0]), int(arguments[1])
    numbers: list[int] = []
    for given in arguments[2:]:
        first, _, last = given.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    os.environ[poison.SECRET_NAME] = poison.SECRET
    started = time.monotonic()
    with duckdb.connect() as con:
        con.execute("SET threads = 1")
        cases = [make_case(con, seed, n) for n in numbers]
    (folder / "cwd").mkdir(parents=True)
    os.chdir(folder / "cwd")
    trial = Round(folder, cases)
    made = time.monotonic()
    error, found = "", Comparison([], {})
    try:
        found = trial.run()
    except Exception:
        error = traceback.format_exc()
    print(
        json.dumps(
            {
                "error": error,
                "complaints": found.complaints,
                "counts": found.counts,
                "families": Counter(c.family for c in trial.delivered),
                "peak_mb": peak_mb(),
                "seconds": [round(made - started, 1), round(time.monotonic() - made, 1)],
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
