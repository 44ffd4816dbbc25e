"""dbt sources: each contract is one table with its descriptions, types and tests; a new file adds a table."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from sluice.bronze import bronze_columns
from sluice.contracts import Contract, load_contracts
from sluice.dbt_sources import RELATIVE_PATH, sources_yaml, write_sources
from sluice.settings import PROJECT
from tests.conftest import contract_document


def tables(text: str) -> dict[str, dict[str, Any]]:
    (source,) = yaml.safe_load(text)["sources"]
    assert (source["name"], source["schema"]) == ("bronze", "bronze")
    return {table["name"]: table for table in source["tables"]}


def columns(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {column["name"]: column for column in table["columns"]}


def values(*listed: str) -> dict[str, Any]:
    return {"accepted_values": {"arguments": {"values": list(listed)}}}


def test_every_bronze_column_is_described_with_its_type(contracts: dict[str, Contract]) -> None:
    made = tables(sources_yaml(contracts.values()))
    assert list(made) == ["customers", "events", "exchange_rates", "orders", "products"]
    for name, table in made.items():
        described = [(c["name"], c["data_type"]) for c in table["columns"]]
        assert described == [(column, kind.lower()) for column, kind in bronze_columns(contracts[name])]
        assert all(c["description"] for c in table["columns"])
        assert table["config"]["meta"]["dagster"]["asset_key"] == ["bronze", name]
    assert made["orders"]["description"].endswith("Grain: One line of an invoice.")


def test_the_contracts_rules_become_tests(contracts: dict[str, Contract]) -> None:
    made = tables(sources_yaml(contracts.values()))
    orders, events, products = (columns(made[n]) for n in ("orders", "events", "products"))
    assert orders["region"]["data_tests"] == [values("uk", "eu", "row")]
    assert orders["quantity"]["data_tests"] == ["not_null"]
    assert "data_tests" not in orders["description"]
    assert events["channel"]["data_tests"] == [values("web", "app")]
    assert events["event_type"]["data_tests"][0] == "not_null"
    assert products["_op"]["data_tests"] == ["not_null", values("c", "u", "d", "r")]
    assert products["stock_code"]["data_tests"] == ["not_null"]
    assert "data_tests" not in products["list_price"]
    assert columns(made["customers"])["email"]["config"]["meta"] == {
        "classification": "personal",
        "privacy": "pseudonymize",
    }


def test_a_required_column_of_a_change_feed_is_null_on_deletes(tmp_path: Path) -> None:
    document = contract_document(
        {"id": {"primaryKey": True}, "price": {"required": True}},
        formats=["jsonl"],
        feed={"envelope": "debezium", "sequence": "source.lsn", "validFrom": "source.ts_ms"},
    )
    (tmp_path / "things.odcs.yaml").write_text(yaml.safe_dump(document))
    found = columns(tables(sources_yaml(load_contracts(tmp_path).values()))["things"])
    assert "data_tests" not in found["price"]
    assert found["id"]["data_tests"] == ["not_null"]


def test_a_feed_with_several_parts_of_order_and_truncates(tmp_path: Path) -> None:
    feed = {
        "envelope": "debezium",
        "sequence": ["position.commit", "position.order"],
        "validFrom": "source.ts_ms",
        "truncates": True,
    }
    document = contract_document({"id": {"primaryKey": True}}, formats=["jsonl"], feed=feed)
    (tmp_path / "things.odcs.yaml").write_text(yaml.safe_dump(document))
    found = columns(tables(sources_yaml(load_contracts(tmp_path).values()))["things"])
    assert found["_op"]["data_tests"] == ["not_null", values("c", "u", "d", "r", "t")]
    assert found["_seq_2"]["data_type"] == "bigint" and "position.order" in found["_seq_2"]["description"]
    assert found["id"]["data_tests"] == [{"not_null": {"config": {"where": "_op <> 't'"}}}]


def test_a_new_contract_file_adds_its_table_and_changes_no_other(tmp_path: Path) -> None:
    folder, project = tmp_path / "contracts", tmp_path / "dbt"
    shutil.copytree(PROJECT / "contracts", folder)
    assert write_sources(load_contracts(folder).values(), project)
    path = project / RELATIVE_PATH
    before = tables(path.read_text(encoding="utf-8"))
    assert not write_sources(load_contracts(folder).values(), project)
    stock = contract_document(
        {
            "code": {"required": True, "description": 'Größe "L": what\'s left'},
            "left": {"physicalType": "DECIMAL(8,2)"},
        },
        name="stock",
    )
    (folder / "stock.odcs.yaml").write_text(yaml.safe_dump(stock, allow_unicode=True), encoding="utf-8")
    assert write_sources(load_contracts(folder).values(), project)
    after = tables(path.read_text(encoding="utf-8"))
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"stock"}
    added = columns(after["stock"])
    assert list(added)[:3] == ["date", "code", "left"]
    assert added["code"]["data_tests"] == ["not_null"]
    assert added["code"]["description"] == 'Größe "L": what\'s left'
    assert added["left"]["data_type"] == "decimal(8,2)"
    assert [p.name for p in path.parent.iterdir()] == ["contracts.yml"]


def test_an_edited_file_is_written_again(contracts: dict[str, Contract], tmp_path: Path) -> None:
    write_sources(contracts.values(), tmp_path)
    path = tmp_path / RELATIVE_PATH
    good = path.read_text(encoding="utf-8")
    path.write_text(good.replace("not_null", "unique"), encoding="utf-8")
    assert write_sources(contracts.values(), tmp_path)
    assert path.read_text(encoding="utf-8") == good
