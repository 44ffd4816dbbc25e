"""The benchmark of streams on tiny sizes: all sides take the same events, and what went astray stops a measurement.

Brokers and processes are real. No test asserts a time.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks import bare_consumer, chart, stream
from benchmarks.measure import Result
from deploy.kafka_broker import missing as missing_broker
from sluice.eventlog import Message, open_log
from tests.conftest import go_without

EVENTS = 1_501  # two that break a rule


def shown(result: Result, folder: Path) -> None:
    """Every way to show it works, and it survives being kept."""
    assert all(t.seconds and min(t.seconds) > 0 for t in result.timings)
    assert Result.of(result.data()) == result
    assert ET.parse(chart.draw(result, folder)).getroot().tag.endswith("svg")
    assert result.title in result.text()
    assert all(r.name in result.markdown() for r in result.ratios)


def test_every_side_takes_every_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if lacking := missing_broker():
        go_without(lacking)
    monkeypatch.setattr(stream, "SPARK_PYTHON", tmp_path / "nowhere")
    result = stream.run(EVENTS, 1)
    assert len(result.timings) == 4
    assert "2 of which break a rule" in result.facts[0]
    assert "without Spark" in result.facts[2]
    shown(result, tmp_path)


@pytest.mark.skipif(not stream.SPARK_PYTHON.exists(), reason="needs .venv-bench, which `make bench` makes")
def test_spark_takes_every_event(tmp_path: Path) -> None:
    result = stream.run(EVENTS, 1)
    assert [t.name for t in result.timings][-2:] == ["Spark: warm", "Spark: with start-up"]
    shown(result, tmp_path)


@pytest.mark.parametrize(("events", "bad"), [(500, 0), (501, 1), (1_500, 1), (1_501, 2)])
def test_it_is_known_how_many_events_break_a_rule(events: int, bad: int) -> None:
    assert stream.bad(events) == bad


def test_an_event_that_is_missing_or_there_twice_stops_the_measurement(tmp_path: Path) -> None:
    lake = stream.fresh_lake(tmp_path, "")
    one = b'{"event_id": "%d", "event_type": "view", "event_ts": "2026-01-31 10:00:00", "visitor_id": "v"}'
    with open_log(lake.settings) as log:
        log.create("shop.events", 1)
        log.append("shop.events", [Message(one % 1), Message(one % 2)])
    result = stream.read_all(lake)
    stream.check(lake, result, 2)
    with pytest.raises(RuntimeError, match=r"Sluice has \(2, 2, 0\) .* sent were \(3, 3, 0\)"):
        stream.check(lake, None, 3)
    with open_log(lake.settings) as log:
        log.append("shop.events", [Message(one % 2)])
    stream.read_all(lake)
    with pytest.raises(RuntimeError, match=r"Sluice has \(3, 2, 0\)"):
        stream.check(lake, None, 3)


def test_both_ways_to_take_values_apart_give_the_same_rows() -> None:
    schema = pa.schema([("id", pa.string()), ("n", pa.int32())])
    values = [b'{"id": "a", "n": 1}', b'{"n": null, "id": "\\u00e9"}', b'{"id": "c"}']
    by_rows, at_once = (p(values, schema) for p in (bare_consumer.with_json_loads, bare_consumer.with_arrow))
    assert by_rows.to_pylist() == [{"id": "a", "n": 1}, {"id": "é", "n": None}, {"id": "c", "n": None}]
    assert at_once.equals(by_rows)
