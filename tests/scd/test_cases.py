"""The case runner: it passes what is right, fails what is wrong, and says what is unusable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sluice.scd_cases.__main__ import main
from sluice.settings import PROJECT

SHARED = PROJECT.parent / "shared" / "data" / "scd_cases"

CASE: dict[str, Any] = {
    "case": "small",
    "mode": "cdc",
    "key": ["id"],
    "sequence": "seq",
    "tracked": ["value"],
    "untracked": [],
    "deletes": "op=delete closes",
    "untracked_change": "overwrite_current",
    "valid_from_rule": "sequence",
    "batches": [
        [{"id": 1, "value": "b", "seq": 20, "op": "upsert"}],
        [{"id": 1, "value": "a", "seq": 10, "op": "upsert"}],
    ],
    "expected": [
        {"id": 1, "value": "a", "valid_from": 10, "valid_to": 20, "is_current": False},
        {"id": 1, "value": "b", "valid_from": 20, "valid_to": None, "is_current": True},
    ],
}


def written(folder: Path, *cases: dict[str, Any]) -> str:
    path = folder / "cases.jsonl"
    path.write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
    return str(path)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the cases of other systems are not beside the project: ../shared/data")
def test_the_cases_of_other_systems_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(SHARED)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert sum(line.endswith(" pass") for line in told) == 39
    assert sorted(line.split()[0] for line in told if "decided otherwise:" in line) == [
        "dbt.new_column_and_delete_counts",
        "sqlmesh.by_column",
    ]


def test_our_own_cases_pass(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).with_name("cases.jsonl")
    code = main([str(path)])
    assert code == 0, capsys.readouterr().out


def test_a_late_change_passes_and_a_wrong_expectation_fails_with_the_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = json.loads(json.dumps({**CASE, "case": "wrong"}))
    wrong["expected"][0]["valid_to"] = 19
    assert main([written(tmp_path, CASE, wrong)]) == 1
    told = capsys.readouterr().out
    small, failed = (next(line for line in told.splitlines() if line.startswith(name)) for name in ("small", "wrong"))
    assert small.endswith("pass")
    assert "FAIL" in failed
    assert '"valid_to": 19' in told
    assert '"valid_to": 20' in told


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "cases.jsonl:1"), ('{"case": "x"}\n', "mode"), (None, "nowhere")],
    ids=["broken JSON", "missing fields", "missing path"],
)
def test_unusable_input_is_told_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, told: str
) -> None:
    path = tmp_path / ("cases.jsonl" if text is not None else "nowhere")
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert main([str(path)]) == 2
    assert told in capsys.readouterr().err
