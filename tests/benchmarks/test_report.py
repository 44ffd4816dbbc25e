"""Results are kept by name, and what is shown of them is made of what is kept.

Belongs here: the file, the document, the charts, the command around them. No test asserts a time.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import chart, ingest, overhead, report
from benchmarks.measure import Ratio, Result, Timing
from benchmarks.report import BEGIN, END, Kept
from sluice.settings import PROJECT

KEPT = PROJECT / "docs" / "benchmarks.json"
DOCUMENT = PROJECT / "docs" / "benchmarks.md"
IMAGES = PROJECT / "docs" / "images"


def made(name: str, seconds: float = 1.0) -> Result:
    ours, peer = Timing("Sluice: this", [seconds, 2 * seconds], [0.5, 0.5]), Timing("peer", [90.0], reckoned=True)
    ratios = (Ratio("peer / Sluice", 45.0, 50.0, at_least=True), Ratio("aimless", 2.0))
    return Result(name, f"{name}: a thing", ("a fact", "another"), (ours, peer), ratios)


def test_what_is_kept_comes_back(tmp_path):
    kept = {name: Kept(made(name), {"cores": "2"}) for name in ("a", "b")}
    report.save(tmp_path / "new" / "kept.json", kept)
    assert report.load(tmp_path / "new" / "kept.json") == kept
    assert report.load(tmp_path / "nowhere.json") == {}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["kept.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": [{"name": "a"}]}'])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "kept.json").write_text(text)
    with pytest.raises(ValueError, match=r"kept\.json holds no results"):
        report.load(tmp_path / "kept.json")


def test_a_document_is_changed_between_its_marks_only(tmp_path):
    document = tmp_path / "docs" / "page.md"
    document.parent.mkdir()
    document.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    kept = {name: Kept(made(name), {"cores": "2"}) for name in ("b", "a")}
    for _ in range(2):  # and doing it again changes nothing
        report.render(document, kept, tmp_path / "docs" / "images")
    text = document.read_text()
    aims = "| benchmark | ratio of medians | aim | measured | |\n|---|---|---|---:|---|\n"
    assert text.startswith(f"before\n\n{BEGIN}\n\n{aims}")
    assert "\n| a: a thing | peer / Sluice | 50 at least | 45.00 | **not met** |\n" in text
    assert "| a: a thing | aimless" not in text
    assert "|\n\n### A: a thing\n\n![a: a thing](images/bench-a.svg)\n\n- a fact\n" in text
    assert text.endswith(f"Machine: cores 2.\n\n{END}\n\nafter\n")
    assert "| peer / Sluice | 45.00 | 50 at least | **not met** |" in text
    assert "| aimless | 2.00 |  |  |" in text
    assert "old" not in text
    assert text.index("### A") < text.index("### B")


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}"])
def test_a_document_without_marks_stays(tmp_path, text):
    document = tmp_path / "page.md"
    document.write_text(text)
    with pytest.raises(ValueError, match="once each"):
        report.render(document, {})
    assert document.read_text() == text


@pytest.mark.parametrize("seconds", [0.001, 80.0])
def test_a_chart_is_the_same_each_time_and_names_what_it_shows(tmp_path, seconds):
    first, second = (chart.draw(made("a", seconds), tmp_path / folder) for folder in ("x", "y"))
    assert first.read_bytes() == second.read_bytes()
    texts = " ".join("".join(e.itertext()) for e in ET.parse(first).getroot().iter("{http://www.w3.org/2000/svg}text"))
    assert "a: a thing" in texts
    assert "Sluice: this" in texts
    assert ("logarithmic" in texts) == (seconds < 0.5)


def test_each_result_is_kept_at_once_and_replaces_only_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.history, "run", lambda size, runs: made("history", size))
    monkeypatch.setattr(command.overhead, "run", lambda runs: made("overhead", runs))

    def broken(size: float, runs: int) -> Result:
        raise RuntimeError("dbt failed")

    monkeypatch.setattr(command.facts, "run", broken)
    out, page, images = tmp_path / "kept.json", tmp_path / "page.md", tmp_path / "images"
    page.write_text(f"{BEGIN}\n{END}\n")
    places = ["--json", str(out), "--markdown", str(page), "--charts", str(images)]
    assert command.main(["overhead", "--runs", "5", *places]) == 0
    assert command.main(["history", "facts", "--size", "0.5", *places]) == 1
    assert "dbt failed" in capsys.readouterr().err
    kept = report.load(out)
    assert kept["history"].result == made("history", 0.5)
    assert kept["overhead"].result == made("overhead", 5)
    assert sorted(p.name for p in images.iterdir()) == ["bench-history.svg", "bench-overhead.svg"]
    shown = page.read_text()
    page.write_text(f"{BEGIN}\n{END}\n")
    assert command.main(["render", *places]) == 0
    assert page.read_text() == shown


def test_a_file_that_cannot_be_merged_into_is_told_of_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.history, "run", lambda *_: pytest.fail("measured"))
    (tmp_path / "kept.json").write_text("{}")
    assert command.main(["history", "--json", str(tmp_path / "kept.json")]) == 1
    assert "holds no results" in capsys.readouterr().err


def test_every_number_asked_for_is_a_measurement_of_its_own(monkeypatch):
    asked = []
    monkeypatch.setattr(
        command.ingest, "run", lambda rows, runs, known: asked.append((rows, runs)) or made(f"ingest-{rows}")
    )
    assert command.main(["ingest", "--rows", "1_000", "2_000", "--runs", "1"]) == 0
    assert asked == [(1_000, 1), (2_000, 1)]


def test_the_document_shows_what_is_kept():
    text = DOCUMENT.read_text(encoding="utf-8")
    kept = report.load(KEPT)
    for name, each in kept.items():
        assert each.result.markdown() in text, f"{name}: run `make bench-docs BENCH_ARGS=render`"
        assert f"(images/bench-{name}.svg)" in text
        for ratio in each.result.ratios:
            line = f"| {each.result.title} | {ratio.name} | {ratio.aimed} | {ratio.value:.2f} | {ratio.shown_verdict} |"
            assert (line in text) == (ratio.aim is not None)
        assert chart.path_of(each.result, IMAGES).exists()
    assert text.count("\n### ", text.index(BEGIN), text.index(END)) == len(kept)


def test_parts_of_a_dbt_run_follow_from_its_log(tmp_path):
    def event(name: str, second: int) -> str:
        at = datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC).isoformat().replace("+00:00", "Z")
        return json.dumps({"info": {"name": name, "ts": at}, "data": {}})

    begun = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    log = tmp_path / "dbt.log"
    lines = [event("AdapterRegistered", 2), event("Other", 3), event("FoundStats", 5), event("CommandCompleted", 20)]
    log.write_text("\n".join(lines) + "\n")
    assert overhead.dbt_parts(log, begun, 12.0) == {"import": 2, "parse": 3, "execute": 12.0, "between nodes": 3.0}
    log.write_text("\n".join(lines[:2]) + "\n")
    with pytest.raises(RuntimeError, match="no event FoundStats, CommandCompleted"):
        overhead.dbt_parts(log, begun, 12.0)


def test_parts_add_up_to_the_whole():
    parts = overhead.Parts(Timing("run"))
    parts.add(10.0, {"import": 2.0, "execute": 7.0})
    parts.add(11.0, {"import": 2.0, "execute": 7.0})
    assert {t.name: t.seconds for t in parts.timings} == {
        "run": [10.0, 11.0],
        "run: import": [2.0, 2.0],
        "run: execute": [7.0, 7.0],
        "run: the rest": [1.0, 2.0],
    }


# What stands for dlt where it is not installed: it takes every row, or one less.
_STAND_IN = """#!/bin/sh
echo '{"rows": %d, "seconds": 60.0, "cpu_seconds": 1.0, "version": "0.0"}'
"""


def stand_in(path: Path, rows: int) -> Path:
    path.write_text(_STAND_IN % rows)
    path.chmod(0o755)
    return path


def test_dlt_is_measured_where_it_is_and_reckoned_from_a_share(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "ROWS_PER_FILE", 1_000)
    monkeypatch.setattr(ingest, "DLT_ROWS_AT_MOST", 3_500)
    rows = iter([3_000, 6_000, 12_000])
    monkeypatch.setattr(ingest, "DLT_PYTHON", stand_in(tmp_path / "python", 0))
    load = ingest.Dlt.round

    def loaded(self: ingest.Dlt, landing: Path, expected: int, work: Path) -> None:
        stand_in(tmp_path / "python", next(rows))
        load(self, landing, expected, work)

    monkeypatch.setattr(ingest.Dlt, "round", loaded)
    known: dict[int, Timing] = {}
    result = ingest.run(6_000, 1, known)
    by_name = {t.name: t for t in result.timings}
    assert by_name["dlt: by rows (reckoned from 3,000 lines)"].seconds == [120.0]
    assert by_name["dlt: by rows (reckoned from 3,000 lines)"].reckoned
    assert not by_name["dlt: its DuckDB CSV reader"].reckoned
    assert [r.aimed for r in result.ratios] == ["3 at most", "30 at least", "1 at least"]
    # What was loaded by rows once is not loaded again for more lines.
    more = {t.name: t.seconds for t in ingest.run(12_000, 1, known).timings}
    assert more["dlt: by rows (reckoned from 3,000 lines)"] == [240.0]


def test_dlt_that_loses_a_row_stops_the_measurement(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "DLT_PYTHON", stand_in(tmp_path / "python", 99))
    with pytest.raises(RuntimeError, match="dlt took 99 of 100 rows"):
        ingest.run(100, 1)


@pytest.mark.skipif(not ingest.DLT_PYTHON.exists(), reason="needs .venv-bench, which `make bench` makes")
@pytest.mark.parametrize("mode", ["rows", "duckdb"])
def test_dlt_takes_every_row(tmp_path, mode):
    ingest.write_orders(tmp_path / "landing", 1_000)
    loader = ingest.Dlt(mode)
    loader.round(tmp_path / "landing", 1_000, tmp_path)
    assert len(loader.timing.seconds) == 1
    assert not (tmp_path / f"dlt-{mode}").exists()
