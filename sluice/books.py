"""Reading the books: what the ledger says, and whether it balances over the whole lake.

Writing the ledger belongs to `sluice.booking`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sluice.lake import Lake
from sluice.sql import quoted


@dataclass(frozen=True)
class SourceBooks:
    """A source over all its current batches; rows in bronze and dead letters counted, not booked.

    `rows_erased` were accepted and are gone with the people they were about.
    `doubled`: accepted batches that stand beside another current one of their partition; there must be none.
    `astray`: batches whose own rows are not those of the ledger, though those of others may make up for it.
    """

    source: str
    batches: int
    refused: int
    rows_read: int
    rows_accepted: int
    rows_dead_lettered: int
    rows_duplicate: int
    rows_in_bronze: int
    rows_in_dead_letters: int
    doubled: int
    rows_erased: int = 0
    astray: int = 0

    @property
    def balanced(self) -> bool:
        """Conservation law, and the ledger agreeing with the tables, batch by batch and in all."""
        return (
            self.rows_read == self.rows_accepted + self.rows_dead_lettered + self.rows_duplicate
            and self.rows_accepted == self.rows_in_bronze + self.rows_erased
            and self.rows_dead_lettered == self.rows_in_dead_letters
            and not self.doubled
            and not self.astray
        )


def sources(lake: Lake) -> set[str]:
    """Every source there are books of, also one whose contract is gone."""
    with lake.reading() as con:
        return {name for (name,) in con.execute("SELECT DISTINCT source FROM ops.ledger").fetchall()}


def books(lake: Lake, sources: list[str]) -> list[SourceBooks]:
    """The books of each source that has a bronze table, in the order given."""
    found = []
    with lake.reading() as con:
        present = {
            row[0]
            for row in con.execute(
                "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' AND schema_name = 'bronze'"
            ).fetchall()
        }
        for source in sources:
            if source not in present:
                continue
            row = con.execute(
                "WITH booked AS (SELECT * FROM ops.ledger WHERE source = $source AND superseded_by IS NULL), "
                f"kept AS (SELECT _batch_id AS batch_id, count(*) AS kept FROM bronze.{quoted(source)} GROUP BY ALL), "
                "aside AS (SELECT batch_id, sum(rows)::BIGINT AS aside FROM ops.dead_letters WHERE source = $source "
                "AND status <> 'replayed' GROUP BY ALL), "
                "current AS (SELECT * FROM booked LEFT JOIN kept USING (batch_id) LEFT JOIN aside USING (batch_id)) "
                "SELECT count(*), count(*) FILTER (status = 'refused'), coalesce(sum(rows_read), 0)::BIGINT, "
                "coalesce(sum(rows_accepted), 0)::BIGINT, coalesce(sum(rows_dead_lettered), 0)::BIGINT, "
                f"coalesce(sum(rows_duplicate), 0)::BIGINT, (SELECT count(*) FROM bronze.{quoted(source)}), "
                "coalesce(sum(aside), 0)::BIGINT, "
                "count(*) FILTER (status = 'accepted') - count(DISTINCT partition_key) FILTER (status = 'accepted'), "
                "coalesce(sum(rows_erased), 0)::BIGINT, count(*) FILTER ("
                "rows_read <> rows_accepted + rows_dead_lettered + rows_duplicate "
                "OR rows_accepted - coalesce(rows_erased, 0) <> coalesce(kept, 0) "
                "OR rows_dead_lettered <> coalesce(aside, 0)) "
                "FROM current",
                {"source": source},
            ).fetchone()
            assert row is not None, "an aggregate has a row"
            found.append(SourceBooks(source, *row))
    return found


@dataclass(frozen=True)
class Warned:
    """What a gate told of a source's current batches: by rule and column, the newest of its details and a place."""

    source: str
    rule: str
    column: str
    batches: int
    rows: int
    detail: str
    sample: str


def warnings(lake: Lake, source: str = "", partitions: list[str] | None = None) -> list[Warned]:
    """What the gates told of current batches without refusing them.

    Args:
        lake: whose books.
        source: of this source; empty for all.
        partitions: of these partitions; None for all.
    """
    with lake.reading() as con:
        rows = con.execute(
            'SELECT w.source, w."rule", w."column", count(*), sum(w.rows)::BIGINT, '
            "arg_max(w.detail, w.partition_key), coalesce(arg_max(w.sample, w.partition_key), '') "
            "FROM ops.warnings AS w JOIN ops.ledger AS l USING (batch_id) WHERE l.superseded_by IS NULL "
            "AND ($source = '' OR w.source = $source) "
            "AND ($partitions IS NULL OR list_contains($partitions, w.partition_key)) GROUP BY ALL ORDER BY 1, 2, 3",
            {"source": source, "partitions": partitions},
        ).fetchall()
    return [Warned(*row) for row in rows]


def dead_letter_reasons(lake: Lake, source: str) -> list[tuple[str, str, int, str]]:
    """Open dead letters of a source by rule and column: rule, column, rows, one sample of the raw text."""
    with lake.reading() as con:
        return con.execute(
            "SELECT r.\"rule\", coalesce(r.\"column\", ''), sum(rows)::BIGINT, coalesce(any_value(left(raw, 120)), '') "
            "FROM (SELECT rows, raw, unnest(reasons) AS r FROM ops.dead_letters WHERE source = ? AND status = 'open') "
            "GROUP BY ALL ORDER BY 3 DESC, 1, 2",
            [source],
        ).fetchall()
