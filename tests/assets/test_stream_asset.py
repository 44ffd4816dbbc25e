"""The asset of a topic as Dagster sees it: what it reads, which checks pass and fail, what it tells meanwhile."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

import assets.streams
from assets.streams import StreamConfig, build_stream_asset
from resources.lake import LakeResource
from sluice.contracts import Contract
from sluice.eventlog import Message, open_log
from sluice.lake import Lake
from sluice.settings import Settings
from tests.conftest import MakeContract
from tests.shop import settings_in

KEY = dg.AssetKey(["bronze", "things_stream"])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.fixture
def contract(make_contract: MakeContract) -> Contract:
    columns: dict[str, Any] = {"id": {"required": True}, "at": {"physicalType": "TIMESTAMP"}}
    return make_contract(columns, share=0.05, stream={"topic": "things", "eventTime": "at"})


def send(settings: Settings, *values: bytes) -> None:
    log = open_log(settings)
    log.create("things", 1)
    log.append("things", [Message(value, timestamp_ms=1_767_225_600_000) for value in values])


def materialize(settings: Settings, contract: Contract, **config: Any) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [build_stream_asset(contract, settings)],
        resources={"lake": LakeResource(home=str(settings.home))},
        run_config=dg.RunConfig({"bronze__things_stream": StreamConfig(**config)}),
        raise_on_error=False,
    )


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {c.check_name: c.passed for c in result.get_asset_check_evaluations()}


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    last = result.get_asset_materialization_events()[-1].materialization.metadata
    return {name: value.value for name, value in last.items()}


def test_what_waits_is_read_and_its_books_and_positions_are_shown(settings: Settings, contract: Contract) -> None:
    send(settings, b'{"id": "a"}', b'{"id": "b"}', b"{")
    result = materialize(settings, contract)
    assert result.success
    assert checks(result) == {
        "books_balance": True,
        "offsets_adjoin": True,
        "no_dead_letters": False,
        "nothing_late": True,
        "schema_drift": True,
    }
    told = metadata(result)
    assert (told["rows_read"], told["rows_accepted"], told["rows_dead_lettered"], told["waiting"]) == (3, 2, 1, 0)
    assert "| 0 | 3 | 3 | 0 |" in told["positions"]
    with Lake(settings).reading() as con:
        assert con.execute("SELECT id FROM bronze.things ORDER BY id").fetchall() == [("a",), ("b",)]
        assert con.execute("SELECT DISTINCT run_id FROM ops.ledger").fetchall() == [(result.run_id,)]


def test_offsets_that_do_not_adjoin_turn_the_check_red(settings: Settings, contract: Contract) -> None:
    send(settings, b'{"id": "a"}', b'{"id": "b"}')
    materialize(settings, contract)
    Lake(settings).write(lambda con: con.execute("UPDATE ops.stream_positions SET stop_offset = 1"), "tampered")
    send(settings, b'{"id": "c"}')
    materialize(settings, contract)
    Lake(settings).write(
        lambda con: con.execute("UPDATE ops.stream_positions SET stop_offset = 2 WHERE start_offset = 0"), "tampered"
    )
    result = materialize(settings, contract)
    assert checks(result)["offsets_adjoin"] is False


def test_a_batch_that_must_not_go_on_fails_the_run_and_says_what_to_do(settings: Settings, contract: Contract) -> None:
    send(settings, *(b'{"id": "%d"}' % n for n in range(1000)))
    assert materialize(settings, contract).success
    send(settings, *(b'{"x": 1, "n": %d}' % n for n in range(100)))
    result = materialize(settings, contract)
    assert not result.success
    [failure] = [e for e in result.all_events if e.is_step_failure]
    error = failure.step_failure_data.error
    assert error is not None
    assert f"things stands still before things/0@{1000:020d}" in str(error.cause or error)
    with Lake(settings).reading() as con:
        assert con.execute("SELECT count(*) FROM bronze.things").fetchall() == [(1000,)]
    assert materialize(settings, contract, force=True).success


def test_a_run_that_goes_on_tells_meanwhile_what_it_has_read(
    settings: Settings, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets.streams, "TELL_SECONDS", 0.0)
    monkeypatch.setattr("sluice.streams.MOST_ROWS", 1)
    send(settings, b'{"id": "a"}', b'{"id": "b"}')
    result = materialize(settings, contract)
    told = [e.materialization.metadata["rows_read"].value for e in result.get_asset_materialization_events()]
    assert told == [1, 2, 2]


def test_what_was_read_is_told_also_when_nothing_comes_after(
    settings: Settings, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ten seconds pass from look to look: at the batch it is too soon to tell, and while the topic is idle it is not.
    clock = itertools.count(0, 10)
    monkeypatch.setattr(assets.streams, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    send(settings, b'{"id": "a"}')
    result = materialize(settings, contract)
    told = [e.materialization.metadata["rows_read"].value for e in result.get_asset_materialization_events()]
    assert told == [1, 1]
