"""The files of the landing area: writing them, counting their rows, and clearing those of a former run.

What belongs here: bytes, names and the ledger of what was written. What does not: what the lines say.

The list of files written lies beside the landing folder, not in it: a reader of the landing area must find
nothing there but sources. It gets each name before the file is made, so that a run cut short leaves no file
that the next run would take for a stranger's.
"""

from __future__ import annotations

import gzip
import io
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from sluice.simulation.truth import LedgerTruth

SOURCES = ("orders", "products", "customers", "events")  # the order in which the truth lists them
COMPRESSION = 6  # zlib's usual compromise; named because a change would change every byte


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file without its line end.

    Attributes:
        text: the line.
        reasons: the rules it breaks, each once; empty for a line that meets its contract.

    """

    text: str
    reasons: tuple[str, ...] = ()


class Landing:
    """The landing folder of one generation; a context manager that clears a former generation on entry."""

    def __init__(self, out: Path, besides: Collection[str] = ()) -> None:
        """Bind to a folder; nothing is touched before the context is entered.

        Args:
            out: the landing folder; made if absent.
            besides: folders in it that others fill; they are left alone.

        """
        self._out = out.resolve()
        self._besides = frozenset(besides)
        self._manifest = self._out.parent / f".{self._out.name}.shop-manifest"
        self._names: io.TextIOWrapper | None = None
        self._former: set[str] = set()
        self._written: set[str] = set()
        self._arrivals: list[tuple[int, str]] = []
        self._counts: dict[str, dict[str, Counter[str]]] = {source: {} for source in SOURCES}
        self._reasons: dict[str, Counter[str]] = {source: Counter() for source in SOURCES}

    def __enter__(self) -> Landing:
        """Take over the list of a former generation, whose files are overwritten or, at the end, removed.

        Raises:
            ValueError: the target is no folder, or holds a file that is not on the list.
            OSError: the folder or the list cannot be written.

        """
        self._former = self._present()
        self._out.mkdir(parents=True, exist_ok=True)
        self._names = self._manifest.open("w", encoding="utf-8", newline="\n")
        # Until the end the list has both generations, so that an interrupted one can be taken over too.
        self._names.writelines(f"{name}\n" for name in sorted(self._former))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what a former generation had and this one has not, and close the list of files."""
        if self._names is None:
            return
        self._names.close()
        if kind is not None:
            return
        for name in sorted(self._former - self._written):
            self._remove(name)
        self._manifest.write_text("".join(f"{name}\n" for name in sorted(self._written)), encoding="utf-8")

    def deliver(
        self,
        source: str,
        partition: str,
        name: str,
        lines: Sequence[Line],
        *,
        day: int,
        header: str | None = None,
        line_end: str = "\n",
        seen: set[str] | None = None,
    ) -> None:
        """Write a file and enter its rows in the ledger.

        Args:
            source: one of `SOURCES`.
            partition: the key of the batch the file belongs to.
            name: the path below the landing folder; `.gz` at its end compresses.
            lines: the data lines in order.
            day: index of the day on which the file arrives.
            header: a first line that is no row.
            line_end: what ends each line.
            seen: texts before which a line counts as a duplicate; extended here. By default duplicates are
                looked for in this file only.

        Raises:
            OSError: the file cannot be written.

        """
        texts = [line.text for line in lines] if header is None else [header, *(line.text for line in lines)]
        self._write(name, "".join(f"{text}{line_end}" for text in texts).encode("utf-8"))
        self._arrivals.append((day, name))
        self._count(source, partition, lines, set() if seen is None else seen)

    def arrivals(self) -> list[tuple[int, str]]:
        """Return (day index, relative path) of every file written, in order."""
        return sorted(self._arrivals)

    def ledger(self) -> dict[str, LedgerTruth]:
        """Return the counts of rows by source."""
        return {source: _ledger(sum(partitions.values(), Counter())) for source, partitions in self._counts.items()}

    def ledger_by_partition(self) -> dict[str, dict[str, LedgerTruth]]:
        """Return the counts of rows by source and partition."""
        return {
            source: {key: _ledger(partitions[key]) for key in sorted(partitions)}
            for source, partitions in self._counts.items()
        }

    def reasons(self) -> dict[str, dict[str, int]]:
        """Return the counts of rejected rows by source and rule."""
        return {source: dict(sorted(counts.items())) for source, counts in self._reasons.items()}

    def _count(self, source: str, partition: str, lines: Iterable[Line], seen: set[str]) -> None:
        counts = self._counts[source].setdefault(partition, Counter())
        for line in lines:
            counts["rows_read"] += 1
            if line.text in seen:
                counts["duplicates"] += 1
                continue
            seen.add(line.text)
            counts["dead_lettered" if line.reasons else "accepted"] += 1
            self._reasons[source].update(line.reasons)

    def _write(self, name: str, content: bytes) -> None:
        if self._names is None:
            raise RuntimeError("the landing folder was not entered")
        print(name, file=self._names, flush=True)
        path = self._out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".gz"):
            # Neither a name nor a time in the header: the bytes depend on the content alone.
            buffer = io.BytesIO()
            with gzip.GzipFile(filename="", mode="wb", compresslevel=COMPRESSION, fileobj=buffer, mtime=0) as stream:
                stream.write(content)
            content = buffer.getvalue()
        self._written.add(name)
        # A file that is as it should be keeps its time: nobody who watches the folder is told of news that is none.
        if path.is_file() and path.read_bytes() == content:
            return
        # Under a name that readers take for a file in flight, so that nobody reads half of it.
        unfinished = path.with_name(f".{path.name}.tmp")
        unfinished.write_bytes(content)
        unfinished.replace(path)

    def _present(self) -> set[str]:
        """Names of the files a former generation left; a file of anyone else's is refused."""
        if not self._out.exists():
            return set()
        if not self._out.is_dir():
            raise ValueError(f"{self._out} is not a folder")
        own: set[str] = set()
        if self._manifest.is_file():
            own.update(self._manifest.read_text(encoding="utf-8").splitlines())
        present = {
            (Path(folder) / name).relative_to(self._out).as_posix()
            for folder, _, names in os.walk(self._out)
            for name in names
            if not (name.startswith(".") and name.endswith(".tmp"))
        }
        present = {name for name in present if name.split("/")[0] not in self._besides}
        strangers = sorted(present - own)
        if strangers:
            raise ValueError(
                f"{self._out} holds {len(strangers)} file(s) this generator did not write, "
                f"for example {strangers[0]}; choose another folder or empty this one"
            )
        return present

    def _remove(self, name: str) -> None:
        path = self._out / name
        path.unlink()
        folder = path.parent
        while folder != self._out and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent


def _ledger(counts: Counter[str]) -> LedgerTruth:
    return LedgerTruth(
        rows_read=counts["rows_read"],
        accepted=counts["accepted"],
        dead_lettered=counts["dead_lettered"],
        duplicates=counts["duplicates"],
    )
