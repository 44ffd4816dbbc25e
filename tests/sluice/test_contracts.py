"""Contracts: the four of the project give the right model, and every mistake gives one error that helps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice.contracts import Contract, CsvDialect, PullSchedule, load_contract, load_contracts
from sluice.errors import ContractError
from sluice.settings import PROJECT
from tests.conftest import MakeContract, contract_document

Document = dict[str, Any]


def test_the_contracts_are_found_by_name(contracts: dict[str, Contract]) -> None:
    assert sorted(contracts) == ["customers", "events", "exchange_rates", "orders", "products"]
    assert [contracts[name].version for name in ("customers", "orders")] == ["1.1.0", "1.0.0"]
    assert {c.latency_hours for c in contracts.values()} == {36.0}
    assert {c.max_rejected_share for c in contracts.values()} == {0.05}
    assert contracts["customers"].owners == ("crm-data@example.com",)


def test_orders_model(contracts: dict[str, Contract]) -> None:
    orders = contracts["orders"]
    assert [(c.name, c.source_name, c.type, c.required) for c in orders.columns] == [
        ("invoice", "Invoice", "VARCHAR", True),
        ("stock_code", "StockCode", "VARCHAR", True),
        ("description", "Description", "VARCHAR", False),
        ("quantity", "Quantity", "INTEGER", True),
        ("invoiced_at", "InvoiceDate", "TIMESTAMP", True),
        ("unit_price", "Price", "DECIMAL(12,4)", True),
        ("customer_id", "Customer ID", "VARCHAR", False),
        ("country", "Country", "VARCHAR", True),
    ]
    by_name = {c.name: c for c in orders.columns}
    assert by_name["invoice"].pattern == r"^[AC]?\d{6}$"
    assert (by_name["unit_price"].minimum, by_name["unit_price"].scale) == (0, 4)
    assert [(r.name, r.column, r.condition) for r in orders.rules] == [
        ("quantity_not_zero", "quantity", "quantity <> 0"),
        ("quantity_plausible", "quantity", "abs(quantity) <= 1000000"),
        (
            "time_plausible",
            "invoiced_at",
            "invoiced_at >= TIMESTAMP '1900-01-01' AND invoiced_at < TIMESTAMP '2100-01-01'",
        ),
    ]
    assert orders.landing.path == "orders/region={region}/date={date}"
    assert orders.landing.tokens == ("region", "date")
    assert orders.landing.prefix == "orders"
    assert orders.landing.formats == ("csv", "jsonl", "parquet")
    assert orders.landing.csv == CsvDialect(",", '"', True, False, "utf-8")
    assert orders.landing.duplicates == "file"
    assert orders.static_dimension == "region"
    assert dict(orders.landing.partitions) == {"region": ("uk", "eu", "row")}
    assert (orders.key, orders.change_feed, orders.domain, orders.title) == ((), None, "sales", "Orders")


def test_change_feeds_and_events_model(contracts: dict[str, Contract]) -> None:
    for name, key in (("products", "stock_code"), ("customers", "customer_id")):
        feed = contracts[name].change_feed
        assert feed is not None
        assert (feed.envelope, feed.sequence, feed.valid_from) == ("debezium", "source.lsn", "source.ts_ms")
        assert contracts[name].key == (key,)
        assert contracts[name].landing.tokens == ("date",)
        assert contracts[name].static_dimension is None
    events = contracts["events"]
    by_name = {c.name: c for c in events.columns}
    assert by_name["event_id"].unique and by_name["event_id"].primary_key
    assert by_name["channel"].enum == ("web", "app")
    assert events.landing.duplicates == "batch"
    assert events.landing.tokens == ("date", "hour")
    assert {c.name: c.classification for c in contracts["customers"].columns}["email"] == "personal"


@pytest.fixture
def orders_document() -> Document:
    return yaml.safe_load((PROJECT / "contracts" / "orders.odcs.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[Document | str | bytes], str]:
    """Loads a document that must be refused and returns the message."""

    def load(document: Document | str | bytes) -> str:
        path = tmp_path / "mine.odcs.yaml"
        if isinstance(document, dict):
            document = yaml.safe_dump(document, allow_unicode=True)
        path.write_bytes(document.encode() if isinstance(document, str) else document)
        with pytest.raises(ContractError) as caught:
            load_contract(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        return message

    return load


def changed(document: Document, *path: Any, value: Any) -> Document:
    """A copy of a document with one place changed."""
    made = copy.deepcopy(document)
    place: Any = made
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return made


PROPERTY = ("schema", 0, "properties", 0)
LANDING = ("schema", 0, "customProperties", 0, "value")

# Where the orders contract is changed, to what, and what the message must say.
MISTAKES: dict[str, tuple[tuple[Any, ...], Any, list[str]]] = {
    "typo at the top": (("domian",), "sales", ["the top level", "'domian'", "Did you mean 'domain'?"]),
    "typo in a column": (
        (*PROPERTY, "requried"),
        True,
        ["at schema.0.properties.0 (invoice): 'requried' is not known there. Did you mean 'required'?"],
    ),
    "a key like no other": ((*PROPERTY, "zzzz"), 1, ["'zzzz'", "'zzzz' does not belong there"]),
    "wrong kind of value": ((*PROPERTY, "required"), "maybe", ["schema.0.properties.0.required", "'maybe'"]),
    "unknown type": ((*PROPERTY, "physicalType"), "MONEY", ["'MONEY' of invoice", "Use DECIMAL(p,s) or", "VARCHAR"]),
    "a type the lake would round": (
        (*PROPERTY, "physicalType"),
        "HUGEINT",
        ["'HUGEINT' of invoice", "Use DECIMAL(p,s)"],
    ),
    "typo in a type": ((*PROPERTY, "physicalType"), "INTEGR", ["'INTEGR' of invoice", "Did you mean INTEGER?"]),
    "no type": ((*PROPERTY, "physicalType"), "", ["of invoice is not offered"]),
    "decimal too wide": ((*PROPERTY, "physicalType"), "DECIMAL(39,2)", ["'DECIMAL(39,2)'", "not offered"]),
    "decimal scale over width": ((*PROPERTY, "physicalType"), "DECIMAL(4,5)", ["'DECIMAL(4,5)'", "not offered"]),
    "bad pattern": (
        (*PROPERTY, "logicalTypeOptions"),
        {"pattern": "^[A-"},
        ["the pattern of invoice is no regular expression", "unterminated"],
    ),
    "a format like an encoding": (
        (*PROPERTY, "logicalTypeOptions"),
        {"format": "epoch_milis"},
        ["the format 'epoch_milis' of invoice is not offered", "epoch_millis", "strptime"],
    ),
    "an encoding of another type": (
        (*PROPERTY, "logicalTypeOptions"),
        {"format": "epoch_days"},
        ["the format epoch_days of invoice is for DATE, not for VARCHAR"],
    ),
    "a format of its own that is none": (
        (*PROPERTY, "customProperties"),
        [{"property": "format", "value": "%Y"}],
        ["the format '%Y' of invoice is not offered", "in logicalTypeOptions, a strptime format"],
    ),
    "bad column name": (
        (*PROPERTY, "name"),
        "Invoice No",
        ["column name 'Invoice No'", "lower-case", "physicalName"],
    ),
    "bad schema name": (("schema", 0, "name"), "Orders!", ["schema name 'Orders!'", "lower-case"]),
    "duplicate column": ((*PROPERTY, "name"), "stock_code", ["'stock_code' stands twice"]),
    "duplicate source": ((*PROPERTY, "physicalName"), "StockCode", ["'StockCode'", "twice"]),
    "column named as a token": ((*PROPERTY, "name"), "region", ["['region'] are both columns and tokens"]),
    "no columns": (("schema", 0, "properties"), [], ["no properties", "List the source's columns"]),
    "unknown customProperty": (
        ("schema", 0, "customProperties", 0, "property"),
        "landign",
        ["'landign'", "Did you mean 'landing'?"],
    ),
    "customProperty like no other": (
        ("schema", 0, "customProperties", 0, "property"),
        "zzz",
        ["'zzz'", "Known are landing, stream, rest, changeFeed, gates"],
    ),
    "landing no mapping": (LANDING, "orders", ["customProperties.landing must be a mapping"]),
    "typo in landing": ((*LANDING, "formts"), ["csv"], ["'formts'", "Did you mean 'formats'?"]),
    "no date": ((*LANDING, "path"), "orders/region={region}", ["'orders/region={region}'", "{date}"]),
    "token twice": ((*LANDING, "path"), "orders/{date}/{date}", ["each token once"]),
    "no folder": ((*LANDING, "path"), "date={date}", ["begin with a folder of its own"]),
    "path that leaves": ((*LANDING, "path"), "../x/date={date}", ["stay inside the landing area"]),
    "unknown format": ((*LANDING, "formats"), ["xlsx"], ["some of csv, jsonl, parquet", "xlsx"]),
    "typo in a format": ((*LANDING, "formats"), ["cvs"], ["it is ['cvs']. Did you mean csv?"]),
    "no format": ((*LANDING, "formats"), [], ["some of csv, jsonl, parquet"]),
    "two static dimensions": (
        (*LANDING, "partitions"),
        {"region": ["uk"], "date": ["x"]},
        ["a token other than {date}"],
    ),
    "partition of no token": ((*LANDING, "partitions"), {"shop": ["a"]}, ["'shop'", "Known are region, date"]),
    "typo in csv": ((*LANDING, "csv", "delimeter"), ";", ["'delimeter'", "Did you mean 'delimiter'?"]),
    "delimiter too long": ((*LANDING, "csv", "delimiter"), ";;", ["landing.csv.delimiter must be one character"]),
    "multiline as text": ((*LANDING, "csv", "multiline"), "yes", ["landing.csv.multiline must be true or false"]),
    "unknown encoding": ((*LANDING, "csv", "encoding"), "utf-9", ["encoding 'utf-9'", "latin-1"]),
    "encoding of two bytes": ((*LANDING, "csv", "encoding"), "utf-16", ["encoding 'utf-16'", "extends ASCII"]),
    "unknown duplicates": ((*LANDING, "duplicates"), "never", ["'never'", "file or batch"]),
    "share over one": (
        ("schema", 0, "customProperties", 1, "value", "maxRejectedShare"),
        5,
        ["gates.maxRejectedShare", "from 0 to 1", "5"],
    ),
    "latency in weeks": (("slaProperties", 0, "unit"), "weeks", ["latency", "'weeks'", "h or d"]),
    "rule without a name": (
        (*PROPERTY, "quality"),
        [{"type": "custom", "engine": "sluice", "implementation": "invoice <> ''"}],
        ["rule of invoice has no name"],
    ),
    "rule of another engine": (
        (*PROPERTY, "quality"),
        [{"name": "x", "type": "custom", "engine": "soda", "implementation": "x"}],
        ["rule of invoice", "does not evaluate", "engine: sluice"],
    ),
    "enum without values": (
        (*PROPERTY, "quality"),
        [{"name": "x", "type": "library", "metric": "invalidValues", "mustBe": 0}],
        ["invalidValues of invoice", "validValues, a list"],
    ),
    "two schema objects": (
        ("schema",),
        [{"name": "a", "properties": []}, {"name": "b", "properties": []}],
        ["exactly one schema object, has 2", "One file, one source"],
    ),
    "a version that orders nothing": (("version",), "one", ["version 'one' must be major.minor.patch, such as 1.0.0"]),
    "no schema object": (("schema",), [], ["exactly one schema object, has 0"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_with_place_and_remedy(
    mistake: str, orders_document: Document, refused: Callable[[Document], str]
) -> None:
    place, value, words = MISTAKES[mistake]
    message = refused(changed(orders_document, *place, value=value))
    for word in words:
        assert word in message
    assert "\n" not in message and len(message) < 700


FEED = {"envelope": "debezium", "sequence": "source.lsn", "validFrom": "source.ts_ms"}


@pytest.mark.parametrize(
    ("key", "formats", "feed", "words"),
    [
        (False, ["jsonl"], FEED, "needs a primary key. Mark its column with primaryKey: true"),
        (True, ["csv"], FEED, "Set landing.formats to [jsonl]"),
        (True, ["jsonl"], {**FEED, "envelope": "maxwell"}, "'maxwell' is not offered. Use debezium"),
        (True, ["jsonl"], {**FEED, "sequence": "source lsn"}, "changeFeed.sequence must be a path in the envelope"),
        (True, ["jsonl"], {**FEED, "sequence": "source.pos"}, "source.pos begins anew with each binlog file"),
        (True, ["jsonl"], {"envelope": "debezium", "sequence": "source.lsn"}, "changeFeed.validFrom must be a path"),
        (True, ["jsonl"], {**FEED, "sequenze": "x"}, "Did you mean 'sequence'?"),
        (True, ["jsonl"], {**FEED, "sequence": []}, "changeFeed.sequence must be a path in the envelope"),
        (True, ["jsonl"], {**FEED, "sequence": ["a.b", "a b"]}, "changeFeed.sequence must be a path in the envelope"),
        (True, ["jsonl"], {**FEED, "sequence": ["a.b", "a.b"]}, "changeFeed.sequence has a path twice"),
        (True, ["jsonl"], {**FEED, "truncates": "yes"}, "changeFeed.truncates must be true or false"),
    ],
)
def test_a_change_feed_needs_its_parts(
    key: bool, formats: list[str], feed: dict[str, Any], words: str, refused: Callable[[Document], str]
) -> None:
    columns = {"id": {"primaryKey": True} if key else {}}
    assert words in refused(contract_document(columns, formats=formats, feed=feed))


def test_the_order_of_a_change_feed_may_have_several_parts(tmp_path: Path) -> None:
    document = contract_document({"id": {"primaryKey": True}}, formats=["jsonl"], feed=FEED)
    hashes = set()
    for change in (
        {},
        {"sequence": ["source.lsn"]},
        {"truncates": False},
        {"sequence": ["source.lsn", "transaction.total_order"]},
        {"truncates": True},
    ):
        (custom,) = (c for c in document["schema"][0]["customProperties"] if c["property"] == "changeFeed")
        custom["value"] = {**FEED, **change}
        hashes.add(hash_of(document, tmp_path))
    # What says nothing new is the contract it was: its batches are not loaded again.
    assert len(hashes) == 3


# Hashes that lakes have in their ledgers.
KEPT = {"customers": "7f4abb9253375fbc", "events": "df442b9a7f3bdaaa", "products": "217be4e63737b8da"}


def test_the_hashes_lakes_have_in_their_ledgers_stay(contracts: dict[str, Contract]) -> None:
    assert {name: contracts[name].hash for name in KEPT} == KEPT


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cursor": "changed"}, "pull needs either a table"),
        ({"cursor": "changed", "table": "a", "query": "SELECT 1"}, "pull needs either a table"),
        ({"table": "a.b.c", "cursor": "changed"}, "must be <schema>.<table>"),
        ({"table": "a.b"}, "pull.cursor must name the column"),
        ({"table": "a.b", "cursor": "changed", "overlap": -1}, "pull.overlap must be a whole number"),
        ({"table": "a.b", "cursor": "c", "connection": "host=x"}, "must be the name of an environment variable"),
        ({"table": "a.b", "kursor": "c"}, "Did you mean 'cursor'?"),
        ({"table": "a.b", "cursor": "c", "schedule": "0 6 * * *"}, "pull.schedule must be a mapping"),
        (
            {"table": "a.b", "cursor": "c", "schedule": {"cron": "hourly"}},
            "pull.schedule.cron 'hourly' is no cron line",
        ),
        ({"table": "a.b", "cursor": "c", "schedule": {"cron": "0 6 * * *", "active": 1}}, "must be true or false"),
        ({"table": "a.b", "cursor": "c", "schedule": {"cron": "0 6 * * *", "days": 1}}, "pull.schedule"),
    ],
)
def test_a_pull_needs_its_parts(given: dict[str, Any], words: str, refused: Callable[[Document], str]) -> None:
    document = contract_document({"id": {}}, formats=["jsonl"])
    document["schema"][0]["customProperties"].append({"property": "pull", "value": given})
    assert words in refused(document)


def test_a_pull_may_have_a_schedule_and_no_api_beside_it(
    make_contract: MakeContract, refused: Callable[[Document], str]
) -> None:
    given: dict[str, Any] = {"table": "public.things", "cursor": "changed"}

    def schedule(**more: Any) -> PullSchedule | None:
        found = make_contract({"id": {}}, formats=["jsonl"], pull=given | more).pull
        assert found is not None
        return found.schedule

    assert schedule() is None
    assert schedule(schedule={"cron": " 5-59/10 * * * 1-5 "}) == PullSchedule("5-59/10 * * * 1-5", True)
    assert schedule(schedule={"cron": "0 6 * * *", "active": False}) == PullSchedule("0 6 * * *", False)
    both = contract_document({"id": {}}, formats=["jsonl"], pull=given, rest={"url": "https://x/{date}"})
    assert "rest and pull do not go together" in refused(both)


@pytest.mark.parametrize("path", ["$.a[*].b", "$..a", '$["a"]', '$."a', "*", "$.\0"])
def test_a_path_that_leads_to_no_one_value_is_refused(
    path: str, make_contract: MakeContract, refused: Callable[[Document], str]
) -> None:
    columns: dict[str, dict[str, Any]] = {"id": {}, "b": {"physicalName": path}}
    told = refused(contract_document(columns, formats=["csv", "jsonl"]))
    assert f"the physicalName {path!r} of b leads to no one value of JSON" in told and "$.device.ids[0]" in told
    # In CSV it is a name.
    assert make_contract(columns, formats=["csv"]).columns[1].source_name == path


def test_files_that_hold_no_contract(tmp_path: Path, refused: Callable[[str | bytes], str]) -> None:
    bad_yaml = refused("schema:\n  - name: [orders\nversion: 1\n")
    assert "not valid YAML: line 3, column " in bad_yaml and "\n" not in bad_yaml
    assert "holds no contract" in refused("")
    assert "holds no contract" in refused("- a\n- b\n")
    assert "cannot be read" in refused(b"name: \xff\xfe\n")
    assert "is nested too deep" in refused("[" * 3000)
    with pytest.raises(ContractError, match=r"gone\.odcs\.yaml: cannot be read: .*No such file"):
        load_contract(tmp_path / "gone.odcs.yaml")


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.yaml").write_text("not a contract")
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ContractError, match="Set SLUICE_CONTRACTS") as caught:
            load_contracts(folder)
        assert str(folder) in str(caught.value)


def test_two_files_of_one_source_are_refused(tmp_path: Path) -> None:
    text = yaml.safe_dump(contract_document({"id": {}}))
    for name in ("a", "b"):
        (tmp_path / f"{name}.odcs.yaml").write_text(text)
    with pytest.raises(ContractError, match=r"b\.odcs\.yaml and a\.odcs\.yaml both describe the source 'things'"):
        load_contracts(tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "folder"),
    [
        ("things/{date}", "things/{date}", "things"),
        ("things/region=uk/{date}", "things/region={region}/{date}", "things/region=uk"),
        ("shop/{date}", "shop/things/{date}", "shop/things"),
        ("things/{date}", "things-2/{date}", None),
        ("shop/a/{date}", "shop/b/{date}", None),
    ],
)
def test_two_sources_of_one_folder_are_refused(one: str, other: str, folder: str | None, tmp_path: Path) -> None:
    for name, path in (("a", one), ("b", other)):
        document = contract_document({"id": {}})
        document["schema"][0]["name"] = name
        document["schema"][0]["customProperties"][0]["value"]["path"] = path
        (tmp_path / f"{name}.odcs.yaml").write_text(yaml.safe_dump(document))
    if folder is None:
        assert set(load_contracts(tmp_path)) == {"a", "b"}
        return
    with pytest.raises(
        ContractError, match=rf"b\.odcs\.yaml and a\.odcs\.yaml both read {folder}/ in the landing area"
    ):
        load_contracts(tmp_path)


def hash_of(document: Document, folder: Path) -> str:
    path = folder / "hashed.odcs.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_contract(path).hash


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((*PROPERTY, "required"), False),
        ((*PROPERTY, "unique"), True),
        ((*PROPERTY, "physicalName"), "InvoiceNo"),
        ((*PROPERTY, "logicalTypeOptions", "pattern"), "^.$"),
        (("schema", 0, "properties", 3, "physicalType"), "BIGINT"),
        (("schema", 0, "properties", 3, "quality", 0, "implementation"), "quantity > 0"),
        (("schema", 0, "properties", 5, "logicalTypeOptions", "minimum"), 1),
        ((*LANDING, "duplicates"), "batch"),
        ((*LANDING, "csv", "delimiter"), ";"),
        ((*LANDING, "partitions"), {"region": ["uk", "eu"]}),
        (("schema", 0, "customProperties", 1, "value", "maxRejectedShare"), 0.06),
    ],
)
def test_the_hash_changes_with_what_decides_a_rows_fate(
    place: tuple[Any, ...], value: Any, orders_document: Document, tmp_path: Path
) -> None:
    assert hash_of(changed(orders_document, *place, value=value), tmp_path) != hash_of(orders_document, tmp_path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((*PROPERTY, "description"), "Another text."),
        (("schema", 0, "properties", 2, "classification"), "personal"),
        (("schema", 0, "properties", 3, "quality", 0, "description"), "Another text."),
        (("schema", 0, "description"), "Another text."),
        (("version",), "1.0.1"),
        (("domain",), "retail"),
        (("slaProperties", 0, "value"), 48),
    ],
)
def test_the_hash_keeps_through_what_people_only_read(
    place: tuple[Any, ...], value: Any, orders_document: Document, tmp_path: Path
) -> None:
    assert hash_of(changed(orders_document, *place, value=value), tmp_path) == hash_of(orders_document, tmp_path)


def test_a_column_has_one_format(make_contract: MakeContract) -> None:
    own = {"customProperties": [{"property": "format", "value": "decimal_base64:2"}]}
    assert make_contract({"a": {"physicalType": "DECIMAL(9,2)", **own}}).columns[0].format == "decimal_base64:2"
    with pytest.raises(ContractError, match="a has two formats"):
        make_contract({"a": {"physicalType": "DATE", "logicalTypeOptions": {"format": "epoch_days"}, **own}})


def test_an_id_that_an_erasure_looks_for_is_not_encoded(make_contract: MakeContract) -> None:
    given = [{"property": "format", "value": "decimal_base64:0"}, {"property": "subject", "value": "customer"}]
    with pytest.raises(ContractError, match="id names a customer and cannot have the format decimal_base64:0"):
        make_contract({"id": {"physicalType": "DECIMAL(9,0)", "customProperties": given}})
