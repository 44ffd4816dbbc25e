"""The simulated shop keeps its word: its files say what its truth says.

What belongs here: a second, independent reading of the files, written from the contracts alone, and the
comparison with the truth; the kinds of dirt that must occur. What does not: the platform's own reading.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sluice.simulation import Truth, Version, generate
from sluice.simulation.__main__ import main

DAYS = 30  # the default period, in which every kind of dirt must occur
EVENT_TYPES = {"page_view", "view", "add_to_cart", "remove_from_cart", "checkout", "purchase"}
TABLES = {"products": "stock_code", "customers": "customer_id"}
COLUMNS = [
    "Invoice",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "Price",
    "Customer ID",
    "Country",
]


class Reading:
    """What a plain reading of the files finds; nothing here is taken from the generator."""

    def __init__(self, out: Path) -> None:
        """Read every file.

        Args:
            out: the landing folder.

        """
        self.out = out
        self.texts = {path.relative_to(out).as_posix(): text(path) for path in files(out)}
        self.ledger: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        self.reasons: dict[str, Counter[str]] = defaultdict(Counter)
        self.rejected: list[tuple[str, str, set[str]]] = []
        self.orders: list[tuple[str, dict[str, str]]] = []
        self.changes: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        self.events: list[tuple[str, dict[str, Any]]] = []
        seen_by_date: dict[str, set[str]] = defaultdict(set)
        self.ids_by_date: dict[str, set[str]] = defaultdict(set)
        for name in sorted(self.texts):
            rows = self.texts[name].splitlines()
            day = re.findall(r"date=(\d{4}-\d\d-\d\d)", name)[0]
            if name.startswith("orders/"):
                region = re.findall(r"region=(\w+)", name)[0]
                self._read(name, "orders", f"{day}|{region}", rows[1:], set(), rows[0])
            elif name.startswith("cdc/"):
                self._read(name, name.split("/")[1], day, rows, set(), None)
            else:
                self._read(name, "events", day, rows, seen_by_date[day], None)

    def _read(
        self, name: str, source: str, partition: str, rows: list[str], seen: set[str], header: str | None
    ) -> None:
        counts = self.ledger[source][partition]
        for row in rows:
            counts["rows_read"] += 1
            if row in seen:
                counts["duplicates"] += 1
                continue
            seen.add(row)
            if source == "orders":
                reasons, order = check_order(row, str(header).split(","))
                if not reasons:
                    self.orders.append((name, order))
            elif source == "events":
                reasons, event = check_event(row)
                if not reasons and event["event_id"] in self.ids_by_date[partition]:
                    reasons = {"unique"}
                if not reasons:
                    self.ids_by_date[partition].add(event["event_id"])
                    self.events.append((name, event))
            else:
                reasons, change = check_change(row, source)
                if not reasons:
                    self.changes[source].append((name, change))
            counts["dead_lettered" if reasons else "accepted"] += 1
            self.reasons[source].update(reasons)
            if reasons:
                self.rejected.append((source, row, reasons))

    @cached_property
    def versions(self) -> dict[str, dict[str, list[Version]]]:
        """The versions by table and key, from the accepted changes sorted by their place in the log."""
        found: dict[str, dict[str, list[Version]]] = {}
        for table, column in TABLES.items():
            log = {change["source"]["lsn"]: change for _, change in self.changes[table]}
            states: dict[str, dict[int, tuple[dict[str, Any], bool]]] = defaultdict(dict)
            for lsn in sorted(log):
                image = log[lsn]["after"] or log[lsn]["before"]
                attributes = {name: value for name, value in image.items() if name != column}
                states[image[column]][log[lsn]["source"]["ts_ms"]] = (attributes, log[lsn]["op"] == "d")
            found[table] = {key: list(intervals(key, by_time)) for key, by_time in states.items()}
        return found

    def at(self, table: str, key: str, when: datetime) -> Version | None:
        """Return the version of a key at an instant."""
        for version in self.versions[table].get(key, []):
            if version.valid_from <= when and (version.valid_to is None or when < version.valid_to):
                return version
        return None


def files(out: Path) -> list[Path]:
    """Return all files below a folder, sorted."""
    return sorted(path for path in out.rglob("*") if path.is_file())


def text(path: Path) -> str:
    """Return the text of a file, unpacked if need be."""
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")


def moment(row: dict[str, str]) -> datetime:
    """Return the InvoiceDate of an accepted order line."""
    return datetime.fromisoformat(row["InvoiceDate"] + "+00:00")


def intervals(key: str, by_time: dict[int, tuple[dict[str, Any], bool]]) -> Iterator[Version]:
    """Yield the versions of one key from its last state at each instant."""
    begins: list[int] = []
    for ms in sorted(by_time):
        if not begins or by_time[begins[-1]] != by_time[ms]:
            begins.append(ms)
    for ms, end in zip(begins, [*begins[1:], None], strict=True):
        attributes, deleted = by_time[ms]
        yield Version(key, utc(ms), None if end is None else utc(end), attributes, deleted)


def utc(ms: int) -> datetime:
    """Return milliseconds since 1970 as a datetime."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def check_order(row: str, header: list[str]) -> tuple[set[str], dict[str, str]]:
    """Return the rules an order line breaks, and its values."""
    try:
        [fields] = csv.reader([row], strict=True)
    except (csv.Error, ValueError):
        return {"malformed"}, {}
    if len(fields) != len(header):
        return {"malformed"}, {}
    order = dict(zip(header, fields, strict=True))
    reasons = {"required" for column in ("StockCode", "Country") if not order[column]}
    if not re.fullmatch(r"[AC]?\d{6}", order["Invoice"]):
        reasons.add("pattern")
    if order["Customer ID"] and not re.fullmatch(r"\d{5}", order["Customer ID"]):
        reasons.add("pattern")
    if not re.fullmatch(r"-?\d+", order["Quantity"]):
        reasons.add("type")
    elif int(order["Quantity"]) == 0:
        reasons.add("quantity_not_zero")
    try:
        moment(order)
    except ValueError:
        reasons.add("type")
    try:
        price = Decimal(order["Price"])
        if price != round(price, 4):
            reasons.add("type")
        if price < 0:
            reasons.add("minimum")
    except InvalidOperation:
        reasons.add("type")
    return reasons, order


def check_change(row: str, table: str) -> tuple[set[str], dict[str, Any]]:
    """Return the rules a change breaks, and the change."""
    try:
        change: dict[str, Any] = json.loads(row)
    except ValueError:
        return {"malformed"}, {}
    reasons: set[str] = set()
    if change["op"] not in ("c", "u", "d", "r"):
        reasons.add("enum")
    image = change["after"] or change["before"]
    if not image.get(TABLES[table]):
        reasons.add("required")
    if table == "products":
        try:
            if Decimal(image["list_price"]) < 0:
                reasons.add("minimum")
        except InvalidOperation:
            reasons.add("type")
    return reasons, change


def check_event(row: str) -> tuple[set[str], dict[str, Any]]:
    """Return the rules an event breaks by itself, and the event."""
    try:
        event: dict[str, Any] = json.loads(row)
    except ValueError:
        return {"malformed"}, {}
    reasons: set[str] = set()
    if not event.get("event_id"):
        reasons.add("required")
    if event["event_type"] not in EVENT_TYPES:
        reasons.add("enum")
    try:
        datetime.fromisoformat(event["event_ts"])
    except ValueError:
        reasons.add("type")
    return reasons, event


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Truth, Reading]:
    """Generate the default month and read it, once."""
    out = tmp_path_factory.mktemp("shop") / "landing"
    return generate(out), Reading(out)


@pytest.fixture(scope="module")
def truth(shop: tuple[Truth, Reading]) -> Truth:
    """Return the truth of the default month."""
    return shop[0]


@pytest.fixture(scope="module")
def reading(shop: tuple[Truth, Reading]) -> Reading:
    """Return the reading of the default month."""
    return shop[1]


def content(out: Path) -> dict[str, bytes]:
    """Return the bytes of every file by relative path."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files(out)}


def test_same_arguments_give_same_bytes(tmp_path: Path) -> None:
    """Two runs agree in every byte and in the truth."""
    first = generate(tmp_path / "a", days=4, scale=0.1)
    second = generate(tmp_path / "b", days=4, scale=0.1)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert first == second


def test_another_seed_gives_other_rows(tmp_path: Path) -> None:
    """The seed reaches every source."""
    generate(tmp_path / "a", days=1, scale=0.1)
    generate(tmp_path / "b", days=1, scale=0.1, seed=8)
    first, second = content(tmp_path / "a"), content(tmp_path / "b")
    common = first.keys() & second.keys()
    assert {name.split("/")[0] for name in common} == {"orders", "cdc", "events"}
    assert not [name for name in common if first[name] == second[name]]


def test_sizes_of_the_default_month(truth: Truth) -> None:
    """The row counts are about those promised."""
    assert 43_000 < truth.ledger["orders"].rows_read < 47_000
    assert 85_000 < truth.ledger["events"].rows_read < 95_000
    for table, members in (("products", 600), ("customers", 900)):
        keys = {version.key for version in truth.versions[table]}
        assert 0.9 * members < len(keys) < members  # a few never appear


def test_scale_multiplies_rows(tmp_path: Path) -> None:
    """Twice the scale gives about twice the rows."""
    small = generate(tmp_path / "small", days=3, scale=0.2).ledger
    large = generate(tmp_path / "large", days=3, scale=0.4).ledger
    for source in small:
        assert 1.6 < large[source].rows_read / small[source].rows_read < 2.4, source


def test_ledger_equals_an_independent_count(truth: Truth, reading: Reading) -> None:
    """Rows read, accepted, rejected and dropped agree for every partition and source."""
    for source, partitions in truth.ledger_by_partition.items():
        assert partitions.keys() == reading.ledger[source].keys()
        for key, counts in partitions.items():
            found = reading.ledger[source][key]
            assert (counts.rows_read, counts.accepted, counts.dead_lettered, counts.duplicates) == (
                found["rows_read"],
                found["accepted"],
                found["dead_lettered"],
                found["duplicates"],
            ), (source, key)
        total = truth.ledger[source]
        for name in ("rows_read", "accepted", "dead_lettered", "duplicates"):
            assert getattr(total, name) == sum(getattr(counts, name) for counts in partitions.values())
        assert total.rows_read == total.accepted + total.dead_lettered + total.duplicates


def test_reasons_equal_an_independent_check(truth: Truth, reading: Reading) -> None:
    """Every rejected row breaks the rules it is listed under, and every rule has examples."""
    assert truth.reasons == {source: dict(counts) for source, counts in reading.reasons.items()}
    assert truth.reasons.keys() == {"orders", "products", "customers", "events"}
    orders = {"malformed", "type", "required", "pattern", "quantity_not_zero", "minimum"}
    assert truth.reasons["orders"].keys() == orders
    assert truth.reasons["products"].keys() == {"malformed", "enum", "required", "type", "minimum"}
    assert truth.reasons["customers"].keys() == {"malformed", "enum", "required"}
    assert truth.reasons["events"].keys() == {"malformed", "enum", "type", "required", "unique"}


@pytest.mark.parametrize("scale", [0.05, 0.3])
def test_no_batch_is_rejected_by_more_than_a_twentieth(tmp_path: Path, scale: float) -> None:
    """Small batches stay below the limit, too."""
    small = generate(tmp_path / "landing", days=6, scale=scale)
    for partitions in small.ledger_by_partition.values():
        for key, counts in partitions.items():
            assert 20 * counts.dead_lettered <= counts.rows_read, key


def test_no_batch_of_the_default_month_is_rejected(truth: Truth) -> None:
    """The limit holds and the rate is about 0.3 %."""
    for partitions in truth.ledger_by_partition.values():
        assert all(20 * counts.dead_lettered <= counts.rows_read for counts in partitions.values())
    for source in ("orders", "events"):
        assert 0.002 < truth.ledger[source].dead_lettered / truth.ledger[source].rows_read < 0.004


def test_arrivals_are_all_files(truth: Truth, reading: Reading) -> None:
    """Each file arrives once, on its own date or, if its name says late, after it."""
    assert sorted(name for _, name in truth.arrivals) == sorted(reading.texts)
    assert [day for day, _ in truth.arrivals] == sorted(day for day, _ in truth.arrivals)
    late = 0
    for day, name in truth.arrivals:
        own = (date.fromisoformat(re.findall(r"date=([\d-]+)", name)[0]) - date(2026, 1, 1)).days
        late += "late" in name
        assert own < day < DAYS if "late" in name else day == own
    assert late >= 5


def test_the_landing_folder_holds_sources_only(reading: Reading) -> None:
    """Nothing lies in the landing folder but the three sources."""
    assert sorted(path.name for path in reading.out.iterdir()) == ["cdc", "events", "orders"]


@pytest.mark.parametrize("table", ["products", "customers"])
def test_versions_equal_a_replay_of_the_files(truth: Truth, reading: Reading, table: str) -> None:
    """The versions found by replaying the accepted changes in log order are the true ones."""
    replayed = [version for key in sorted(reading.versions[table]) for version in reading.versions[table][key]]
    assert truth.versions[table] == replayed


@pytest.mark.parametrize("table", ["products", "customers"])
def test_versions_of_a_key_touch_and_differ(truth: Truth, table: str) -> None:
    """No overlap, no hole, no empty interval, no two equal neighbours; only the last is open."""
    by_key: dict[str, list[Version]] = defaultdict(list)
    for version in truth.versions[table]:
        by_key[version.key].append(version)
    for versions in by_key.values():
        assert not versions[0].is_deleted
        assert versions[-1].valid_to is None
        for earlier, later in pairwise(versions):
            assert earlier.valid_to == later.valid_from > earlier.valid_from
            assert (earlier.attributes, earlier.is_deleted) != (later.attributes, later.is_deleted)
    everything = [version for versions in by_key.values() for version in versions]
    assert any(version.is_deleted and version.valid_to is not None for version in everything)
    assert any(version.is_deleted and version.valid_to is None for version in everything)
    assert any(None in version.attributes.values() for version in everything)


def test_facts_equal_an_independent_sum(truth: Truth, reading: Reading) -> None:
    """Every total of the truth follows from the accepted rows alone."""
    facts: Counter[str] = Counter()
    money: dict[str, Decimal] = defaultdict(Decimal)
    by_day: dict[str, Decimal] = defaultdict(Decimal)
    at_start = 0
    for name, row in reading.orders:
        value = int(row["Quantity"]) * Decimal(row["Price"])
        when = moment(row)
        region = re.findall(r"region=(\w+)", name)[0]
        assert f"date={when.date().isoformat()}/" in name
        facts["order_lines"] += 1
        money["revenue"] += value
        by_day[f"{when.date().isoformat()}|{region}"] += value
        if row["Invoice"].startswith("C"):
            assert int(row["Quantity"]) < 0
            facts["returns_lines"] += 1
            money["returns_revenue"] += value
        product = reading.at("products", row["StockCode"], when)
        if product is None:
            facts["inferred_product_lines"] += 1
        else:
            money["list_value_as_of_sale"] += int(row["Quantity"]) * Decimal(str(product.attributes["list_price"]))
            at_start += product.valid_from == when
        if not row["Customer ID"]:
            facts["unknown_customer_lines"] += 1
        elif reading.at("customers", row["Customer ID"], when) is None:
            facts["inferred_customer_lines"] += 1
    ids = {event["event_id"]: event["event_type"] for _, event in reading.events}
    facts["events"] = len(ids)
    facts["purchases"] = list(ids.values()).count("purchase")
    assert truth.facts == {**facts, **{name: f"{value:.4f}" for name, value in money.items()}}
    assert truth.revenue_by_day_region == {key: f"{value:.4f}" for key, value in by_day.items()}
    assert all(count > 0 for count in facts.values())
    assert at_start > 0  # sales at the first instant of a version


def test_dirt_of_orders(reading: Reading) -> None:
    """Each kind of order dirt named in the contract's rules occurs, and each odd form of file."""
    rows = [(row, reasons) for source, row, reasons in reading.rejected if source == "orders"]
    malformed = [row for row, reasons in rows if reasons == {"malformed"}]
    assert any(row.count('"') % 2 for row in malformed)
    assert any(row.endswith("surplus") for row in malformed)
    assert any(row.count(",") < 6 and row.count('"') % 2 == 0 for row in malformed)
    for part in (
        ",three,",
        ",1.5,",
        "2026-02-30 10:00:00",
        "yesterday",
        '"12,5"',
        ",abc,",
        "1.23456",
        "53A1",
    ):
        assert any(part in row for row, _ in rows), part
    assert any(len(reasons) == 2 for _, reasons in rows)
    heads = Counter(body.splitlines()[0] for name, body in reading.texts.items() if name.startswith("orders"))
    usual = ",".join(COLUMNS)
    assert heads.pop(usual) > 80
    assert sorted(sorted(head.split(",")) for head in heads) == sorted(
        [sorted(COLUMNS), sorted([*COLUMNS, "Channel"]), sorted(set(COLUMNS) - {"Description"})]
    )
    assert set(heads.values()) == {1}
    bodies = [body for name, body in reading.texts.items() if name.startswith("orders")]
    assert any("\r\n" in body for body in bodies) and any("\r" not in body for body in bodies)
    everything = "".join(bodies)
    for mark in ('"TEA SET ""ROSE"", 3 PIECES"', "É", "茶", "🎉"):
        assert mark in everything
    names = [name for name in reading.texts if name.startswith("orders")]
    assert {Path(name).name for name in names} == {"orders.csv.gz", "orders.csv", "orders-late.csv"}
    assert any(row["Invoice"].startswith("A") for _, row in reading.orders)
    assert any(not row.get("Description", "x") for _, row in reading.orders)
    assert any(Decimal(row["Price"]) == 0 for _, row in reading.orders)


def test_order_lines_are_unique(reading: Reading) -> None:
    """No line is accepted twice, be it in two files: otherwise its place in the totals were unclear."""
    lines = Counter((row["Invoice"], row["StockCode"]) for _, row in reading.orders)
    assert max(lines.values()) == 1


@pytest.mark.parametrize("table", ["products", "customers"])
def test_dirt_of_changes(truth: Truth, reading: Reading, table: str) -> None:
    """Disorder, lateness, repetition, no-ops, deletes and returns all occur."""
    changes = reading.changes[table]
    by_file: dict[str, list[dict[str, Any]]] = defaultdict(list)
    deliveries: dict[int, set[str]] = defaultdict(set)
    for name, change in changes:
        by_file[name].append(change)
        deliveries[change["source"]["lsn"]].add(name)
        assert change["ts_ms"] >= change["source"]["ts_ms"]
    first = min(by_file)
    known = sum(change["op"] == "r" for change in by_file[first])
    assert known > 400 and sum(change["op"] == "r" for _, change in changes) == known
    assert by_file[first][0]["op"] == "r"

    def own(name: str, change: dict[str, Any]) -> bool:
        return f"date={utc(change['source']['ts_ms']).date().isoformat()}/" in name

    assert any(len(names) > 1 for names in deliveries.values())  # the same change in two files
    assert any(not any(own(name, log) for name, log in changes if log is change) for _, change in changes)
    assert truth.ledger[table].duplicates > 5
    shuffled, several = 0, 0
    for name, batch in by_file.items():
        lsns: dict[str, list[int]] = defaultdict(list)
        for change in (change for change in batch if own(name, change) and change["op"] != "r"):
            image = change["after"] or change["before"]
            lsns[image[TABLES[table]]].append(change["source"]["lsn"])
        several += sum(len(places) > 1 for places in lsns.values())
        shuffled += sum(places != sorted(places) for places in lsns.values())
    assert several > 10 and shuffled > 3
    log = sorted({change["source"]["lsn"]: change["source"]["ts_ms"] for _, change in changes}.items())
    assert [ts for _, ts in log] == sorted(ts for _, ts in log)
    assert any(change["op"] == "u" and change["after"] == change["before"] for _, change in changes)
    assert all((change["after"] is None) == (change["op"] == "d") for _, change in changes)
    assert all((change["before"] is None) == (change["op"] in "cr") for _, change in changes)
    deleted = {change["before"][TABLES[table]] for _, change in changes if change["op"] == "d"}
    created = {change["after"][TABLES[table]] for _, change in changes if change["op"] == "c"}
    assert deleted & created and created - deleted
    instants = Counter(
        (str((change["after"] or change["before"])[TABLES[table]]), change["source"]["ts_ms"])
        for change in {change["source"]["lsn"]: change for _, change in changes}.values()
    )
    assert max(instants.values()) > 1  # several changes at one instant
    forms = {Path(name).suffix for name in by_file}
    assert forms == ({".gz"} if table == "products" else {".gz", ".jsonl"})


def test_sales_around_the_history(truth: Truth, reading: Reading) -> None:
    """Products are sold before their first version, without any, and while deleted."""
    kinds: Counter[str] = Counter()
    for table, column in (("products", "StockCode"), ("customers", "Customer ID")):
        for _, row in reading.orders[::3]:
            key, version = row[column], reading.at(table, row[column], moment(row))
            if version is None and key:
                kinds[f"{table} {'early' if key in reading.versions[table] else 'never'}"] += 1
            elif version is not None and version.is_deleted:
                kinds[f"{table} deleted"] += 1
    assert len(kinds) == 6, kinds


def test_dirt_of_events(truth: Truth, reading: Reading) -> None:
    """Late, repeated and redelivered events occur; a redelivery has the payload of the first delivery."""
    late = Counter(
        "date" if f"date={event['event_ts'][:10]}/" not in name else "hour"
        for name, event in reading.events
        if f"date={event['event_ts'][:10]}/hour={event['event_ts'][11:13]}/" not in name
    )
    assert late["date"] > 10 and late["hour"] > 100
    payloads: dict[str, set[str]] = defaultdict(set)
    for _, event in reading.events:
        payloads[event["event_id"]].add(json.dumps(event))
    assert all(len(found) == 1 for found in payloads.values())
    assert len(reading.events) == truth.ledger["events"].accepted > len(payloads)
    folders: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name, body in reading.texts.items():
        if name.startswith("events/date=2026-01-02"):
            for row, count in Counter(body.splitlines()).items():
                folders[name, row].add("same" if count > 1 else "once")
    assert any("same" in found for found in folders.values())
    assert max(Counter(row for _, row in folders).values()) > 1  # in two hours of the date
    assert any(reasons == {"unique"} for _, _, reasons in reading.rejected)


def test_sessions_are_bursts(reading: Reading) -> None:
    """Gaps of a visitor are clearly below or above 30 minutes; purchases follow a view and a cart."""
    distinct: dict[str, dict[str, Any]] = {event["event_id"]: event for _, event in reading.events}
    visits: dict[str, list[tuple[datetime, dict[str, Any]]]] = defaultdict(list)
    for event in distinct.values():
        visits[event["visitor_id"]].append((datetime.fromisoformat(event["event_ts"]), event))
    gaps: Counter[str] = Counter()
    invoiced = {(row["Invoice"], row["StockCode"], row["Quantity"]): moment(row) for _, row in reading.orders}
    for visit in visits.values():
        visit.sort(key=lambda pair: pair[0])
        for (earlier, _), (later, _) in pairwise(visit):
            minutes = (later - earlier) / timedelta(minutes=1)
            assert minutes < 26 or minutes > 30.9
            gaps["within" if minutes < 30 else "between"] += 1
        steps: set[tuple[str, str]] = set()
        for when, event in visit:
            if event["event_type"] == "purchase":
                assert {("view", event["stock_code"]), ("add_to_cart", event["stock_code"])} <= steps
                sold = invoiced[event["invoice"], event["stock_code"], str(event["quantity"])]
                assert sold == when.replace(microsecond=0)
            steps.add((event["event_type"], event["stock_code"]))
    assert gaps["within"] > 50_000 and gaps["between"] > 1_000
    assert {event["event_type"] for event in distinct.values()} == EVENT_TYPES


@pytest.mark.parametrize(
    "arguments", [{"days": 0}, {"scale": 0.0}, {"scale": -1.0}, {"scale": float("nan")}, {"days": 10**7}]
)
def test_bad_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """A bad number is named and nothing is written."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        generate(tmp_path / "landing", **arguments)
    assert not list(tmp_path.iterdir())


def test_too_many_invoices_are_refused(tmp_path: Path) -> None:
    """A size for which six digits do not do is refused before a file is written."""
    with pytest.raises(ValueError, match="six-digit"):
        generate(tmp_path / "landing", days=3_000, scale=2.0)
    assert not list(tmp_path.iterdir())


def test_files_of_others_are_respected(tmp_path: Path) -> None:
    """A folder with a foreign file is refused and left as it is; so is a file in the folder's place."""
    (tmp_path / "landing").mkdir()
    foreign = tmp_path / "landing" / "mine.txt"
    foreign.write_text("mine")
    with pytest.raises(ValueError, match=r"mine\.txt"):
        generate(tmp_path / "landing", days=1, scale=0.05)
    assert files(tmp_path) == [foreign]
    with pytest.raises(ValueError, match="not a folder"):
        generate(foreign, days=1, scale=0.05)


def test_a_new_generation_replaces_the_former(tmp_path: Path) -> None:
    """Files of a longer former run are gone; the result is that of a fresh folder."""
    generate(tmp_path / "landing", days=3, scale=0.05)
    generate(tmp_path / "landing", days=1, scale=0.05, seed=9)
    generate(tmp_path / "fresh", days=1, scale=0.05, seed=9)
    assert content(tmp_path / "landing") == content(tmp_path / "fresh")
    folders = [path for path in (tmp_path / "landing").rglob("*") if path.is_dir()]
    assert all(any(folder.iterdir()) for folder in folders)


def test_truth_survives_its_file(tmp_path: Path, truth: Truth) -> None:
    """What is written is read back equal."""
    truth.write(tmp_path / "truth.json")
    assert Truth.read(tmp_path / "truth.json") == truth


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line of summary, or a reason and the code 2."""
    arguments: Iterable[str] = ("--days", "1", "--scale", "0.05", "--seed", "3", "--start", "2025-03-30")
    assert main(["--out", str(tmp_path / "landing"), *arguments]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert (tmp_path / "landing" / "orders" / "region=uk" / "date=2025-03-30").is_dir()
    assert main(["--out", str(tmp_path / "landing"), "--days", "0"]) == 2
    assert "days must be at least 1" in capsys.readouterr().err
