"""What is wrong is told before anything is captured, and by whom it is mended; secrets are told nowhere."""

from __future__ import annotations

import json
import signal
import time

import pytest

from sluice.capture import backlog, load_captures
from sluice.capture.progress import HEADER, Position
from sluice.errors import ConfigurationError
from sluice.eventlog import Message, open_log
from tests.postgres import PASSWORD
from tests.sluice.capture.source import CAPTURE_SECONDS, Source

pytestmark = pytest.mark.slow


def test_a_role_with_least_rights_suffices(source: Source) -> None:
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v INT); CREATE TABLE others (id INT PRIMARY KEY)")
    role = f"reader_{abs(hash(source.database)) % 10**6}"
    source.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; REVOKE ALL ON SCHEMA public FROM PUBLIC")
    source.define("public.things", publish=False, full=False)
    connection = f"{source.server.connection(source.database, role)} password={PASSWORD}"
    code, said = source.command("run", "shop", "--once", connection=connection)
    assert code == 1 and PASSWORD not in said
    assert f'ALTER ROLE "{role}" REPLICATION;' in said
    assert 'CREATE PUBLICATION "sluice_shop" FOR TABLE "public"."things";' in said
    assert 'GRANT SELECT ON "public"."things"' in said
    assert "stored out of line" not in said
    source.sql(f"ALTER ROLE {role} REPLICATION; GRANT USAGE ON SCHEMA public TO {role}")
    source.sql(f"GRANT SELECT ON things TO {role}; CREATE PUBLICATION sluice_shop FOR TABLE others")
    code, said = source.command("run", "shop", "--once", connection=connection)
    assert code == 1 and 'ALTER PUBLICATION "sluice_shop" ADD TABLE "public"."things";' in said
    source.sql("ALTER PUBLICATION sluice_shop ADD TABLE things")
    source.sql("INSERT INTO things VALUES (1, 1)")
    code, said = source.command("run", "shop", "--once", connection=connection)
    assert code == 0, said
    assert [e.op for e in source.events("things")] == ["r"]

    # Whatever was written and said: the password is nowhere.
    for path in source.home.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path

    code, said = source.command("status", connection=connection)
    assert code == 0
    assert "shop: streaming, not running" in said and f"slot {source.slot}: confirmed" in said
    assert "topic shop.public.things: 1 record, last captured" in said

    wrong = connection.replace(PASSWORD, "no-such-secret")
    code, said = source.command("run", "shop", "--once", connection=wrong)
    assert code == 1 and "password authentication failed" in said and "no-such-secret" not in said


def test_without_the_database_what_is_here_is_told(source: Source) -> None:
    source.define("public.things", publish=False, full=False)
    log = open_log(source.settings)
    log.create("shop.public.things", 1)
    place = Position(120, 3)
    log.append("shop.public.things", [Message(b"{}", None, 1_767_225_600_000, ((HEADER, place.encode()),))])
    nobody = f"dbname=shop host=127.0.0.1 port=1 user=sluice password={PASSWORD}"
    code, said = source.command("status", connection=nobody)
    assert code == 1 and PASSWORD not in said
    assert "shop: new, not running" in said and f"slot {source.slot}: not known" in said
    assert "topic shop.public.things: 1 record, last captured 2026-01-01 00:00:00 UTC at 120/3" in said
    assert "cannot be reached: " in said


def test_a_publication_of_some_rows_or_columns_is_refused(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_CDC_SHOP", source.connection)
    if source.sql("SELECT current_setting('server_version_num')::int >= 150000") == ["f"]:
        pytest.skip("PostgreSQL has neither before 15")
    source.define("public.things", "public.few", "public.whole", publish=False, full=False)
    for table in ("things", "few", "whole"):
        source.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY, v INT)")
    source.sql("CREATE PUBLICATION sluice_shop FOR TABLE things WHERE (id < 100), few (id), whole")

    def trouble() -> str | None:
        return backlog(source.settings, source.capture).trouble

    found = str(trouble())
    assert "has public.things with a row filter" in found and "has public.few with a column list" in found
    assert "whole" not in found and "resnapshot" not in found
    code, said = source.command("run", "shop", "--once")
    assert code == 1 and found in said
    for line in found.splitlines():
        if "BEGIN;" in line:
            source.sql(line[line.index("BEGIN;") :])
    assert trouble() is None
    source.once()
    # While it streams changes were left out, and no SQL brings them back.
    source.sql("ALTER PUBLICATION sluice_shop SET TABLE things (id, v) WHERE (id < 100), few, whole")
    found = str(backlog(source.settings, source.capture).trouble)
    assert "things with a row filter and a column list" in found and "`sluice capture resnapshot shop`" in found


def test_one_at_a_time_and_stopped_by_a_signal(source: Source) -> None:
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v INT); INSERT INTO things VALUES (1, 1)")
    source.define("public.things")
    process = source.start("run", "shop")
    end = time.monotonic() + CAPTURE_SECONDS
    while not source.events("things"):
        assert time.monotonic() < end
        time.sleep(0.2)
    code, said = source.command("run", "shop")
    assert code == 1 and "runs already" in said
    assert "shop: streaming, running" in source.command("status", "shop")[1]
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=CAPTURE_SECONDS)
    assert process.returncode == 0, said
    assert "shop: 1 event captured, 0 had been before" in said


def test_a_slot_of_somebody_else_is_left_alone(source: Source) -> None:
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v INT)")
    source.define("public.things")
    source.sql(f"SELECT pg_create_logical_replication_slot('{source.slot}', 'pgoutput')")
    code, said = source.command("run", "shop", "--once")
    assert code == 1 and "this capture has not made it" in said
    assert source.sql(f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{source.slot}'") == ["1"]


def test_a_slot_made_anew_or_moved_on_is_noticed(source: Source) -> None:
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v INT)")
    source.define("public.things")
    source.sql("INSERT INTO things VALUES (1, 1)")
    source.once()
    source.sql("INSERT INTO things VALUES (2, 2)")
    source.sql(f"SELECT pg_replication_slot_advance('{source.slot}', pg_current_wal_lsn())")
    code, said = source.command("run", "shop", "--once")
    assert code == 1 and "past what was captured" in said and "sluice capture resnapshot shop" in said
    source.command("resnapshot", "shop")
    source.once()
    assert [e.op for e in source.events("things")] == ["r", "t", "r", "r"]


def test_a_new_snapshot_of_empty_tables_ends_what_they_held(source: Source) -> None:
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v INT); INSERT INTO things VALUES (1, 1)")
    source.define("public.things")
    source.once()
    source.command("resnapshot", "shop")
    source.sql("DELETE FROM things")
    source.once()
    source.sql("INSERT INTO things VALUES (2, 2)")
    source.once()
    events = source.events("things")
    assert [e.op for e in events] == ["r", "t", "c"]
    assert [e.place for e in events] == sorted(e.place for e in events)


@pytest.mark.parametrize("left", ["half of it", "nothing"])
def test_killed_while_offsets_were_written_it_goes_on_from_those_before(source: Source, left: str) -> None:
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v INT); INSERT INTO things VALUES (1, 1)")
    source.define("public.things")
    source.once()
    offsets = source.home / "captures" / "shop" / "offsets.dat"
    whole = offsets.read_bytes()
    offsets.write_bytes(whole[: len(whole) // 2] if left == "half of it" else b"")
    source.sql("INSERT INTO things VALUES (2, 2)")
    source.once()
    assert [(e.key["id"], e.op) for e in source.events("things")] == [(1, "r"), (2, "c")]


def test_captures_are_checked(source: Source) -> None:
    folder = source.home / "definitions"
    folder.mkdir(parents=True)
    path = folder / "shop.yaml"
    for given, words in (
        ({}, "tables must list the tables"),
        ({"tables": ["customers"]}, "a table is <schema>.<table>"),
        ({"tables": ["a.b", "a.b"]}, "names one table twice"),
        ({"tables": ["a.b"], "tabels": []}, "Did you mean 'tables'?"),
        ({"tables": ["a.b"], "connection": "host=x password=y"}, "must be the name of an environment variable"),
        ({"tables": ["a.b"], "slot": "Upper"}, "slot 'Upper' is no name"),
        ({"tables": ["a.b"], "partitions": 0}, "a number from 1 to 1000"),
        ({"tables": ["a.b"], "properties": {"offset.storage": "x"}}, "which Sluice sets itself"),
    ):
        path.write_text(json.dumps(given))
        with pytest.raises(ConfigurationError) as caught:
            load_captures(source.settings)
        assert words in str(caught.value) and str(path) in str(caught.value)
    path.write_text(json.dumps({"tables": ["a.b"], "slot": "one"}))
    (folder / "copy.yaml").write_text(json.dumps({"tables": ["a.b"], "topicPrefix": "shop"}))
    with pytest.raises(ConfigurationError, match="have the same slot or the same topicPrefix"):
        load_captures(source.settings)
