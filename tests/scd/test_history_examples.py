"""What random logs seldom meet: refusals, changes of the schema, equal changes, a process killed in mid-build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sluice.bronze import table_columns
from sluice.lake import Lake
from sluice.ops_tables import OPS_TABLES
from sluice.scd_harness import Harness, Model, Row
from sluice.settings import PROJECT, load_settings
from tests.scd import oracle

LOG = {"k": "VARCHAR", "seq": "BIGINT", "ts": "TIMESTAMP", "a": "VARCHAR", "c": "INTEGER"}
CONFIG: dict[str, Any] = {"natural_key": "k", "columns": {"a": 2, "c": 1}, "sequence_by": ["seq"], "valid_from": "ts"}
GOOD = Model("good", CONFIG, LOG)
REMEMBERING = Model(
    "remembering",
    CONFIG | {"columns": {"a": 2, "c": 3}, "sequence_by": ["ts", "seq"], "delete_when": "gone"},
    LOG | {"gone": "BOOLEAN"},
)

# What is wrong, the options and rows that are, and what the message has to name.
WRONG: dict[str, tuple[dict[str, Any], Row, str]] = {
    "type": ({"columns": {"a": 5, "c": 1}}, {}, "column 'a' has type 5"),
    "value": ({"overwrite": "always"}, {}, "overwrite is 'always'"),
    "unlisted": ({"columns": {"a": 2}}, {}, "no option mentions: c"),
    "absent": ({"columns": {"a": 2, "c": 1, "z": 1}}, {}, "'z'"),
    "misspelt": ({"delets": "keep"}, {}, "there is no option 'delets'"),
    "list": ({"columns": ["a", "c"]}, {}, "columns is a list"),
    "text": ({"columns": {"a": "2", "c": 1}}, {}, "write the number"),
    "clash": ({"surrogate_key": "A"}, {}, "two columns of the dimension would be called 'a'"),
    "unordered": ({"valid_from": "a", "columns": {"c": 1}, "control_columns": ["ts"]}, {}, "'a' is VARCHAR"),
    "no_snapshots": ({"absent_is_delete": True}, {}, "absent_is_delete belongs to log='snapshots'"),
    "feed_text": ({"changes_in": ["logs.good_log"]}, {}, "write {'table': 'schema.table'}"),
    "feed_word": ({"changes_in": [{"table": "logs.good_log", "time": "ts"}]}, {}, "has no 'time'"),
    "feed_table": ({"changes_in": [{"table": "gold.good_log"}]}, {}, "the lake has no such table"),
    "feed_time": (
        {"changes_in": [{"table": "logs.timeless"}]},
        {},
        "logs.timeless, followed by changes_in, has no column 'ts'",
    ),
    "no_beginning": (
        {"valid_from": "seq", "control_columns": ["ts"], "unknown_member": True},
        {},
        "beginning is TIMESTAMP",
    ),
    "open_end": (
        {"open_end": "timestamp '2020-01-01'"},
        {},
        "open_end is timestamp '2020-01-01', and a version begins at",
    ),
    "no_key": ({}, {"k": None}, "'k'"),
    "no_place": ({}, {"seq": None}, "'seq'"),
    "no_second_place": ({"sequence_by": ["ts", "seq"]}, {"seq": None}, "'seq'"),
    "no_time": ({}, {"ts": None}, "'ts'"),
}


def row(key: str, number: int, **values: Any) -> Row:
    return {"k": key, "seq": number, "ts": f"2024-01-{number:02d} 00:00:00", "a": f"a{number}", "c": number, **values}


def texts(found: list[Row]) -> list[str]:
    return sorted(str({name: str(r[name]) for name in sorted(r) if name != "version_key"}) for r in found)


@pytest.fixture(scope="module")
def lake(harness: Harness) -> Iterator[Harness]:
    """The lake with the models of this module beside the others."""
    harness.con.execute("CREATE TABLE logs.timeless (k VARCHAR)")
    wrong = [Model(f"wrong_{name}", CONFIG | options, LOG) for name, (options, _, _) in WRONG.items()]
    harness.define([GOOD, Model("unfed", CONFIG, LOG, feed=False), Model("ties", CONFIG, LOG), REMEMBERING, *wrong])
    yield harness


def test_only_rows_that_differ_are_written(lake: Harness) -> None:
    lake.change_logs({"good": {0: [row(key, number) for key in "ABC" for number in (1, 5, 9)]}})
    assert lake.build(["good"]) == {"good": None}
    before = lake.snapshot()
    lake.change_logs({"good": {1: [row("B", 7)]}})
    assert lake.build(["good"]) == {"good": None}
    changed = lake.changes("good", before)
    assert {r["k"] for r in changed} == {"B"}
    assert sorted(r["version"] for r in changed if r["change_type"] == "insert") == [2, 3, 4]


def test_running_again_without_a_feed_writes_no_row(lake: Harness) -> None:
    lake.change_logs({"unfed": {0: [row("A", 1), row("A", 2)]}})
    assert lake.build(["unfed"]) == {"unfed": None}
    before = lake.snapshot()
    assert lake.build(["unfed"]) == {"unfed": None}
    assert lake.changes("unfed", before) == []


def test_equal_changes_with_different_clocks_count_in_the_order_of_the_clock(lake: Harness) -> None:
    log = [row(f"k{n}", 1, ts=f"2024-01-{1 + (n + m) % 9:02d} 00:00:00") for n in range(300) for m in (0, 5)]
    lake.change_logs({"ties": {0: log}})
    assert lake.build(["ties"]) == {"ties": None}
    assert texts(lake.read("ties")) == texts(oracle.history(CONFIG, log))


@pytest.mark.parametrize("tie_of_another", [False, True])
def test_a_delete_of_what_never_was_leaves_no_value_behind(lake: Harness, tie_of_another: bool) -> None:
    log = [row("A", 1, gone=True), row("A", 2, gone=False), row("A", 3, gone=False)]
    if tie_of_another:
        log += [row("B", 1, gone=False), row("B", 1, gone=False, a="z")]
    lake.change_logs({"remembering": {0: log}}, {"remembering": None})
    assert lake.build(["remembering"], full_refresh=True) == {"remembering": None}
    found = [r for r in lake.read("remembering") if r["k"] == "A"]
    assert [(r["c"], r["previous_c"]) for r in sorted(found, key=lambda r: r["version"])] == [(3, 2), (3, 2)]
    lake.change_logs({"remembering": {1: []}}, {"remembering": [0]})
    lake.change_logs({"remembering": {2: log[:2]}})
    assert lake.build(["remembering"]) == {"remembering": None}
    assert [(r["c"], r["previous_c"]) for r in lake.read("remembering")] == [(2, None)]


def test_what_makes_no_sense_is_refused_and_nothing_is_written(lake: Harness) -> None:
    lake.change_logs({f"wrong_{name}": {0: [row("A", 1), row("B", 2, **bad)]} for name, (_, bad, _) in WRONG.items()})
    outcome = lake.build([f"wrong_{name}" for name in WRONG])
    for name, (_, _, told) in WRONG.items():
        message = outcome[f"wrong_{name}"]
        assert message is not None, name
        assert told in message
        assert f"wrong_{name}" in message
        assert lake.read(f"wrong_{name}") == []


def test_a_log_that_was_altered_is_read_anew(lake: Harness) -> None:
    lake.change_logs({"good": {0: [row("A", 1), row("B", 1)]}}, {"good": None})
    assert lake.build(["good"], full_refresh=True) == {"good": None}
    lake.con.execute("ALTER TABLE logs.good_log DROP a")
    lake.con.execute("ALTER TABLE logs.good_log ADD COLUMN a VARCHAR DEFAULT 'other'")
    lake.change_logs({"good": {1: [row("A", 5)]}})
    assert lake.build(["good"]) == {"good": None}
    assert sorted((r["k"], r["version"], r["a"]) for r in lake.read("good")) == [
        ("A", 1, "other"),
        ("A", 2, "a5"),
        ("B", 1, "other"),
    ]


def test_a_change_without_a_time_is_refused_by_an_incremental_build_too(lake: Harness) -> None:
    lake.change_logs({"good": {0: [row("A", 1)]}}, {"good": None})
    assert lake.build(["good"], full_refresh=True) == {"good": None}
    lake.change_logs({"good": {1: [row("A", 2, ts=None), row("A", 3)]}})
    assert "'ts'" in str(lake.build(["good"])["good"])
    lake.change_logs(remove={"good": [1]})
    assert lake.build(["good"]) == {"good": None}
    assert texts(lake.read("good")) == texts(oracle.history(CONFIG, [row("A", 1)]))


def test_a_truncate_with_a_key_is_refused_either_way(lake: Harness) -> None:
    config = {**CONFIG, "truncate_when": "wiped"}
    model = Model("wiped", config, {**LOG, "wiped": "BOOLEAN"})
    lake.define([model])
    lake.change_logs({"wiped": {0: [row(key, 1, wiped=False) for key in "AB"]}})
    assert lake.build(["wiped"]) == {"wiped": None}
    before = texts(lake.read("wiped"))
    lake.change_logs({"wiped": {1: [row("A", 5, wiped=True)]}})
    for options in ({}, {"full_refresh": True}):
        assert "a truncate concerns every key" in str(lake.build(["wiped"], **options)["wiped"])
        assert texts(lake.read("wiped")) == before


def test_keys_seen_before_the_beginning_have_a_member_from_there_on(lake: Harness) -> None:
    config = {**CONFIG, "sequence_by": ["ts"], "sighting_when": "seq is null", "control_columns": ["seq"]}
    model = Model("early", config, LOG)
    lake.define([model])
    seen = [{**row(key, 1), "seq": None, "ts": ts} for key, ts in (("A", "1840-01-01"), ("B", "1899-12-31"))]
    changes = [row("A", 1, ts="1850-01-01"), row("B", 1, ts="1900-01-01")]
    lake.change_logs({"early": {0: changes}})
    assert lake.build(["early"]) == {"early": None}
    lake.change_logs({"early": {1: seen}})
    assert lake.build(["early"]) == {"early": None}
    rows = lake.read("early")
    found = sorted((r["k"], r["version"], str(r["valid_from"])[:10], str(r["valid_to"])[:10]) for r in rows)
    assert found == [
        ("A", 0, "1840-01-01", "1850-01-01"),
        ("A", 1, "1850-01-01", "None"),
        ("B", 0, "1899-12-31", "1900-01-01"),
        ("B", 1, "1900-01-01", "None"),
    ]
    assert len({r["version_key"] for r in rows}) == 4


def test_a_row_that_is_refused_leaves_the_table_as_it_was(lake: Harness) -> None:
    lake.change_logs({"good": {0: [row("A", 1)]}}, {"good": None})
    assert lake.build(["good"], full_refresh=True) == {"good": None}
    lake.change_logs({"good": {1: [row("A", 2, seq=None)]}})
    before = lake.snapshot(), texts(lake.read("good"))
    assert "'seq'" in str(lake.build(["good"])["good"])
    assert (lake.snapshot(), texts(lake.read("good"))) == before
    lake.change_logs({"good": {2: [row("A", 3)]}}, {"good": [1]})
    assert lake.build(["good"]) == {"good": None}
    assert texts(lake.read("good")) == texts(oracle.history(CONFIG, [row("A", 1), row("A", 3)]))


@pytest.mark.slow
def test_columns_may_come_and_grow_but_not_go_or_shrink(lake: Harness) -> None:
    model = Model("shape", CONFIG, LOG)
    lake.define([model])
    lake.change_logs({"shape": {0: [row("A", 1), row("B", 1)]}})
    assert lake.build(["shape"]) == {"shape": None}

    wider = replace(
        model, config={**CONFIG, "columns": {"a": 2, "c": 1, "n": 2}}, log={**LOG, "c": "BIGINT", "n": "VARCHAR"}
    )
    lake.define([wider])
    lake.change_logs({"shape": {1: [row("A", 2, c=2**40, n="new")]}})
    assert lake.build(["shape"]) == {"shape": None}
    found = {(r["k"], r["version"]): (r["c"], r["n"]) for r in lake.read("shape")}
    assert found == {("A", 1): (2**40, None), ("A", 2): (2**40, "new"), ("B", 1): (1, None)}

    before = texts(lake.read("shape"))
    narrower = replace(wider, config={**CONFIG, "columns": {"a": 2, "c": 1}}, log={**LOG, "c": "BIGINT"})
    lake.define([narrower])
    message = str(lake.build(["shape"])["shape"])
    assert "'n'" in message
    assert "--full-refresh" in message
    assert texts(lake.read("shape")) == before
    assert lake.build(["shape"], full_refresh=True) == {"shape": None}
    assert "n" not in lake.read("shape")[0]

    file = lake.project / "models" / "shape.sql"
    narrow = file.read_text(encoding="utf-8").replace('    "c"\n', '    cast("c" as smallint) as "c"\n')
    file.write_text(narrow, encoding="utf-8")
    lake.define([])
    message = str(lake.build(["shape"])["shape"])
    assert "'c'" in message
    assert "--full-refresh" in message


# Builds a first batch, then a second one that never ends: its post-hook tells that all is written, and counts on.
NEVER_ENDING = """
import os, sys
from pathlib import Path
from sluice.scd_harness import Harness, Model
folder, marker = map(Path, sys.argv[1:])
config = {"natural_key": "k", "columns": {"a": 2}, "valid_from": "n"}
hook = "{{ env_var('SCD_POST_HOOK', 'select 1') }}"
model = Model("m", config, {"k": "VARCHAR", "n": "BIGINT", "a": "VARCHAR"}, post_hook=hook)
with Harness(folder) as harness:
    harness.define([model])
    for number in (1, 2):
        harness.change_logs({"m": {number: [{"k": "A", "n": number, "a": str(number)}]}})
        harness.build()
        os.environ["SCD_POST_HOOK"] = f"copy (select 1) to '{marker}'; select count(*) from range(10000000000000)"
"""


@pytest.mark.slow
def test_a_process_killed_in_mid_build_leaves_the_last_state(tmp_path: Path) -> None:
    marker = tmp_path / "written"
    arguments = [sys.executable, "-c", NEVER_ENDING, str(tmp_path / "lake"), str(marker)]
    child = subprocess.Popen(arguments, cwd=PROJECT, env={**os.environ, "DO_NOT_TRACK": "1"})
    try:
        deadline = time.monotonic() + 120
        while not marker.exists():
            assert child.poll() is None, "the build ended, and was not to"
            assert time.monotonic() < deadline, "the build did not get as far as its post-hook"
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with Lake(load_settings(home=tmp_path / "lake" / "home", catalog="", data_path="")).reading() as con:
        found = con.execute("SELECT version, a, valid_from, valid_to, is_current FROM gold.m").fetchall()
        builds = con.execute("SELECT count(*) FROM ops.builds").fetchall()
    assert found == [(1, "1", 1, None, True)]
    assert builds == [(1,)]


def test_a_project_without_sluice_notes_its_builds_in_tables_like_sluices(tmp_path: Path) -> None:
    """The macro makes them there; with Sluice they are there before, for models that run at once."""
    model = Model("alone", CONFIG, LOG)
    with Harness(tmp_path / "lifted") as lifted:
        lifted.define([model])
        lifted.change_logs(add={"alone": {1: [{"k": "k", "seq": 1, "ts": "2026-01-01", "a": "1", "c": 1}]}})
        assert lifted.build() == {"alone": None}
        for table in ("builds", "rewrites"):
            assert table_columns(lifted.con, table, "ops") == OPS_TABLES[table]
