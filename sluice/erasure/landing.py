"""Landing files without the person: rewritten in place, line by line, with the same number of lines.

A rewritten file counts as the one that was delivered (`ops.rewritten_files`), so its batch is the one in the books and
nothing is loaded again. Files of no partition are blanked wherever the person stands in them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from sluice.contracts import Contract
from sluice.erasure.lines import LINE_END, Line, header_of, may_hold, variants, without
from sluice.erasure.person import Person, Place
from sluice.erasure.register import ERASED
from sluice.lake import Lake
from sluice.lake_errors import no_room
from sluice.landing import GZIP_SUFFIX, scan
from sluice.records.parquet_rows import names_of, row_text
from sluice.records.shape import no_glob
from sluice.settings import Settings
from sluice.sql import literal, quoted, temp_table

# Size, time and inode of a file: what differs once somebody has delivered it anew, in place or by renaming.
State = tuple[int, int, int]

# In flight by its name: nobody takes a copy that is being written for a delivery.
_COPY = ".erasing.tmp"

_MARK = "\ufeff"

_log = logging.getLogger(__name__)

# Ways to write a record that are tried: so many people with rows alike in all else have been erased from one file.
_WAYS = 10_000

# How often a file is rewritten that is delivered anew each time; a source that writes as often is not done yet.
_TRIES = 3


@dataclass(frozen=True)
class Copy:
    """A file without the person; of each record that changed, the checksum it had and has now, empty where it is blank.

    They are the checksums of dead letters.
    """

    path: Path
    records: dict[str, str]


@dataclass(frozen=True)
class Rewritten:
    """A file about to be replaced: its path below the landing folder, the copy, and both fingerprints.

    `seen` is what `_state` said of the file before it was read.
    """

    source: str | None
    path: str
    copy: Path
    records: dict[str, str]
    before: str
    after: str
    seen: State


@dataclass(frozen=True)
class Cleaned:
    """How many files were rewritten, and those that were delivered anew each time they were about to be."""

    files: int
    delivered: tuple[str, ...]


def routed(settings: Settings, contracts: Iterable[Contract]) -> dict[str, tuple[Contract, str]]:
    """The landing files of partitions, by their paths below the landing folder: whose they are, and their format.

    Raises:
        LandingError: a source's folder cannot be listed.
    """
    folder = settings.landing_path
    if not folder.is_dir():
        return {}
    return {
        file.path: (contract, file.format)
        for contract in contracts
        for file in scan(contract, folder, settings.start_date, settings.end_date).files
    }


def folders(settings: Settings, contracts: Iterable[Contract]) -> list[Path]:
    """The landing folder, and those of sources and above them: any may be a link, which loading follows."""
    found = {
        settings.landing_path / part
        for contract in contracts
        for part in (Path(contract.landing.prefix), *Path(contract.landing.prefix).parents)
    }
    return sorted(found | {settings.landing_path})


def clean(lake: Lake, contracts: Sequence[Contract], where: Iterable[Place], person: Person) -> Cleaned:
    """Rewrite every landing file that holds the person. May be run again at any time.

    The books learn of the new content before it is there, so that a file never looks new: where this is cut short, a
    file that was not replaced yet is still the one in the books. A file that is delivered anew meanwhile is not
    replaced by a copy of what it was, but read once more.
    """
    folder = lake.settings.landing_path
    if not folder.is_dir():
        return Cleaned(0, ())
    by_source = {place.contract.name: place for place in where}
    known = routed(lake.settings, contracts)
    within = folders(lake.settings, contracts)
    for left in {path for each in within for path in each.rglob(f".*{_COPY}")}:
        with suppress(PermissionError):
            left.unlink()  # of a try that was cut short
    # Path's own raises where a folder tells the names in it, and no more.
    paths = sorted({path for each in within for path in each.rglob("*") if os.path.isfile(path)})  # noqa: PTH113
    done: set[str] = set()
    for _ in range(_TRIES):
        made, unsettled = [], []
        for path in paths:
            name = path.relative_to(folder).as_posix()
            contract_, form = known.get(name, (None, ""))
            place = by_source.get(contract_.name) if contract_ else None
            try:
                seen = _state(path)
                copy = rewrite(path, place, form, person)
                if copy is not None:
                    source = contract_.name if contract_ else None
                    made.append(
                        Rewritten(source, name, copy.path, copy.records, _sha256(path), _sha256(copy.path), seen)
                    )
                elif _state(path) != seen:
                    unsettled.append(path)
            except (OSError, duckdb.IOException) as error:
                _pass_over(path, error)
        if made:
            lake.write(lambda con, made=made: _note(con, folder, made), "erasure: landing files rewritten")  # type: ignore[misc]
        for item in made:
            try:
                if _put(folder, item):
                    done.add(item.path)
                else:
                    unsettled.append(folder / item.path)
            except OSError as error:
                _pass_over(folder / item.path, error)
        paths = sorted(unsettled)
        if not paths:
            break
    return Cleaned(len(done), tuple(p.relative_to(folder).as_posix() for p in paths))


def _pass_over(path: Path, error: Exception) -> None:
    """Go on without a file that its source has taken away, or that this account may not rewrite: the search names it.

    Raises:
        Exception: `error`, where there is no room.
    """
    if no_room(error):
        raise error
    _log.info("%s was not rewritten: %s", path, type(error).__name__)


def _state(path: Path) -> State:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _put(folder: Path, item: Rewritten) -> bool:
    """Put a copy in the place of its file; False if that is no longer the file that was read."""
    target = (folder / item.path).resolve()
    try:
        stat = target.stat()
        item.copy.chmod(stat.st_mode)
        os.utime(item.copy, ns=(stat.st_atime_ns, item.seen[1]))
        # The last look, for whatever a source has delivered since must not be lost.
        same = _state(target) == item.seen
    except FileNotFoundError:
        same = False
    if same:
        item.copy.replace(target)
    else:
        item.copy.unlink()
    return same


def rewrite(path: Path, place: Place | None, form: str, person: Person) -> Copy | None:
    """Write a copy of a file without the person beside it; None if they are not in it.

    Args:
        path: of the file.
        place: its source; None for a file of no partition, or of a source that does not name such people.
        form: its format; empty where it is of no partition.
        person: who.
    """
    # Beside the file itself, should this be a link to it: from another disk it could not be put in its place.
    target = path.resolve()
    copy = target.with_name(f".{target.name}{_COPY}")
    if form == "parquet" or (not form and path.suffix == ".parquet"):
        return _rewrite_parquet(path, place, person, copy) if place is not None else None
    data = path.read_bytes()
    packed = path.name.endswith(GZIP_SUFFIX)
    if packed:
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return None  # nothing can be read of it; the search says so
    encoding = place.contract.landing.csv.encoding if place is not None and form == "csv" else "utf-8"
    text = data.decode(encoding, "surrogateescape")
    if not may_hold(place, person, text, form):
        return None
    changed: Iterable[tuple[str, str]] = ()
    if place is not None:
        out, changed = _kept_apart(list(records(text, place, form, person)), place, form)
    elif form:
        # Of a source that names no such person: an equal id is something else there, a value of theirs is not.
        out = person.mask_values(data).decode(encoding, "surrogateescape")
        changed = zip(LINE_END.split(text), LINE_END.split(out), strict=True)
    else:
        out = person.tokens.blanked(data).decode(encoding, "surrogateescape")
    if out == text:
        return None
    written = out.encode(encoding, "surrogateescape")
    copy.write_bytes(gzip.compress(written, mtime=0) if packed else written)
    checksums: dict[str, str] = {}
    for before, after in changed:
        if before != after:
            # Of a line that is no text a dead letter has the bytes.
            for kept in (_as_text, lambda record: base64.b64encode(record.encode(encoding, "surrogateescape"))):
                checksums[_digest(kept(before))] = _digest(kept(after)) if after.strip() else ""
    return Copy(copy, checksums)


def checksum(text: str) -> str:
    """The checksum that the dead letter of a record of text has."""
    return _digest(_as_text(text))


def _as_text(record: str) -> bytes:
    # A record over lines is kept with one kind of line ends.
    return LINE_END.sub("\n", record).encode("utf-8", "surrogateescape")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def records(text: str, place: Place, form: str, person: Person) -> Iterator[tuple[Line, str, str]]:
    """Each record of a text file without the person, as it was, and its line end.

    A byte order mark comes first, as no record.
    """
    dialect = place.contract.landing.csv
    if text.startswith(_MARK):
        text = text[len(_MARK) :]
        yield Line("other", _MARK), _MARK, ""
    parts, ends = LINE_END.split(text), [*LINE_END.findall(text), ""]
    header, begun = None, form != "csv"
    joined, quotes = "", 0
    for number, (part, end) in enumerate(zip(parts, ends, strict=True)):
        joined += part
        if form == "csv" and dialect.multiline:
            quotes += part.count(dialect.quote)
            if quotes % 2 and number + 1 < len(parts):
                joined += end
                continue
            if quotes % 2 and not part and number:
                # A record without an end: the file's last line end is not its own.
                end = ends[number - 1]
                joined = joined.removesuffix(end)
        if not begun:
            begun, header = True, header_of(place, joined)
            if header is not None and not {c.source_name for c in place.contract.columns} & set(header):
                header = None  # a file that came without its header: its first line may be anybody's
            if header is not None and dialect.header:
                yield Line("other", joined), joined, end
                joined, quotes = "", 0
                continue
        line = without(place, person, joined, form, header)
        yield line, joined, line.ends + end
        joined, quotes = "", 0


def _rewrite_parquet(path: Path, place: Place, person: Person, copy: Path) -> Copy | None:
    """Parquet: rows about the person are left out, others lose them. None if they are not in it."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        read, present, theirs = _parquet(con, path, place, person)
        # Columns that cannot be told apart: no such file can be written, and the search says that the person is in it.
        if not theirs or any(own and name != own for name, own in present.items()):
            return None
        given = {"id": person.id}
        whose = " OR ".join(theirs.values())
        if not (con.execute(f"SELECT 1 FROM {read} WHERE {whose} LIMIT 1", given).fetchone()):
            return None
        known = {c.source_name for c in place.contract.columns}
        emptied = {n: f"({whose})" for n in present if n not in known or n in {c.source_name for c in place.personal}}
        left = {n: f"(CASE WHEN NOT {condition} THEN {quoted(n)} END)" for n, condition in (theirs | emptied).items()}
        replaced = ", ".join(f"{sql} AS {quoted(n)}" for n, sql in left.items())
        rows = f"FROM {read} WHERE NOT ({whose})" if place.about else f"SELECT * REPLACE ({replaced}) FROM {read}"
        con.execute(f"CREATE TEMP TABLE kept AS {rows}", given)
        con.execute(f"COPY kept TO {literal(str(copy))} (FORMAT parquet)")
        texts = {n: quoted(n) for n in present}
        after = "''" if place.about else f"sha256({row_text(texts | left)})"
        changed = con.execute(f"SELECT sha256({row_text(texts)}), {after} FROM {read} WHERE {whose}", given).fetchall()
    return Copy(copy, dict(changed))


def parquet_rows(con: duckdb.DuckDBPyConnection, path: Path, place: Place, person: Person) -> int:
    """How many rows of a Parquet file name the person."""
    read, _, theirs = _parquet(con, path, place, person)
    if not theirs:
        return 0
    row = con.execute(f"SELECT count(*) FROM {read} WHERE {' OR '.join(theirs.values())}", {"id": person.id}).fetchone()
    return row[0] if row else 0


def _kept_apart(made: list[tuple[Line, str, str]], place: Place, form: str) -> tuple[str, Iterable[tuple[str, str]]]:
    """The text of some records, in which no two are equal that were not equal before; and each as it was and is."""
    taken = {line.text for line, before, _ in made if line.text == before}
    written: dict[str, str] = {}
    out = []
    for line, before, end in made:
        if before not in written:
            text = line.text
            if line.verdict == "theirs" and text.strip() and text != before:
                ways = itertools.islice(variants(place, text, form), _WAYS)
                text = next((way for way in itertools.chain([text], ways) if way not in taken), text)
                taken.add(text)
            written[before] = text
        out += [written[before], end]
    return "".join(out), written.items()


def _parquet(
    con: duckdb.DuckDBPyConnection, path: Path, place: Place, person: Person
) -> tuple[str, dict[str, str], dict[str, str]]:
    """SQL of a Parquet file, its columns, and of each that names people the SQL of whether it names this person.

    The columns are the names DuckDB has for them, with those the file has. None names people where the file cannot be
    read; the search says so.
    """
    read = f"read_parquet({literal(no_glob(str(path)))}, hive_partitioning = false)"
    try:
        names, given = names_of(con, no_glob(str(path)))
    except duckdb.Error:
        return read, {}, {}
    present = dict(itertools.zip_longest(names, given[: len(names)], fillvalue=""))
    ids = {c.source_name: c for c in place.ids}
    theirs = {n: person.is_named_sql(ids[own], quoted(n)) for n, own in present.items() if own in ids}
    return read, present, theirs


def _note(con: duckdb.DuckDBPyConnection, folder: Path, made: list[Rewritten]) -> None:
    """Tell the books of the new sizes, that these contents are the ones delivered, and dead letters of their texts."""
    temp_table(
        con,
        "rewritten",
        "source VARCHAR, file VARCHAR, size BIGINT, before VARCHAR, after VARCHAR",
        [(m.source, m.path, m.copy.stat().st_size, m.before, m.after) for m in made if m.source],
    )
    con.execute(
        # A file that was rewritten for somebody else before.
        "CREATE OR REPLACE TEMP TABLE delivered AS SELECT r.source, r.file, r.after, "
        "coalesce(f.delivered_sha256, r.before) AS delivered FROM rewritten AS r LEFT JOIN ops.rewritten_files AS f "
        "ON f.source = r.source AND f.file = r.file AND f.sha256 = r.before"
    )
    con.execute(
        "INSERT INTO ops.rewritten_files SELECT source, file, after, delivered FROM delivered "
        "WHERE (source, file, after) NOT IN (SELECT (source, file, sha256) FROM ops.rewritten_files)"
    )
    con.execute(
        # Only of what is in the books: a file that was delivered anew has yet to look new.
        "UPDATE ops.positions AS p SET size = r.size FROM rewritten AS r JOIN delivered AS d "
        "ON d.source = r.source AND d.file = r.file WHERE p.source = r.source AND p.file = r.file "
        "AND p.sha256 = d.delivered"
    )
    temp_table(
        con,
        "rewritten_records",
        "source VARCHAR, file VARCHAR, before VARCHAR, after VARCHAR",
        [(m.source, m.path, before, after) for m in made if m.source for before, after in m.records.items()],
    )
    con.execute(
        # So that what was decided about a row is known when its new text is read again.
        "UPDATE ops.dead_letters AS d SET checksum = coalesce(nullif(r.after, ''), "
        f"{literal(ERASED)} || d.line) FROM rewritten_records AS r WHERE d.source = r.source AND d.file = r.file "
        "AND d.line IS NOT NULL AND d.checksum = r.before"
    )


def delivered(con: duckdb.DuckDBPyConnection, source: str) -> dict[tuple[str, str], str]:
    """Of each file that was rewritten, by path and present fingerprint: the fingerprint of what was delivered."""
    rows = con.execute(
        "SELECT file, sha256, delivered_sha256 FROM ops.rewritten_files WHERE source = ?", [source]
    ).fetchall()
    return {(file, after): before for file, after, before in rows}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
