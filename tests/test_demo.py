"""`make demo` on a small shop: what it prints, gold equal to the shop's truth, a second run that changes nothing."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

import sluice
from sluice.dead_letters import Choice, letters
from sluice.lake import Lake
from sluice.pseudonyms import Key
from sluice.rest.state import State
from sluice.settings import PROJECT, Settings, load_settings
from sluice.simulation import Truth

DAYS, SCALE = 8, 0.3

# With a key each mail address has a pseudonym, so that a change of it is a version, as the shop knows it.
KEY = "a key of thirty-two bytes or more"


def run_demo(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The demo as `make demo` runs it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLUICE_", "DAGSTER_"))}
    return subprocess.run(
        [sys.executable, "demo.py", *arguments],
        cwd=PROJECT,
        env={**clean, "SLUICE_HOME": str(home), "SLUICE_PSEUDONYM_KEY": KEY},
        capture_output=True,
        text=True,
        # A demo that hangs is told from one on a slow machine, on which it has taken 240 s.
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder of one demo run."""
    return tmp_path_factory.mktemp("demo") / "home"


@pytest.fixture(scope="module")
def printed(home: Path) -> str:
    """What the first run printed."""
    done = run_demo(home, "--days", str(DAYS), "--scale", str(SCALE))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def settings(home: Path, printed: str) -> Settings:
    """The settings the demo noted in its home."""
    return load_settings(home=str(home))


@pytest.fixture(scope="module")
def truth(home: Path, printed: str) -> Truth:
    """What the shop knows to be true."""
    return Truth.read(home / "shop_truth.json")


@dataclass
class Mended:
    """The order line that the demo mends, read from its dead letter; what it adds to the shop's truth."""

    dead_letter_id: str
    source: str
    partition: str
    row: dict[str, str]
    truth: Truth

    @property
    def amount(self) -> Decimal:
        """Of the line."""
        return int(self.row["Quantity"]) * Decimal(self.row["Price"])

    def facts(self) -> dict[str, object]:
        """The truth's facts with this line, whose own invoice number the shop has given to nothing else."""
        facts = dict(self.truth.facts)
        at = datetime.fromisoformat(self.row["InvoiceDate"])
        prices = [
            v.attributes["list_price"]
            for v in self.truth.versions["products"]
            if v.key == self.row["StockCode"] and v.valid_from.replace(tzinfo=None) <= at
            and (v.valid_to is None or at < v.valid_to.replace(tzinfo=None))
        ]  # fmt: skip
        returned = self.row["Invoice"].startswith("C")

        def plus(name: str, more: Decimal | int) -> None:
            facts[name] = facts[name] + more if isinstance(more, int) else str(Decimal(facts[name]) + more)

        plus("order_lines", 1)
        plus("revenue", self.amount)
        plus("returns_lines", int(returned))
        plus("returns_revenue", self.amount * returned)
        plus("unknown_customer_lines", int(self.row["Customer ID"] == ""))
        plus("inferred_product_lines", int(not prices))
        if prices and prices[0] is not None:
            plus("list_value_as_of_sale", int(self.row["Quantity"]) * Decimal(prices[0]))
        return facts


@pytest.fixture(scope="module")
def mended(settings: Settings, truth: Truth) -> Mended:
    """What the demo mended."""
    (letter,) = letters(Lake(settings), Choice(status="replayed"))
    assert letter.decided_by == "demo" and letter.header is not None and letter.corrected is not None
    header, fields = csv.reader([letter.header, letter.corrected])
    row = dict(zip(header, fields, strict=True))
    assert letter.raw == letter.corrected.replace(row["Price"], '"' + row["Price"].replace(".", ",") + '"')
    return Mended(letter.dead_letter_id, letter.source, letter.partition_key, row, truth)


def test_one_dead_letter_is_mended_and_its_row_is_published(
    printed: str, settings: Settings, mended: Mended, home: Path
) -> None:
    assert f"mended and replayed: {mended.row['Price'].replace('.', ',')} became {mended.row['Price']}" in printed
    command = re.search(r"sluice (dead-letters show \w+)$", printed, re.MULTILINE)
    assert command and mended.dead_letter_id.startswith(command[1].split()[-1])
    done = subprocess.run(
        [sys.executable, "-m", "sluice", *command[1].split()],
        cwd=PROJECT, env={**os.environ, "SLUICE_HOME": str(home)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "corrected: " in done.stdout and "demo: replayed" in done.stdout
    with sluice.connect(settings) as con:
        published = con.execute(
            "SELECT stock_code, quantity, unit_price FROM fct_order_lines WHERE invoice = ?", [mended.row["Invoice"]]
        ).fetchall()
    price = Decimal(mended.row["Price"])
    assert published == [(mended.row["StockCode"], int(mended.row["Quantity"]), price)]


def test_it_prints_books_gold_time_checks_and_how_to_query(
    printed: str, truth: Truth, mended: Mended, settings: Settings
) -> None:
    with Lake(settings).reading() as con:
        streamed = con.execute(
            "SELECT sum(rows_read)::BIGINT, sum(rows_accepted)::BIGINT, sum(rows_dead_lettered)::BIGINT, "
            "sum(rows_duplicate)::BIGINT FROM ops.ledger WHERE starts_with(partition_key, 'stream:')"
        ).fetchone()
    assert streamed is not None and streamed[0] > 0
    for source, books in truth.ledger.items():
        line = next(line for line in printed.splitlines() if line.split()[:1] == [source])
        numbers = [int(cell.replace(",", "")) for cell in line.split()[2:-1]]
        moved = int(source == mended.source)
        if source == "events":
            # The day after the files' last came by a topic.
            numbers = [printed_ - came for printed_, came in zip(numbers, streamed, strict=True)]
        assert numbers == [books.rows_read, books.accepted + moved, books.dead_lettered - moved, books.duplicates]
        assert line.split()[-1] == "yes"
    assert "fct_order_lines" in printed
    assert "checks, dbt, publish" in printed
    assert "0 failed" in printed
    live = re.search(
        r"Streamed after the publication: ([\d,]+) events.* \(([\d,]+) sessions published,\n([\d,]+) ", printed
    )
    assert live is not None
    events, sessions, with_live = (int(number.replace(",", "")) for number in live.groups())
    assert 0 < events < streamed[1] and sessions < with_live
    with sluice.connect(settings) as con:
        # What the live view had is what everybody sees after the last build.
        assert con.execute("SELECT count(*) FROM fct_sessions").fetchall() == [(with_live,)]
    assert "published.sql" in printed


def test_exchange_rates_are_fetched_and_carried_over_the_weekend(printed: str, settings: Settings) -> None:
    line = next(line for line in printed.splitlines() if line.startswith("  exchange_rates"))
    # The first to the eighth of January 2026, of which two are a weekend, in eight currencies.
    assert line.split()[1:] == ["6", "48", "48", "0", "0", "yes"]
    with sluice.connect(settings) as con:
        got = con.execute(
            "SELECT count(*), count(*) FILTER (is_carried_over), max(days_since_rate), count(DISTINCT currency) "
            "FROM fct_exchange_rates WHERE calendar_date <= '2026-01-08'"
        ).fetchone()
        (bad,) = con.execute(
            "SELECT count(*) FROM fct_exchange_rates WHERE is_carried_over AND isodow(calendar_date) <= 5 "
            "AND calendar_date <= '2026-01-08'"
        ).fetchall()[0]
    assert got == (64, 16, 2, 8) and bad == 0
    # The API was the demo's own, and so was its port.
    assert len(State.of(settings).fetches("exchange_rates")) == 8
    assert State.of(settings).breakers("exchange_rates") == []


def test_facts_equal_the_truth(settings: Settings, truth: Truth, mended: Mended) -> None:
    with sluice.connect(settings) as con:
        got = con.execute(
            """
            SELECT count(*) AS order_lines, sum(line_amount)::VARCHAR AS revenue,
                count(*) FILTER (is_return) AS returns_lines,
                sum(line_amount) FILTER (is_return)::VARCHAR AS returns_revenue,
                count(*) FILTER (customers.is_unknown) AS unknown_customer_lines,
                count(*) FILTER (products.is_inferred) AS inferred_product_lines,
                count(*) FILTER (customers.is_inferred) AS inferred_customer_lines,
                sum(list_amount)::VARCHAR AS list_value_as_of_sale
            FROM fct_order_lines JOIN dim_product AS products USING (product_key)
            JOIN dim_customer AS customers USING (customer_key)
            """
        ).fetchone()
        names = [d[0] for d in con.description or []]
        events = con.execute(
            "SELECT count(*), count(*) FILTER (event_type = 'purchase') FROM fct_events "
            "WHERE NOT starts_with(_file, 'stream:')"
        ).fetchone()
        by_day = con.execute(
            "SELECT (invoiced_at::DATE)::VARCHAR || '|' || region_key, sum(line_amount) "
            "FROM fct_order_lines GROUP BY ALL"
        ).fetchall()
    assert got is not None
    facts = mended.facts()
    assert {n: facts[n] for n in names} == dict(zip(names, got, strict=True))
    assert events == (truth.facts["events"], truth.facts["purchases"])
    expected = {k: Decimal(v) for k, v in truth.revenue_by_day_region.items()}
    expected[mended.partition] = expected.get(mended.partition, Decimal(0)) + mended.amount
    assert dict(by_day) == {k: v for k, v in expected.items() if k in dict(by_day)}
    assert not [k for k, v in expected.items() if v and k not in dict(by_day)]


def test_the_shell_command_it_prints_reads_what_is_published(home: Path, printed: str, mended: Mended) -> None:
    assert f".venv/bin/duckdb -init {home}/published.sql" in printed
    done = subprocess.run(
        [
            Path(sys.executable).with_name("duckdb"), "-init", home / "published.sql", "-csv", "-noheader",
            "-c", "SELECT count(*) FROM fct_order_lines",
        ],
        capture_output=True, text=True, timeout=60, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.stdout.split()[-1] == str(mended.facts()["order_lines"])


def pseudonym(value: str | None) -> str | None:
    return None if value is None else Key(KEY.encode()).digest(value)[:32]


@pytest.mark.parametrize(
    ("source", "dimension", "key"),
    [("products", "dim_product", "stock_code"), ("customers", "dim_customer", "customer_id")],
)
def test_history_equals_the_truth(settings: Settings, truth: Truth, source: str, dimension: str, key: str) -> None:
    attributes = sorted(truth.versions[source][0].attributes)
    with sluice.connect(settings) as con:
        rows = con.execute(
            f"SELECT {key}, valid_from, valid_to, is_deleted, {', '.join(f'{a}::VARCHAR' for a in attributes)} "
            f"FROM {dimension} WHERE NOT is_inferred AND NOT is_unknown"
        ).fetchall()
    expected = {
        (
            v.key,
            v.valid_from.replace(tzinfo=None),
            v.valid_to.replace(tzinfo=None) if v.valid_to else None,
            v.is_deleted,
            *(pseudonym(v.attributes[a]) if a == "email" else v.attributes[a] for a in attributes),
        )
        for v in truth.versions[source]
    }
    assert len(rows) == len(expected)
    assert set(rows) == expected


def contents(settings: Settings) -> dict[str, tuple[int, object]]:
    """Rows and an order-free hash of every table of the lake."""
    with Lake(settings).reading() as con:
        tables = con.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE database_name = 'lake' ORDER BY 1"
        ).fetchall()
        return {
            name: con.execute(f"SELECT count(*), sum(hash(t)::HUGEINT) FROM {name} AS t").fetchall()[0]
            for (name,) in tables
        }


def test_a_second_run_changes_no_table(home: Path, settings: Settings) -> None:
    before = contents(settings)
    assert before["gold.fct_order_lines"][0] > 0
    done = run_demo(home, "--days", str(DAYS), "--scale", str(SCALE))
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(settings) == before


def test_the_shop_goes_on_and_foreign_files_are_not_overwritten(home: Path, settings: Settings) -> None:
    assert settings.end_date is None
    dropped = settings.landing_path / "orders/region=uk/date=2026-02-01/dropped.csv"
    dropped.parent.mkdir(parents=True)
    dropped.write_text("x")
    try:
        done = run_demo(home, "--days", str(DAYS), "--scale", str(SCALE))
        assert done.returncode == 1
        assert "`make clean` begins again" in done.stderr
        assert dropped.read_text() == "x"
    finally:
        dropped.unlink()
        dropped.parent.rmdir()


def test_two_landing_areas_do_not_mix_in_one_home(home: Path, settings: Settings, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "orders/region=uk/date=2026-01-01").mkdir(parents=True)
    (other / "orders/region=uk/date=2026-01-01/orders.csv").write_text("Invoice\n")
    done = run_demo(home, "--landing", str(other))
    assert done.returncode == 1
    assert "Set SLUICE_HOME to another folder" in done.stderr


def test_a_missing_landing_area_is_one_clear_message(tmp_path: Path) -> None:
    done = run_demo(tmp_path / "home", "--landing", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "is not there. Create it" in done.stderr
    assert "Traceback" not in done.stderr
