"""Schema drift: files whose columns are not those of their contract. What becomes of their batches, and what is told.

Finding a file's columns belongs to `sluice.records`, the shape of a bronze table to `sluice.bronze`. What is found lies
in the temporary table `drift` (batch_no, file_id, name, kind): a column of a file that the contract does not know
(`unexpected`), or one of the contract's that the file lacks (`missing`). `ops.schema_drift` keeps it for people.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

import duckdb

from sluice.bronze import evolved_columns, free_name, table_columns
from sluice.contracts import Column, Contract
from sluice.lake import Lake
from sluice.records import (
    MOST_NEW_COLUMNS,
    OPERATION,
    SCHEMA_RULES,
    FileFault,
    lacks,
    listed,
    path_roots,
    similar,
    too_many,
)
from sluice.rules import text, value
from sluice.sql import literal, quoted, temp_table

# Documents may hold data in the place of names, and a table of such names is read by nobody.
MOST_NOTED = 1000

# Of a few records none may have a value by chance, and that is for the share of rejected rows to judge. A column that
# went missing shows itself in any real file; twenty records without one are none by chance.
LEAST_DOCUMENTS = 20

# Where a column that is missing may be found under a new name, and the other way round.
_OTHER = {"missing": "unexpected", "unexpected": "missing"}

_ACTIONS = {"evolve": "evolved", "freeze": "refused", "discard": "discarded"}


@dataclass(frozen=True)
class Drift:
    """A column by which files of a source differ from its contract, as `ops.schema_drift` has it.

    Attributes:
        source: name of the contract.
        column: its name in the files.
        kind: unexpected or missing.
        action: what was done: evolved, discarded, refused, null (filled with nulls), declared (in the contract by now).
        bronze_column: of an evolved one, its name in bronze.
        detail: what it may have been before; empty where nothing is like it.
        file: the first file that differs so.
        batch_id: likewise its batch.
        first_seen_at: when, UTC.
    """

    source: str
    column: str
    kind: str
    action: str
    bronze_column: str | None
    detail: str
    file: str
    batch_id: str
    first_seen_at: datetime

    def __str__(self) -> str:
        done = {
            "evolved": f"is new, and in bronze as {self.bronze_column}",
            "discarded": "is new, and dropped",
            "refused": "is new, and its batch refused"
            if self.kind == "unexpected"
            else "is missing, and the batch refused",
            "null": "is missing, and null",
            "declared": "was new, and is in the contract by now",
        }[self.action]
        return f"{self.column!r} {done} (first: {self.file})" + (f". {self.detail}" if self.detail else "")


def drift(lake: Lake, source: str = "") -> list[Drift]:
    """What `ops.schema_drift` has of a source, or of all, oldest first."""
    with lake.reading() as con:
        if not table_columns(con, "schema_drift", "ops"):  # a lake made by an earlier version
            return []
        return drift_of(con, source)


def drift_of(con: duckdb.DuckDBPyConnection, source: str = "", columns: Collection[str] | None = None) -> list[Drift]:
    """Likewise, of some columns only, on a connection that is there already."""
    rows = con.execute(
        'SELECT source, "column", kind, action, bronze_column, detail, file, batch_id, first_seen_at '
        "FROM ops.schema_drift WHERE ($source = '' OR source = $source) "
        'ORDER BY first_seen_at, source, "column", kind',
        {"source": source},
    ).fetchall()
    # Chosen here: a source has some thousand rows at most, a header any number of names, and to bind one takes 0.3 ms.
    return [found for found in (Drift(*row) for row in rows) if columns is None or found.column in columns]


# Before the rows are written


def find(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Make `drift` of the files whose rows `sluice.judging.judge` has just judged; forget what is to be discarded."""
    # A list, for it may be empty. Of what a document has besides a part the contract takes, `_extra` tells.
    con.execute(
        "CREATE OR REPLACE TEMP TABLE drift AS SELECT DISTINCT f.batch_no, d.file_id, d.name, "
        "CASE WHEN d.lacking THEN 'missing' ELSE 'unexpected' END AS kind FROM (FROM file_drift UNION ALL "
        "SELECT file_id, unnest(keys), false FROM (SELECT DISTINCT file_id, json_keys(extra) AS keys FROM judged "
        "WHERE extra IS NOT NULL AND file_id NOT IN (SELECT file_id FROM file_drift WHERE NOT lacking))) AS d "
        "JOIN batch_files AS f USING (file_id) WHERE NOT list_contains($roots::VARCHAR[], d.name)",
        {"roots": sorted(path_roots(contract))},
    )
    if contract.schema_evolution == "discard":
        con.execute("UPDATE judged SET extra = NULL WHERE extra IS NOT NULL")


def refuse(
    con: duckdb.DuckDBPyConnection, contract: Contract, faults: Sequence[FileFault], documents: Sequence[int]
) -> list[FileFault]:
    """Refuse the batches with files whose columns the contract does not allow; between judging and writing.

    Makes `drift`, and for `sluice.booking` the temporary table `file_refusals`: files of rows each of which is in
    order, for which their batch is refused.

    Args:
        con: as `sluice.gates.apply_gates` has left it.
        contract: of the source.
        faults: the files set aside as a whole.
        documents: numbers of the files of JSON lines.

    Returns:
        The files to be told of besides `faults`.
    """
    find(con, contract)
    lacking = _lacking_documents(con, contract, documents)
    if lacking:
        temp_table(
            con,
            "lacking_files",
            "file_id INTEGER, rule VARCHAR, column VARCHAR, detail VARCHAR, rows BIGINT",
            [(f.file_id, f.rule, f.column, f.detail, f.rows) for f in lacking],
        )
        con.execute("INSERT INTO file_faults BY NAME FROM lacking_files")
        con.execute("DELETE FROM judged WHERE file_id IN (SELECT file_id FROM lacking_files)")
    unfit = [f for f in [*faults, *lacking] if f.rule in SCHEMA_RULES]
    _refuse_batches(con, unfit)
    causes = _not_allowed(con, contract)
    temp_table(
        con,
        "file_refusals",
        "file_id INTEGER, rule VARCHAR, detail VARCHAR",
        [(f.file_id, f.rule, f.detail) for f in causes],
    )
    if causes:
        _refuse_batches(con, [*unfit, *causes])
    return [*lacking, *causes]


def differing_columns(con: duckdb.DuckDBPyConnection, contract: Contract) -> set[str]:
    """Names in the files of the columns by which those at hand differ from the contract; after `refuse`."""
    own = {c.name: c.source_name for c in contract.columns}
    rows = con.execute(
        "SELECT name, false FROM drift UNION SELECT \"column\", true FROM file_faults WHERE rule = 'missing_column'"
    ).fetchall()
    return {own[name] if lacking else name for name, lacking in rows}


def _refuse_batches(con: duckdb.DuckDBPyConnection, causes: Sequence[FileFault]) -> None:
    temp_table(con, "refusing_files", "file_id INTEGER, detail VARCHAR", [(f.file_id, f.detail) for f in causes])
    con.execute(
        "CREATE OR REPLACE TEMP TABLE batch_refusals AS SELECT batch_no, arg_min(path || ': ' || detail, file_id) "
        "AS detail FROM refusing_files JOIN batch_files USING (file_id) GROUP BY batch_no"
    )
    # More to the point than the share of rejected rows, which a file without a column passes, too.
    con.execute(
        "UPDATE batch_books AS b SET refused = true, reason = r.detail FROM batch_refusals AS r "
        "WHERE r.batch_no = b.batch_no"
    )


def _lacking_documents(con: duckdb.DuckDBPyConnection, contract: Contract, documents: Sequence[int]) -> list[FileFault]:
    """Files of JSON lines that lack a required column: of LEAST_DOCUMENTS records and more none has a value.

    Keys vary from line to line, so what one record lacks is the row's fault (rule `required`). Of deletes only the key
    is looked at.
    """
    required = [c for c in contract.columns if c.required or c.primary_key]
    if not documents or not required:
        return []

    def lacking(typed: bool) -> str:
        shown = value if typed else text

        def of(column: Column) -> str:
            # What has the column: of deletes the key alone, of truncates nothing.
            without = [] if contract.change_feed is None or column.primary_key else ["'d'"]
            if contract.change_feed is not None and contract.change_feed.truncates:
                without.append("'t'")
            only = f" FILTER (coalesce({shown(OPERATION)}, '') NOT IN ({', '.join(without)}))" if without else ""
            rows, held = f"count(*){only}", f"count({shown(column.name)}){only}"
            return f"{rows} >= {LEAST_DOCUMENTS} AND {held} = 0"

        return f"[{', '.join(map(of, required))}] AS lacking"

    # The typed values are there already; only where a column has none are the texts looked at.
    suspects = con.execute(
        f"SELECT file_id FROM (SELECT file_id, {lacking(True)} FROM judged WHERE file_id IN (SELECT unnest(?)) "
        "GROUP BY file_id) WHERE list_contains(lacking, true)",
        [list(documents)],
    ).fetchall()
    if not suspects:
        return []
    found = con.execute(
        f"SELECT file_id, s.rows, r.lacking FROM (SELECT file_id, {lacking(False)} FROM records WHERE fault IS NULL "
        "AND file_id IN (SELECT unnest(?)) GROUP BY file_id) AS r "
        "JOIN (SELECT file_id, count(*) FILTER (NOT twin) AS rows FROM judged GROUP BY file_id) AS s USING (file_id) "
        "WHERE list_contains(lacking, true) ORDER BY file_id",
        [[file_id for (file_id,) in suspects]],
    ).fetchall()
    faults = []
    for file_id, rows, which in found:
        column = required[which.index(True)]
        new = _names(con, "unexpected", file_id)
        detail = lacks(contract, column, new, "No record of the file has a value in")
        faults.append(FileFault(file_id, "missing_column", detail, rows, column.name))
    return faults


def _names(con: duckdb.DuckDBPyConnection, kind: str, file_id: int) -> list[str]:
    rows = con.execute("SELECT name FROM drift WHERE kind = ? AND file_id = ? ORDER BY 1", [kind, file_id]).fetchall()
    return [name for (name,) in rows]


def _not_allowed(con: duckdb.DuckDBPyConnection, contract: Contract) -> list[FileFault]:
    """Files of batches that still stand whose new columns the contract keeps out, or that are too many for a table."""
    files = con.execute(
        "SELECT file_id, coalesce(any_value(g.rows), 0), list_sort(list(d.name)) FROM drift AS d "
        "JOIN batch_books AS b USING (batch_no) LEFT JOIN (SELECT file_id, count(*) AS rows FROM judged "
        "WHERE NOT twin AND NOT rejected GROUP BY file_id) AS g USING (file_id) "
        "WHERE d.kind = 'unexpected' AND NOT b.refused GROUP BY file_id, b.partition_key "
        "ORDER BY b.partition_key, file_id"
    ).fetchall()
    if contract.schema_evolution == "freeze":
        return [FileFault(id_, "unexpected_column", _not_known(contract, names), rows) for id_, rows, names in files]
    found = []
    if files and contract.schema_evolution == "evolve":
        present = set(evolved_columns(con, contract.name))
        before = len(present)
        for file_id, rows, names in files:
            if len(present | set(names)) > MOST_NEW_COLUMNS:
                new = [n for n in names if n not in present]
                found.append(FileFault(file_id, "too_many_columns", too_many(new, before), rows))
            else:
                present |= set(names)
    return found


def _not_known(contract: Contract, names: Collection[str]) -> str:
    return (
        f"The file has columns that the contract does not know ({listed(names)}), and its schemaEvolution is freeze. "
        f"Declare them in {contract.path.name}, or have the columns delivered that were agreed on."
    )


def reject_rows(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Reject judged rows with columns that the contract does not let in: of batches accepted before, which still stand.

    What `refuse` is for whole batches, this is for single dead letters that are taken again.
    """
    find(con, contract)
    unfit = _not_allowed(con, contract)
    if not unfit:
        return
    kept = set(evolved_columns(con, contract.name)) if contract.schema_evolution == "evolve" else set()
    names = sorted({name for f in unfit for name in _names(con, "unexpected", f.file_id)} - kept)
    con.execute(
        'INSERT INTO repeated (row_id, "rule", detail) SELECT row_id, $rule, $detail FROM judged '
        "WHERE NOT rejected AND (file_id IN (SELECT file_id FROM file_drift "
        "WHERE NOT lacking AND list_contains($names, name)) OR list_has_any(json_keys(extra), $names))",
        {"rule": unfit[0].rule, "detail": unfit[0].detail, "names": names},
    )
    con.execute("UPDATE judged SET rejected = true WHERE row_id IN (SELECT row_id FROM repeated)")


# In the transaction that writes the rows


def take_in(con: duckdb.DuckDBPyConnection, contract: Contract, now: datetime) -> list[tuple[str, str]]:
    """Do with the columns of `drift` what the contract says, and note it.

    Returns:
        Of every column that bronze takes in besides the contract's: its name there, and its SQL over `judged` AS j.
    """
    _note(con, contract, now)
    if contract.schema_evolution != "evolve":
        return []
    names = con.execute(
        "SELECT DISTINCT d.name FROM drift AS d JOIN batch_books AS b USING (batch_no) "
        "WHERE d.kind = 'unexpected' AND NOT b.refused ORDER BY 1"
    ).fetchall()
    if not names:
        return []
    evolved = evolved_columns(con, contract.name)
    new = [name for (name,) in names if name not in evolved]
    if new:
        taken = set(table_columns(con, contract.name))
        for name in new:
            evolved[name] = free_name(name, taken)
            taken.add(evolved[name])
            con.execute(f"ALTER TABLE bronze.{quoted(contract.name)} ADD COLUMN {quoted(evolved[name])} VARCHAR")
        temp_table(con, "new_columns", "name VARCHAR, bronze_column VARCHAR", [(n, evolved[n]) for n in new])
        con.execute(
            "UPDATE ops.schema_drift AS s SET bronze_column = n.bronze_column FROM new_columns AS n "
            "WHERE s.source = ? AND s.kind = 'unexpected' AND s.\"column\" = n.name",
            [contract.name],
        )
    return [(evolved[name], f"json_extract_string(j.extra, {literal(_pointer(name))})") for (name,) in names]


def _pointer(name: str) -> str:
    """The JSON pointer of a member, whatever it is called."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _note(con: duckdb.DuckDBPyConnection, contract: Contract, now: datetime) -> None:
    """Write into `ops.schema_drift` what of `drift` is not there yet, or is dealt with in another way by now."""
    if not differing_columns(con, contract):
        return
    action = _ACTIONS[contract.schema_evolution]
    own = [(c.name, c.source_name) for c in contract.columns]
    temp_table(con, "own_columns", "name VARCHAR, source_name VARCHAR", own)
    seen = con.execute(
        "WITH seen AS (SELECT DISTINCT ON (name, kind) * FROM (SELECT d.name, kind, d.file_id, "
        "CASE kind WHEN 'missing' THEN 'null' ELSE $action END AS action, NULL AS detail "
        "FROM drift AS d JOIN batch_books AS b USING (batch_no) "
        "WHERE b.refused = (kind = 'unexpected' AND $action = 'refused') "
        "UNION ALL SELECT c.source_name, 'missing', x.file_id, 'refused', x.detail FROM file_faults AS x "
        'JOIN own_columns AS c ON c.name = x."column" JOIN batch_files AS f USING (file_id) '
        "JOIN batch_books AS b ON b.batch_no = f.batch_no "
        "WHERE x.rule = 'missing_column' AND b.refused) ORDER BY name, kind, file_id) "
        "SELECT s.name, s.kind, s.action, s.detail, s.file_id, o.action IS NULL, "
        "(SELECT count(*) FROM ops.schema_drift WHERE source = $source) "
        "FROM seen AS s LEFT JOIN ops.schema_drift AS o ON o.source = $source "
        'AND o."column" = s.name AND o.kind = s.kind WHERE o.action IS DISTINCT FROM s.action ORDER BY ALL',
        {"source": contract.name, "action": action},
    ).fetchall()
    noted: list[tuple[str, str, str, str, int]] = []
    added = 0
    names = cache(lambda kind, file_id: _names(con, kind, file_id))
    for name, kind, done, said, file_id, is_new, count in seen:
        # What came into bronze is bounded, and must be known to find it again.
        if is_new and kind == "unexpected" and done != "evolved" and count + added >= MOST_NOTED:
            continue
        added += is_new
        noted.append((name, kind, done, said or _renamed(name, kind, names(_OTHER[kind], file_id)), file_id))
    if not noted:
        return
    temp_table(con, "noted", "name VARCHAR, kind VARCHAR, action VARCHAR, detail VARCHAR, file_id INTEGER", noted)
    given = {"source": contract.name, "version": contract.version, "now": now}
    con.execute(
        "UPDATE ops.schema_drift AS s SET action = n.action, detail = n.detail, contract_version = $version, "
        'decided_at = $now FROM noted AS n WHERE s.source = $source AND s."column" = n.name AND s.kind = n.kind',
        given,
    )
    con.execute(
        'INSERT INTO ops.schema_drift BY NAME SELECT $source AS source, n.name AS "column", n.kind, n.action, '
        "n.detail, f.path AS file, b.batch_id, $version AS contract_version, $now AS first_seen_at, $now AS decided_at "
        "FROM noted AS n JOIN batch_files AS f USING (file_id) JOIN batch_books AS b USING (batch_no) "
        'WHERE (n.name, n.kind) NOT IN (SELECT ("column", kind) FROM ops.schema_drift WHERE source = $source)',
        given,
    )


def _renamed(name: str, kind: str, others: Collection[str]) -> str:
    """What a column probably is called in the contract, or in the file; empty where none of the `others` is like it."""
    close = similar(name, others)
    if close is None:
        return ""
    was, now = (name, close) if kind == "missing" else (close, name)
    return f"If {was!r} was renamed to {now!r}, set physicalName."
