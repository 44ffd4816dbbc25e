"""Personal columns: what contracts say of them, the keyed hash in SQL, and that the key shows nowhere."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import duckdb
import pytest
import yaml

from sluice.contracts import Contract, load_contract
from sluice.dbt_plugin import DATA_PATH, METADATA, PSEUDONYM_KEY, Plugin
from sluice.dbt_sources import sources_yaml
from sluice.errors import ConfigurationError, ContractError
from sluice.pseudonyms import PSEUDONYM, Key, digest_sql
from sluice.settings import load_settings
from tests.conftest import MakeContract, contract_document


@pytest.mark.parametrize("length", [1, 32, 63, 64, 65, 200])
def test_the_hash_in_sql_is_the_hmac_of_python(length: int) -> None:
    secret = bytes(range(256))[:length] * (1 + length // 256)
    values = ["a@b.example", "", "Zoë Ünïcode", "x" * 1000, "'quoted\\\"'"]
    with duckdb.connect() as con:
        Key(secret).put(con, "some")
        rows = con.execute(
            f"SELECT v, {digest_sql('v', 'some')} FROM (SELECT unnest(?) AS v) UNION ALL SELECT NULL, "
            f"{digest_sql('NULL::VARCHAR', 'some')}",
            [values],
        ).fetchall()
    wanted = {v: hmac.new(secret, v.encode(), hashlib.sha256).hexdigest() for v in values}
    assert dict(rows) == {**wanted, None: None}
    assert {v: Key(secret).digest(v) for v in values} == wanted


def test_a_key_says_nothing_of_itself() -> None:
    key = Key(b"correct horse battery staple and more")
    assert "horse" not in f"{key} {key!r} {key.id}"
    assert len(key.id) == 12
    assert key.id != Key(b"correct horse battery staple and mord").id
    assert Key(b"").id == ""


def test_the_plugin_puts_the_key_into_each_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Plugin("dbt_plugin", {})
    secret = "0123456789abcdef" * 3
    found = []
    for value in (secret, ""):
        monkeypatch.setenv(PSEUDONYM_KEY, value)
        monkeypatch.setenv(METADATA, "sqlite:/nowhere/it's.sqlite")
        monkeypatch.setenv(DATA_PATH, "/nowhere/")
        with duckdb.connect() as con:
            cursor = con.cursor()
            plugin.configure_connection(con)
            plugin.configure_cursor(cursor)
            names = [f"getvariable('{PSEUDONYM}_{part}')" for part in ("id", "inner", "outer")]
            found.append(cursor.execute(f"SELECT {', '.join(names)}").fetchone())
    assert found[0] is not None
    assert found[0][0] == Key(secret.encode()).id
    assert found[1] == (None, None, None)


def test_a_key_that_can_be_guessed_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(pseudonym_key="swordfish")
    assert "SLUICE_PSEUDONYM_KEY" in str(caught.value)
    assert "openssl rand -hex 32" in str(caught.value)
    assert "swordfish" not in str(caught.value)
    assert "0123" not in repr(load_settings(pseudonym_key="0123456789abcdef" * 2))


def personal(**more: Any) -> dict[str, Any]:
    """A personal column, with what it says of itself as customProperties."""
    custom = [{"property": name, "value": value} for name, value in more.items()]
    return {"classification": "personal", **({"customProperties": custom} if custom else {})}


def subject(kind: str, **more: Any) -> dict[str, Any]:
    """A column that names a person."""
    return {"customProperties": [{"property": "subject", "value": kind}], **more}


def test_a_contract_says_how_its_personal_columns_are_treated(make_contract: MakeContract) -> None:
    contract = make_contract(
        {
            "id": subject("member", required=True, primaryKey=True),
            "mail": personal(),
            "phone": personal(privacy="mask"),
            "town": {"classification": "internal"},
        }
    )
    assert [(c.name, c.personal, c.privacy, c.subject) for c in contract.columns] == [
        ("id", False, None, "member"),
        ("mail", True, "pseudonymize", None),
        ("phone", True, "mask", None),
        ("town", False, None, None),
    ]
    assert contract.subjects == {"member"}
    table = yaml.safe_load(sources_yaml([contract]))["sources"][0]["tables"][0]
    metas = {c["name"]: c.get("config", {}).get("meta") for c in table["columns"]}
    assert metas["mail"] == {"classification": "personal", "privacy": "pseudonymize"}
    assert metas["phone"]["privacy"] == "mask"
    assert metas["id"] == {"subject": "member"}
    assert metas["town"] == {"classification": "internal"}


def test_what_is_said_of_privacy_loads_no_batch_again(make_contract: MakeContract) -> None:
    plain = make_contract({"id": {}, "mail": {}})
    told = make_contract({"id": subject("member"), "mail": personal(privacy="mask")})
    assert plain.hash == told.hash


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"a": {"customProperties": [{"property": "privacy", "value": "mask"}]}}, "is not personal"),
        ({"a": personal(privacy="hide")}, "it must be pseudonymize or mask"),
        ({"a": personal(privasy="mask")}, "Did you mean 'privacy'"),
        ({"a": subject("A Customer")}, "write whom it names in lower case"),
        ({"k": {"primaryKey": True}, "a": subject("customer", required=True)}, "a is required, but must be emptied"),
        ({"a": subject("customer"), "b": {**personal(), "required": True}}, "b is required, but must be emptied"),
    ],
)
def test_what_a_contract_cannot_say(columns: dict[str, dict[str, Any]], complaint: str, tmp_path: Any) -> None:
    path = tmp_path / "made.odcs.yaml"
    path.write_text(yaml.safe_dump(contract_document(columns)), encoding="utf-8")
    with pytest.raises(ContractError, match=complaint):
        load_contract(path)


def test_the_shop_says_whom_its_rows_name(contracts: dict[str, Contract]) -> None:
    named = {c.name: [k.name for k in c.columns if k.subject == "customer"] for c in contracts.values()}
    assert named == {
        "customers": ["customer_id"],
        "orders": ["customer_id"],
        "events": ["customer_id"],
        "products": [],
        "exchange_rates": [],
    }
