"""The proof: every file under the home folder and the landing area is read, and the person looked for.

Twice: as bytes, and as what the bytes hold, for Parquet and gzip hide their content. An id such as 15036 may be a
product's code or a count elsewhere; what decides is said with each kind of file below. Places where the same digits
have another meaning are counted and told, so that somebody can judge; a value only the person has counts anywhere.
"""

from __future__ import annotations

import gzip
import mmap
import os
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import duckdb

from sluice.contracts import Contract
from sluice.erasure.landing import folders, parquet_rows, records, routed
from sluice.erasure.leftovers import GZIP, PARQUET, SQLITE, configuration, files_of, sqlite_columns, tokens
from sluice.erasure.lines import may_hold
from sluice.erasure.person import SQL_NUMBER, Person, Place, is_numeric
from sluice.erasure.rows import may_name, names_them
from sluice.erasure.topics import hits, topic_names, topics_of
from sluice.errors import EventLogUnavailableError
from sluice.lake import LAKE, Lake, copies
from sluice.records.shape import no_glob
from sluice.sql import literal, quoted

_NOT_READ = "cannot be read"
_NOT_LISTED = "cannot be listed"
_LEADS_OUT = "a link to elsewhere"

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")


@dataclass
class Findings:
    """What was searched and found.

    Attributes:
        files, bytes, values, rows: how much was searched for how many values.
        found: places with a number of hits.
        elsewhere: places where the same digits have another meaning, with a number of hits.
        mentions: those of `found` that say of no value what it means, such as logs.
        unsearched: files and folders of which nobody can say what is in them, with why.
    """

    files: int = 0
    bytes: int = 0
    values: int = 0
    rows: int = 0
    found: dict[str, int] = field(default_factory=dict)
    elsewhere: dict[str, int] = field(default_factory=dict)
    mentions: set[str] = field(default_factory=set)
    unsearched: dict[str, str] = field(default_factory=dict)

    @property
    def nowhere(self) -> bool:
        """Whether everything could be searched, and nothing was found."""
        return not self.found and not self.unsearched

    @property
    def only_mentioned(self) -> bool:
        """Whether nothing was found but what may as well be any other number of these digits."""
        return self.found.keys() <= self.mentions

    def hit(self, place: str, count: int, *, other: bool = False, mention: bool = False) -> None:
        """Note hits; `other`: the same digits with another meaning; `mention`: nothing says what they mean."""
        if count:
            into = self.elsewhere if other else self.found
            into[place] = into.get(place, 0) + count
            if mention and not other:
                self.mentions.add(place)


def search(
    lake: Lake, contracts: Sequence[Contract], where: Sequence[Place], person: Person, logs: Iterable[Path] = ()
) -> Findings:
    """Look for a person everywhere.

    Args:
        lake: with its home folder.
        contracts: all there are: what a column means is theirs to say.
        where: the sources that name such people.
        person: who.
        logs: files, and folders that cannot be listed, outside the home folder, that are searched as well.
    """
    settings = lake.settings
    data = None if "://" in settings.lake_data_path else Path(settings.lake_data_path)
    seeker = _Seeker(lake, contracts, where, person)
    own = [settings.catalog_path, settings.erasure_key_path, *copies(settings)]
    landing = settings.landing_path
    # No link is followed but those that Sluice follows itself: its own folders, those of sources, and landing files.
    within = [settings.home, *settings.own_folders, *([data] if data else [])]
    within += [folder.resolve() for folder in folders(settings, contracts)]
    known = {(landing / path).resolve(): what for path, what in routed(settings, contracts).items()}
    parquet = []
    for path in sorted({*files_of(within), *logs, *known} - set(configuration(settings))):
        try:
            if path.is_symlink() and not (path.parent.resolve().is_relative_to(landing) and path.is_file()):
                seeker.findings.unsearched[str(path)] = _LEADS_OUT
                continue
            head = path.open("rb").read(16)
            seeker.findings.files += 1
            seeker.findings.bytes += path.stat().st_size
            if any(path.is_relative_to(folder) for folder in settings.logs_of_events):
                continue  # packed: the embedded log is read by message below, a Kafka's files are the broker's
            if path.resolve() in known:
                seeker.landing_file(path, *known[path.resolve()])
            elif head.startswith(PARQUET):
                parquet.append(path)
            elif head.startswith(SQLITE):
                seeker.sqlite(path, catalog=path in own)
            else:
                seeker.log(path, head, mention=not path.is_relative_to(landing))
        except FileNotFoundError:  # a run has ended and taken its files along
            continue
        except (PermissionError, IsADirectoryError, sqlite3.DatabaseError):
            # Path's own raises where a folder tells the names in it, and no more.
            is_folder = os.path.isdir(path)  # noqa: PTH112
            seeker.findings.unsearched[str(path)] = _NOT_LISTED if is_folder else _NOT_READ
    for folder, group in groupby(parquet, key=lambda p: p.parent):
        seeker.parquet(folder, list(group))
    if data is None:
        seeker.bucket()
    for topic in topic_names(settings):
        try:
            messages, theirs, others = hits(settings, topics_of(contracts, where), topic, person)
        except EventLogUnavailableError:
            seeker.findings.unsearched[f"topic {topic}"] = _NOT_READ
            continue
        seeker.findings.rows += messages
        seeker.findings.hit(f"topic {topic}", theirs)
        seeker.findings.hit(f"topic {topic}", others, other=True)
    seeker.tables()
    return seeker.findings


def in_parquet(lake: Lake, contracts: Sequence[Contract], where: Sequence[Place], person: Person, path: Path) -> bool:
    """Whether one Parquet file holds the person, or may: it cannot be read."""
    seeker = _Seeker(lake, contracts, where, person)
    seeker.parquet(path.parent, [path])
    return not seeker.findings.nowhere


class _Seeker:
    """One search."""

    def __init__(self, lake: Lake, contracts: Sequence[Contract], where: Sequence[Place], person: Person) -> None:
        self.lake, self.person = lake, person
        self.places = {p.contract.name: p for p in where}
        self._letters_of_others: list[bytes] | None = None
        self.findings = Findings(values=1 + len(person.values))
        named = {c.name for p in where for c in (*p.ids, *p.personal)} | {
            c.source_name for p in where for c in (*p.ids, *p.personal)
        }
        # By these names the contracts call something else, which may have the digits of an id.
        self.others = {n for c in contracts for k in c.columns for n in (k.name, k.source_name)} - named
        # Rows that name the person have lost it: what is left is of others' rows, which may hold any number.
        self.others.add("_extra")
        self.ids = {n for p in where for c in p.ids for n in (c.name, c.source_name)}

    def landing_file(self, path: Path, contract: Contract, form: str) -> None:
        """A landing file: record by record, as its contract takes it apart."""
        place = self.places.get(contract.name)
        if form == "parquet":
            self.parquet(path.parent, [path])
            told = str(path) in self.findings.unsearched
            told |= any(self._label(path.parent) in found for found in self.findings.found)
            if place is not None and not told:
                with duckdb.connect() as con:
                    self.findings.hit(str(path), parquet_rows(con, path, place, self.person))
            return
        data = path.read_bytes()
        if path.name.endswith(".gz"):
            data = self._unpacked(path, data)
        theirs = 0
        if place is None:
            theirs = sum(1 for _ in self.person.value_tokens.spans(data)) if self.person.value_tokens else 0
        else:
            encoding = contract.landing.csv.encoding if form == "csv" else "utf-8"
            text = data.decode(encoding, "surrogateescape")
            if may_hold(place, self.person, text, form):
                theirs = sum(1 for line, *_ in records(text, place, form, self.person) if line.verdict != "other")
        self.findings.hit(str(path), theirs)
        if not theirs:
            hits = sum(1 for _ in self.person.tokens.spans(data))
            self.findings.hit(f"{contract.name}: landing files, in other columns", hits, other=True)

    def log(self, path: Path, head: bytes, *, mention: bool) -> None:
        """Any other file: its bytes, unpacked. `mention`: a log; what somebody delivered is about people."""
        if head.startswith(GZIP):
            unpacked = self._unpacked(path, path.read_bytes())
            self.findings.hit(str(path), sum(1 for _ in tokens(self.person, unpacked)), mention=mention)
        elif path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self.findings.hit(str(path), sum(1 for _ in tokens(self.person, data)), mention=mention)

    def _unpacked(self, path: Path, data: bytes) -> bytes:
        try:
            out = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            self.findings.unsearched[str(path)] = "cannot be unpacked"
            return b""
        self.findings.bytes += len(out)
        return out

    def sqlite(self, path: Path, *, catalog: bool) -> None:
        """A database: every value, then its bytes, in which freed pages show."""
        # Quoted: a home may be named with #, ? or %, which mean something in a URI.
        con = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
        explained = 0
        try:
            con.text_factory = bytes
            kinds = _catalog_columns(con) if catalog else {}
            for table, columns in sqlite_columns(con):
                for row in con.execute(f'SELECT * FROM "{table}"'):
                    self.findings.rows += 1
                    meaning = kinds.get(_of_stats(table, columns, row))
                    for column, value in zip(columns, row, strict=True):
                        hits, other = self._catalog_value(table, column, value, meaning, catalog=catalog)
                        self.findings.hit(f"{path.name}: {table}.{column}", hits, mention=not catalog)
                        explained += other
                        if other and catalog:
                            self.findings.hit(f"{path.name}: {table}.{column}", other, other=True)
        finally:
            con.close()
        for file in (path, path.with_name(path.name + "-wal")):
            if file.exists() and file.stat().st_size:
                raw = file.read_bytes()
                left = sum(1 for _ in tokens(self.person, raw))
                # What the values do not account for stands in a freed page.
                if left > explained:
                    self.findings.hit(f"{file} (bytes)", left - explained, mention=True)

    def _catalog_value(
        self, table: str, column: str, value: object, meaning: tuple[str, str, str] | None, *, catalog: bool
    ) -> tuple[int, int]:
        """Hits in one value, and those of them that mean something else."""
        if not isinstance(value, bytes):
            theirs = str(value) == self.person.id and column in self.ids
            return int(theirs), 0
        hits = sum(1 for _ in tokens(self.person, value))
        if not hits or not catalog:
            return hits, 0
        if self._has_value(value):
            return hits, 0
        name, kind, owner = meaning or (column, "varchar", "")
        if owner == "dead_letters" and any(text.startswith(value) for text in self._other_letters()):
            return 0, hits
        if name in self.others or (kind != "varchar" and (name not in self.ids or value.decode() != self.person.id)):
            return 0, hits
        return hits, 0

    def _other_letters(self) -> list[bytes]:
        """Texts of the dead letters that do not name the person, and quotes of them: their digits may be there."""
        if self._letters_of_others is None:
            with self.lake.reading() as con:
                rows = con.execute(
                    "SELECT list_concat([raw, corrected], list_transform(reasons, lambda r: r.value)), source, file, "
                    "raw, raw_encoding, corrected, header, CAST(reasons AS VARCHAR), decided_why "
                    "FROM ops.dead_letters WHERE raw IS NOT NULL OR corrected IS NOT NULL"
                ).fetchall()
            self._letters_of_others = [
                text.encode()
                for texts, source, *letter in rows
                if not names_them(self.places.get(source), self.person, *letter)
                for text in texts
                if text
            ]
        return self._letters_of_others

    def parquet(self, folder: Path, paths: Sequence[Path]) -> None:
        """Parquet of one folder: every column as text; then the bytes.

        An id in the bytes that no column has is none: pages are compressed, and of the ids of five digits one in sixty
        stands in those of a lake of 18 MB by chance. Where a column of the file has it, or the bytes a personal value
        of theirs, it counts.
        """
        named = [str(p) for p in paths]
        with self._taught(duckdb.connect()) as con:
            try:
                theirs = self._columns(con, named, self._label(folder))
            except duckdb.Error:
                # Of different shapes; or one is no Parquet after all.
                theirs = set()
                for name in named:
                    try:
                        theirs |= self._columns(con, [name], self._label(folder))
                    except duckdb.Error:
                        self.findings.unsearched[name] = _NOT_READ
        for path in paths:
            try:
                raw = path.read_bytes()
            except PermissionError:
                self.findings.unsearched[str(path)] = _NOT_READ
                continue
            hits = sum(1 for _ in self.person.tokens.spans(raw))
            if hits:
                counts = str(path) in theirs or self._has_value(raw)
                self.findings.hit(f"{path} (bytes)", hits, other=not counts)

    def _label(self, folder: Path) -> str:
        root = Path(self.lake.settings.lake_data_path)
        return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)

    def _columns(self, con: duckdb.DuckDBPyConnection, paths: list[str], label: str) -> set[str]:
        """Search the columns of some files; returns the files in which the person is."""
        theirs: set[str] = set()
        read = (
            f"read_parquet([{', '.join(literal(no_glob(p)) for p in paths)}], union_by_name = true, "
            "filename = '_searched', hive_partitioning = false)"
        )
        shape = con.execute(f"DESCRIBE SELECT * EXCLUDE (_searched) FROM {read}").fetchall()
        names = [
            row[0] for row in shape if "VARCHAR" in row[1] or row[1] in ("JSON", "BLOB", "UUID") or row[0] in self.ids
        ]
        counted = con.execute(f"SELECT count(*) FROM {read}").fetchone()
        self.findings.rows += counted[0] if counted else 0
        if not names:
            return theirs
        kinds = {row[0]: row[1] for row in shape}
        counts = ", ".join(f"count(*) FILTER ({self._test(n, kinds[n])})" for n in names)
        grouped = con.execute(
            f"SELECT _searched, {counts} FROM {read} GROUP BY _searched",
            {"id": self.person.id},
        ).fetchall()
        rows = [(path, n, c) for path, *found in grouped for n, c in zip(names, found, strict=True) if c]
        letters: dict[str, int] = {}
        if {"raw", "raw_encoding", "reasons"} <= {s[0] for s in shape}:
            letters = {path: self._letters(con, path) for path, *_ in grouped}
        for path, column, count in rows:
            if path in letters and column != "decided_by":
                other = not letters[path]
            else:
                other = column in self.others and not self._values_in(
                    con, f"read_parquet({literal(no_glob(path))}, hive_partitioning = false)", column
                )
            self.findings.hit(f"{label}: {column}", count, other=other)
            if not other:
                theirs.add(path)
        for path in set(letters) - {row[0] for row in rows}:
            # Their number in another form.
            self.findings.hit(f"{label}: raw", letters[path])
        return theirs

    def _test(self, name: str, kind: str) -> str:
        text = f"CAST({quoted(name)} AS VARCHAR)"
        if kind in _WHOLE:
            return f"{text} = $id"  # as a token of a text, -15036 would count
        if is_numeric(kind):
            return f"TRY_CAST({text} AS {SQL_NUMBER}) = TRY_CAST($id AS {SQL_NUMBER})"
        # The cheap test first.
        wanted = self.person.tokens.may_be_in_sql(text)
        return f"CASE WHEN {wanted} THEN names_person({text}) OR {text} = $id ELSE false END"

    def _values_in(self, con: duckdb.DuckDBPyConnection, relation: str, column: str) -> bool:
        values = self.person.value_tokens
        if values is None:
            return False
        text = f"CAST({quoted(column)} AS VARCHAR)"
        return bool(
            con.execute(
                f"SELECT 1 FROM {relation} WHERE CASE WHEN {values.may_be_in_sql(text)} THEN has_value({text}) "
                "ELSE false END LIMIT 1"
            ).fetchone()
        )

    def _has_value(self, data: bytes) -> bool:
        return self.person.value_tokens is not None and self.person.value_tokens.is_in(data)

    def _taught(self, con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        """A connection that knows `names_person` and `has_value`: no expression of SQL finds a token."""
        con.create_function("names_person", self.person.is_in, ["VARCHAR"], "BOOLEAN")
        con.create_function("has_value", self.person.is_in_by_value, ["VARCHAR"], "BOOLEAN")
        return con

    def _letters(self, con: duckdb.DuckDBPyConnection, path: str) -> int:
        """Dead letters in a file that name the person; their texts are taken apart by their contracts."""
        condition, given = may_name(self.places.values(), self.person)
        rows = con.execute(
            "SELECT source, file, raw, raw_encoding, corrected, header, CAST(reasons AS VARCHAR), decided_why "
            f"FROM read_parquet({literal(no_glob(path))}, hive_partitioning = false) WHERE {condition}",
            given,
        ).fetchall()
        return sum(names_them(self.places.get(source), self.person, *rest) for source, *rest in rows)

    def bucket(self) -> None:
        """Data files in a bucket: what their columns hold, not their bytes."""
        with self.lake.reading() as con:
            self._taught(con)
            pattern = literal(self.lake.settings.lake_data_path + "**/*.parquet")
            names = [row[0] for row in con.execute(f"SELECT file FROM glob({pattern})").fetchall()]
            self.findings.files += len(names)
            for name in names:
                self._columns(con, [name], name.removeprefix(self.lake.settings.lake_data_path).rpartition("/")[0])

    def tables(self) -> None:
        """Every table and view of the lake as it is now, where the columns that name people are numbers as well."""
        with self.lake.reading() as con:
            self._taught(con)
            shape = con.execute(
                "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = ? "
                "AND (data_type LIKE '%VARCHAR%' OR list_contains(?, column_name)) ORDER BY ALL",
                [LAKE, sorted(self.ids)],
            ).fetchall()
            for (schema, table), group in groupby(shape, key=lambda row: (row[0], row[1])):
                kinds = {row[2]: row[3] for row in group}
                names = list(kinds)
                row = con.execute(
                    f"SELECT {', '.join(f'count(*) FILTER ({self._test(n, k)})' for n, k in kinds.items())} "
                    f"FROM {quoted(schema)}.{quoted(table)}",
                    {"id": self.person.id},
                ).fetchone()
                assert row is not None, "an aggregate has a row"
                for name, count in zip(names, row, strict=True):
                    if count and (schema, table) != ("ops", "dead_letters"):
                        relation = f"{quoted(schema)}.{quoted(table)}"
                        other = name in self.others and not self._values_in(con, relation, name)
                        self.findings.hit(f"{schema}.{table}: {name}", count, other=other)


def _catalog_columns(con: sqlite3.Connection) -> dict[tuple[object, object], tuple[str, str, str]]:
    """Name, type and table of each column of the lake, by table and column id."""
    return {
        (table, column): (name.decode(), kind.decode(), owner.decode())
        for table, column, name, kind, owner in con.execute(
            "SELECT c.table_id, c.column_id, c.column_name, c.column_type, t.table_name FROM ducklake_column AS c "
            "JOIN ducklake_table AS t USING (table_id)"
        ).fetchall()
    }


def _of_stats(table: str, columns: Sequence[str], row: Sequence[object]) -> tuple[object, object]:
    """The column of the lake a row of the catalog's statistics is about."""
    if "stats" in table and {"table_id", "column_id"} <= set(columns):
        return row[columns.index("table_id")], row[columns.index("column_id")]
    return None, None
