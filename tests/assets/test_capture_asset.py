"""A capture as Dagster sees it, from the sensor to the topic to bronze: against the real database and Debezium."""

from typing import Any

import dagster as dg
import pytest

from assets.capture import CaptureConfig, build_capture_asset, topic_writers
from assets.streams import build_stream_assets, stream_key
from definitions import build_definitions
from resources.lake import LakeResource
from sensors.capture import capture_sensor
from sluice.contracts import Contract
from sluice.lake import Lake
from tests.conftest import MakeContract
from tests.shop import settings_in
from tests.sluice.capture.source import Source

pytestmark = pytest.mark.slow

KEY = dg.AssetKey(["capture", "shop"])


@pytest.fixture
def contract(make_contract: MakeContract) -> Contract:
    return make_contract(
        {"id": {"physicalType": "INTEGER", "primaryKey": True}, "v": {"physicalType": "INTEGER"}},
        formats=["jsonl"],
        feed={"envelope": "debezium", "sequence": ["position.commit", "position.order"], "validFrom": "source.ts_ms"},
        stream={"topic": "shop.public.things"},
    )


class Platform:
    """A capture, the stream of its topic, and the capture's sensor, on an instance of their own."""

    def __init__(self, source: Source, contract: Contract, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.resources = {"lake": LakeResource(home=str(source.home))}
        captures = {"shop": source.capture}
        self.assets = [
            build_capture_asset(source.capture),
            *build_stream_assets([contract], source.settings, topic_writers(captures)),
        ]
        self.sensor = capture_sensor(source.capture, KEY)

    def tick(self) -> dg.RunRequest | str:
        """The one run the sensor asks for, or why it asks for none."""
        context = dg.build_sensor_context(instance=self.instance, resources=self.resources)
        data = self.sensor.evaluate_tick(context)
        if not data.run_requests:
            return data.skip_message or ""
        [request] = data.run_requests
        return request

    def run(self, *keys: dg.AssetKey, request: dg.RunRequest | None = None, **config: Any) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            self.assets,
            selection=list(keys),
            instance=self.instance,
            resources=self.resources,
            tags=request.tags if request else None,
            run_config=dg.RunConfig({"capture__shop": CaptureConfig(**config)}),
            raise_on_error=False,
        )


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {c.check_name: c.passed for c in result.get_asset_check_evaluations() if c.asset_key == KEY}


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    [event] = result.asset_materializations_for_node("capture__shop")
    return {name: value.value for name, value in event.metadata.items()}


def test_from_the_sensor_to_the_topic_to_bronze(
    source: Source, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in source.environment().items():
        if name.startswith("SLUICE_"):
            monkeypatch.setenv(name, value)
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v INT); INSERT INTO things VALUES (1, 10), (2, 20)")
    source.define("public.things", publish=False, batch={"seconds": 0.001})
    with dg.DagsterInstance.ephemeral() as instance:
        platform = Platform(source, contract, instance)

        # Not set up: the sensor says what is missing, and so does a run by hand.
        assert "CREATE PUBLICATION" in str(platform.tick())
        result = platform.run(KEY)
        assert not result.success and checks(result) == {"database_ready": False}
        source.sql("CREATE PUBLICATION sluice_shop FOR TABLE things")

        request = platform.tick()
        assert isinstance(request, dg.RunRequest) and request.asset_selection == [KEY]
        result = platform.run(KEY, request=request)
        assert result.success and checks(result) == {"database_ready": True, "captured_to_the_end": True}
        told = metadata(result)
        assert (told["written"], told["skipped"], told["stage"]) == (2, 0, "streaming")
        assert "| shop.public.things | 2 |" in told["topics"] and told["lag in bytes"] >= 0
        assert "All is captured" in str(platform.tick())

        # What the database did meanwhile, and with the asset of the topic in the same run: in bronze after it.
        source.sql("UPDATE things SET v = 11 WHERE id = 1; DELETE FROM things WHERE id = 2")
        request = platform.tick()
        assert isinstance(request, dg.RunRequest)
        result = platform.run(KEY, stream_key(contract), request=request)
        assert result.success and metadata(result)["written"] == 3
        with Lake(source.settings).reading() as con:
            rows = con.execute("SELECT id, v, _op FROM bronze.things ORDER BY _lsn, _seq_2, id").fetchall()
        assert rows == [(1, 10, "r"), (2, 20, "r"), (1, 11, "u"), (2, 20, "d")]

        # For some seconds: whether it came to the end is no more than a warning.
        result = platform.run(KEY, seconds=0.5)
        assert result.success
        [check] = [c for c in result.get_asset_check_evaluations() if c.check_name == "captured_to_the_end"]
        assert check.severity == dg.AssetCheckSeverity.WARN

        # The slot is lost: one run that fails, which people are told of; then the reason, until they mend it.
        source.sql(f"SELECT pg_drop_replication_slot('{source.slot}')")
        request = platform.tick()
        assert isinstance(request, dg.RunRequest)
        result = platform.run(KEY, request=request)
        assert not result.success and checks(result) == {"database_ready": False}
        assert "is gone" in str(platform.tick()) and "sluice capture resnapshot shop" in str(platform.tick())


def test_a_capture_is_in_the_graph_before_its_streams_and_nowhere_without_a_file(
    source: Source, contract: Contract
) -> None:
    source.define("public.things", publish=False, full=False)
    writers = topic_writers({"shop": source.capture})
    definitions = dg.Definitions(
        [build_capture_asset(source.capture), *build_stream_assets([contract], source.settings, writers)],
        resources={"lake": LakeResource(home=str(source.home))},
    )
    graph = definitions.resolve_asset_graph()
    assert graph.get(KEY).child_keys == {stream_key(contract)}
    assert graph.get(KEY).kinds == {"postgres", "debezium"} and graph.get(KEY).pools == {"capture_shop"}

    settings = settings_in(source.home / "other", captures=str(source.settings.captures))
    whole = build_definitions(settings)
    assert KEY in whole.resolve_asset_graph().get_all_asset_keys()
    assert whole.resolve_job_def("capture_shop")
    sensor = whole.get_repository_def().get_sensor_def("shop_position")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    without = build_definitions(settings_in(source.home / "none"))
    names = {key.path[0] for key in without.resolve_asset_graph().get_all_asset_keys()}
    assert "capture" not in names
    assert not [s.name for s in without.get_repository_def().sensor_defs if s.name.endswith("_position")]
