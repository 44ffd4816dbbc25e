"""A capture's file that is nonsense is refused in words, none of its own: it may hold what should be in no file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sluice.capture import Capture, load_captures
from sluice.capture.engine import properties
from sluice.errors import ConfigurationError
from sluice.settings import load_settings


def refusal(folder: Path, text: str) -> str:
    """Why a file with this text is refused."""
    (folder / "shop.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_captures(load_settings(home=folder / "home", captures=folder))
    assert caught.value.__cause__ is None, "it would be shown with its text"
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tables: [public.a]\nslot: 2026-13-45\n", "a date that no calendar has"),
        (f"tables: [public.a]\npartitions: {'9' * 5_000}\n", "a number of thousands of digits"),
        (f"tables: [public.a]\npartitions: 0x{'f' * 5_000}\n", "a number of thousands of digits"),
        (f"tables: {'[' * 3_000}", "nested too deep"),
        ("tables: [public.a\n", "is not valid YAML at line 2, column 1. Mend it there."),
    ],
)
def test_what_yaml_trips_over_is_refused(tmp_path: Path, text: str, words: str) -> None:
    said = refusal(tmp_path, text)
    assert words in said and str(tmp_path / "shop.yaml") in said and "docs/cdc.md" in said and len(said) < 500


@pytest.mark.parametrize(
    "line",
    [
        "connection: postgresql://u:hunter2@db/shop password: hunter2",
        "connection: *hunter2",
        "connection: !hunter2 x",
        "connection: postgresql://u:hunter2@db/shop",
        'connection: "hunter2',
    ],
)
def test_a_connection_in_the_file_is_not_told(tmp_path: Path, line: str) -> None:
    assert "hunter2" not in refusal(tmp_path, f"tables: [public.a]\n{line}\n")


def test_what_sluice_sets_is_its_own(tmp_path: Path) -> None:
    capture = Capture("shop", "SLUICE_CDC_SHOP", (("public", "a"),), "shop", "p", "s", 1, ())
    own = properties(capture, "host=h dbname=d user=u sslmode=require", "", tmp_path / "offsets.dat")
    for name in own:
        assert "which Sluice sets itself" in refusal(
            tmp_path, json.dumps({"tables": ["public.a"], "properties": {name: "x"}})
        ), name


@pytest.mark.parametrize(
    "name",
    [
        # By each of these events could be left out, or their order or places be others.
        "event.processing.failure.handling.mode",
        "event.converting.failure.handling.mode",
        "errors.max.retries",
        "errors.tolerance",
        "snapshot.include.collection.list",
        "snapshot.select.statement.overrides",
        "message.prefix.exclude.list",
        "schema.exclude.list",
        "transforms",
        "topic.transaction",
        "topic.heartbeat.prefix",
        "flush.lsn.source",
        "unavailable.value.placeholder",
        "value.converter",
        "driver.password",
    ],
)
def test_what_sluice_relies_on_cannot_be_set(tmp_path: Path, name: str) -> None:
    said = refusal(tmp_path, json.dumps({"tables": ["public.a"], "properties": {name: "skip"}}))
    assert repr(name) in said and "which Sluice sets itself or relies on" in said


def test_other_properties_are_debeziums(tmp_path: Path) -> None:
    given = {"interval.handling.mode": "string", "snapshot.fetch.size": 100, "column.mask.hash.x": True}
    (tmp_path / "shop.yaml").write_text(json.dumps({"tables": ["public.a"], "properties": given}))
    [capture] = load_captures(load_settings(home=tmp_path / "home", captures=tmp_path)).values()
    assert dict(capture.properties) == {
        "interval.handling.mode": "string",
        "snapshot.fetch.size": "100",
        "column.mask.hash.x": "true",
    }
