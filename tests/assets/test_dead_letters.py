"""Dead letters in the UI: what the asset tells, and the job that takes them again and says what it changed."""

from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

from assets import dead_letters as module
from assets.dead_letters import KEY, build_dead_letters, build_replay_job, no_poison
from resources.lake import LakeResource
from sluice.contracts import load_contracts
from sluice.dead_letters import POISON_ATTEMPTS, Choice, Group, letters
from sluice.errors import DeadLetterError
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.settings import PROJECT, Settings
from tests.shop import order_line, settings_in, write_orders

CONTRACTS = load_contracts(PROJECT / "contracts")
ORDERS = CONTRACTS["orders"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A lake in which one of many order lines is set aside, for its country is none."""
    settings = settings_in(tmp_path)
    monkeypatch.setenv("SLUICE_START_DATE", str(settings.start_date))
    monkeypatch.setenv("SLUICE_END_DATE", str(settings.end_date))
    return settings


def loaded(settings: Settings) -> Lake:
    lake = Lake(settings)
    good = [order_line(n) for n in range(40)]
    write_orders(settings, "2026-01-01", "uk", [*good, order_line(40, quantity="`one`")])
    ingest(lake, ORDERS)
    return lake


def test_the_asset_tells_what_is_open_and_warns_of_poison(settings: Settings) -> None:
    lake = loaded(settings)
    resources = {"lake": LakeResource(home=str(settings.home))}
    asset = build_dead_letters(list(CONTRACTS.values()))
    for attempt in range(1, POISON_ATTEMPTS + 1):
        result = dg.materialize([asset, no_poison], resources=resources)
        (told,) = result.asset_materializations_for_node(asset.node_def.name)
        assert told.asset_key == KEY
        assert told.metadata["open"].value == 1
        reasons = str(told.metadata["by reason"].value)
        assert "| orders | type | quantity | 1 | 1 |" in reasons
        # Orders hold ids of customers: whoever sees the UI does not see the row.
        assert "not shown: personal" in reasons
        assert "one" not in reasons
        assert str(told.metadata["chart"].value).startswith("![Open rows by reason](data:image/png;base64,")
        (check,) = result.get_asset_check_evaluations()
        assert check.passed == (attempt < POISON_ATTEMPTS)
        ingest(lake, ORDERS, force=True)


def test_the_chart_says_of_how_many_reasons_it_shows_the_most_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[list[tuple[str, int]], str]] = []
    monkeypatch.setattr(module, "bars", lambda rows, title: drawn.append((list(rows), title)))
    at = datetime(2026, 1, 1)
    found = [Group("orders", f"rule{n}", "", 1, 99 - n, 0, at, at, "") for n in range(13)]
    module._chart(found)
    module._chart(found[:12])
    (many, title), (few, plain) = drawn
    assert title == "Open rows by reason: the 12 most frequent of 13" and plain == "Open rows by reason"
    assert many == few == [(f"orders: rule{n}", 99 - n) for n in range(12)]


def test_the_job_tells_of_a_batch_that_is_refused_again(settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    write_orders(settings, "2026-01-01", "uk", [order_line(1, quantity="one")])
    assert ingest(Lake(settings), ORDERS).refused
    resources = {"lake": LakeResource(home=str(settings.home))}
    build_replay_job(list(CONTRACTS.values())).execute_in_process(resources=resources)
    assert "orders 2026-01-01|uk is refused again: 1 of 1 rows were rejected" in capfd.readouterr().err


def test_the_job_replays_and_marks_what_it_changed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = loaded(settings)
    (letter,) = letters(lake, Choice())
    job = build_replay_job(list(CONTRACTS.values()))
    resources = {"lake": LakeResource(home=str(settings.home))}
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(resources=resources, instance=instance)
        assert instance.get_latest_materialization_event(dg.AssetKey(["bronze", "orders"])) is None
        assert letters(lake, Choice())[0].attempts == 2
        with pytest.raises(DeadLetterError, match=r"There is no source 'ordrs'\. Did you mean 'orders'\?"):
            job.execute_in_process(
                resources=resources,
                instance=instance,
                run_config={"ops": {"replay_open_letters": {"config": {"source": "ordrs"}}}},
            )

        lake.write(
            lambda con: con.execute(
                "UPDATE ops.dead_letters SET corrected = replace(raw, '`one`', '1'), decided_by = 'ann'"
            ),
            "a correction that waits",
        )
        job.execute_in_process(
            resources=resources,
            instance=instance,
            run_config={"ops": {"replay_open_letters": {"config": {"ids": [letter.dead_letter_id]}}}},
        )
        event = instance.get_latest_materialization_event(dg.AssetKey(["bronze", "orders"]))
        assert event is not None
        assert event.asset_materialization is not None
        assert event.asset_materialization.partition == "2026-01-01|uk"
    (done,) = letters(lake, Choice(status="replayed"))
    assert (done.decided_by, done.raw) == ("ann", letter.raw)
    with lake.reading() as con:
        assert con.execute("SELECT count(*) FROM bronze.orders").fetchall() == [(41,)]
