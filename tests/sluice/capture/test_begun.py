"""A capture goes on only with what its snapshot was taken of: other tables, or another prefix, want a new one."""

from __future__ import annotations

import json
import time

import pytest

from sluice.capture import backlog, resnapshot
from sluice.eventlog import Message, open_log
from tests.sluice.capture.source import CAPTURE_SECONDS, Source

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _connection(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_CDC_SHOP", source.connection)


def trouble(source: Source) -> str:
    return str(backlog(source.settings, source.capture).trouble)


def seen(source: Source, table: str, prefix: str | None = None) -> list[tuple[str | None, int | None]]:
    """Of each event of a topic its kind and the row's number."""
    return [(e.op, e.key["id"] if e.key else None) for e in source.events(table, prefix)]


def refused(source: Source) -> str:
    code, said = source.command("run", "shop", "--once")
    assert code == 1
    return said


def test_a_table_that_is_added_comes_with_the_rows_it_has(source: Source) -> None:
    for table in ("things", "others"):
        source.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY, v INT); INSERT INTO {table} VALUES (1, 1)")
    source.define("public.things")
    source.once()

    source.define("public.things", "public.others", publish=False)
    source.sql("ALTER PUBLICATION sluice_shop ADD TABLE others; INSERT INTO others VALUES (2, 2)")
    said = refused(source)
    assert "shop.yaml has public.others, which its snapshot was not taken of" in said
    assert trouble(source) in said and "`sluice capture resnapshot shop`, then run it again" in said
    assert source.events("others") == []
    resnapshot(source.settings, source.capture)
    source.once()
    assert seen(source, "others") == [("r", 1), ("r", 2)]
    assert seen(source, "things") == [("r", 1), ("t", None), ("r", 1)]

    # Left out for a while: what happens then is passed over, so that it cannot simply come back.
    source.define("public.things", publish=False)
    assert trouble(source) == "None"
    source.sql("DELETE FROM others WHERE id = 1")
    source.once()
    source.define("public.things", "public.others", publish=False)
    assert "shop.yaml has public.others, which was left out for a while" in trouble(source)
    assert "which was left out for a while" in refused(source)
    resnapshot(source.settings, source.capture)
    source.once()
    assert seen(source, "others") == [("r", 1), ("r", 2), ("t", None), ("r", 2)]


def test_a_table_in_the_place_of_another_ends_the_rows_of_that(source: Source) -> None:
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v INT); INSERT INTO things VALUES (1, 1), (2, 2)")
    source.define("public.things")
    source.once()
    # What gives the rows another file does not make it another table.
    source.sql("VACUUM FULL things")
    source.sql("TRUNCATE things; INSERT INTO things VALUES (3, 3)")
    assert trouble(source) == "None"
    source.once()
    before = [("r", 1), ("r", 2), ("t", None), ("c", 3)]
    assert seen(source, "things") == before

    source.sql("CREATE TABLE made (id INT PRIMARY KEY, v INT); INSERT INTO made VALUES (4, 4)")
    source.sql("ALTER TABLE things RENAME TO former; ALTER TABLE made RENAME TO things")
    source.sql("ALTER PUBLICATION sluice_shop ADD TABLE things; INSERT INTO things VALUES (5, 5)")
    said = refused(source)
    assert "shop.yaml has public.things, which is another table than its snapshot was taken of" in said
    assert trouble(source) in said and "`sluice capture resnapshot shop`, then run it again" in said
    assert seen(source, "things") == before
    resnapshot(source.settings, source.capture)
    source.once()
    assert seen(source, "things") == [*before, ("t", None), ("r", 4), ("r", 5)]


def test_a_run_at_work_ends_when_its_table_is_replaced(source: Source) -> None:
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v INT); INSERT INTO things VALUES (1, 1), (2, 2)")
    source.define("public.things")
    source.once()
    # As a version left it that did not note which tables they were: the next run notes those there are.
    path = source.home / "captures" / "shop" / "state.json"
    state = json.loads(path.read_text())
    number = state["begun"].pop("numbers")
    path.write_text(json.dumps(state))
    process = source.start("run", "shop")
    try:
        source.sql("INSERT INTO things VALUES (3, 3)")
        deadline = time.monotonic() + CAPTURE_SECONDS
        while len(seen(source, "things")) < 3 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert seen(source, "things") == [("r", 1), ("r", 2), ("c", 3)]
        assert json.loads(path.read_text())["begun"]["numbers"] == number
        source.sql("DROP TABLE things; CREATE TABLE things (id INT PRIMARY KEY, v INT)")
        source.sql("ALTER TABLE things REPLICA IDENTITY FULL; ALTER PUBLICATION sluice_shop ADD TABLE things")
        said, _ = process.communicate(timeout=CAPTURE_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "shop.yaml has public.things, which is another table than its snapshot was taken of" in said


def test_another_prefix_wants_a_new_snapshot_and_then_has_every_row(source: Source) -> None:
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v INT); INSERT INTO things VALUES (1, 1)")
    source.define("public.things")
    source.once()
    # Somebody else writes into the topic, and a message advises another prefix.
    open_log(source.settings).append("shop.public.things", [Message(b"{}")] * 10_000)
    said = refused(source)
    assert "holds records that no capture wrote" in said and "another topicPrefix" in said
    assert "`sluice capture resnapshot shop`" in said

    source.define("public.things", publish=False, topicPrefix="store")
    source.sql("INSERT INTO things VALUES (2, 2)")
    assert "has the topicPrefix store, and the capture was begun with shop" in trouble(source)
    assert trouble(source) in refused(source)
    # As a version left it that did not note with what it was begun: the offsets tell.
    path = source.home / "captures" / "shop" / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({key: state[key] for key in ("stage", "snapshot")}))
    assert trouble(source) == "None"
    assert "has the topicPrefix store, and the capture was begun with shop" in refused(source)

    resnapshot(source.settings, source.capture)
    source.once()
    source.sql("INSERT INTO things VALUES (3, 3)")
    source.once()
    assert seen(source, "things", "store") == [("r", 1), ("r", 2), ("c", 3)]


def test_a_capture_of_a_version_that_noted_no_tables_goes_on_with_those_it_has(source: Source) -> None:
    for table in ("things", "others"):
        source.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY, v INT); INSERT INTO {table} VALUES (1, 1)")
    source.define("public.things")
    source.once()
    path = source.home / "captures" / "shop" / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({key: state[key] for key in ("stage", "snapshot")}))
    source.sql("INSERT INTO things VALUES (2, 2)")
    source.once()
    assert seen(source, "things") == [("r", 1), ("c", 2)]
    source.define("public.things", "public.others", publish=False)
    source.sql("ALTER PUBLICATION sluice_shop ADD TABLE others")
    assert "shop.yaml has public.others, which its snapshot was not taken of" in trouble(source)
