"""An API that misbehaves in every way: what is told, what is waited, and that the last good data stay.

A real server on 127.0.0.1 answers; only the clock is made up, so that no test waits. Each failure is tried on a source
that holds good data, and afterwards landing area and bronze are as they were.
"""

from __future__ import annotations

import email.utils
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3.util.connection

from sluice.arrivals import arrivals
from sluice.contracts import Contract
from sluice.errors import (
    ConfigurationError,
    LandingError,
    RestAnswerError,
    RestCircuitOpenError,
    RestRefusedError,
    RestUnavailableError,
    SluiceError,
)
from sluice.rest import Fetches, fetch, staleness
from sluice.rest.client import retry_after
from sluice.rest.secrets import Secrets
from sluice.rest.state import State
from tests import rest_server
from tests.conftest import Bench, MakeContract
from tests.rest_server import NOW, FakeClock, Reply, Server, drip, drip_head, hang, oversized, reply, reset, truncated

DAY = "2026-01-05"
GOOD = [{"id": "1", "amount": 1.5}, {"id": "2", "amount": 2.25}]
COLUMNS = {"id": {"required": True}, "amount": {"physicalType": "DECIMAL(20,10)"}}


@pytest.fixture
def server() -> Iterator[Server]:
    with rest_server.serving() as made:
        yield made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Source:
    """A contract with `rest`, a home, a clock and the server."""

    def __init__(self, bench: Bench, server: Server, make_contract: MakeContract, clock: FakeClock) -> None:
        self.bench, self.server, self.clock, self._make = bench, server, clock, make_contract

    def contract(self, **rest: Any) -> Contract:
        given = {"url": f"{self.server.url}/things/{{date}}", "rows": "rows", "retries": {"attempts": 3, "jitter": 0}}
        return self._make(COLUMNS, formats=["jsonl"], rest=given | rest, latency=36)

    def fetch(self, *script: Reply, days: tuple[str, ...] = (DAY,), **rest: Any) -> Fetches:
        self.server.script = list(script)
        self.server.paths.clear()
        self.server.headers.clear()
        self.clock.slept.clear()
        return fetch(
            self.bench.settings, self.contract(**rest), days, clock=self.clock, secrets=Secrets(dict(os.environ))
        )

    def files(self) -> dict[str, bytes]:
        """Everything below the landing area, files in flight included."""
        root = self.bench.landing
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def source(bench: Bench, server: Server, make_contract: MakeContract, clock: FakeClock) -> Source:
    return Source(bench, server, make_contract, clock)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A home for all ways to fail: each leaves it as it was, and ingest takes a second or two."""
    bench = Bench(tmp_path_factory.mktemp("filled") / "home")
    yield bench
    bench.close()


def the_failure(done: Fetches) -> SluiceError:
    ((_, error),) = done.failed
    return error


def test_an_answer_becomes_a_landing_file_and_its_rows_bronze(source: Source) -> None:
    done = source.fetch(reply({"rows": GOOD}))
    assert done.good and (done.fetched[0].rows, done.fetched[0].changed, done.fetched[0].requests) == (2, True, 1)
    assert source.server.paths == [f"/things/{DAY}"]
    assert source.files() == {f"things/date={DAY}/things.jsonl": b'{"id":"1","amount":1.5}\n{"id":"2","amount":2.25}\n'}
    source.bench.ingest(source.contract())
    assert source.bench.sql("SELECT id, amount::VARCHAR, date::VARCHAR FROM bronze.things ORDER BY id") == [
        ("1", "1.5000000000", DAY), ("2", "2.2500000000", DAY),
    ]  # fmt: skip


def test_the_same_answer_again_touches_no_file_and_a_new_one_replaces_it(source: Source) -> None:
    source.fetch(reply({"rows": GOOD}))
    (path,) = source.bench.landing.rglob("*.jsonl")
    before = path.stat().st_mtime_ns
    assert not source.fetch(reply({"rows": GOOD})).fetched[0].changed
    assert path.stat().st_mtime_ns == before
    assert source.fetch(reply({"rows": GOOD[:1]})).fetched[0].changed
    assert source.files()[f"things/date={DAY}/things.jsonl"] == b'{"id":"1","amount":1.5}\n'


def test_digits_doubled_keys_and_odd_text_come_through_as_they_were(source: Source) -> None:
    rows = r'[{"id":"\u00e9\ud83d\ude00","amount":1234567890.1234567891},{"id":"a","id":"b"},{"id":"\ud800"},7]'
    assert source.fetch(reply('{"rows": ' + rows + "}")).good
    text = source.files()[f"things/date={DAY}/things.jsonl"].decode()
    # More digits than a double has are kept as text.
    assert text == '{"id":"é😀","amount":"1234567890.1234567891"}\n{"id":"a","id":"b"}\n{"id":"\\ud800"}\n7\n'
    source.bench.ingest(source.contract())
    assert source.bench.sql("SELECT amount::VARCHAR FROM bronze.things") == [("1234567890.1234567891",)]
    assert [line for _, line, _, _ in source.bench.letters("things")] == [2, 3, 4]


REFUSED, UNAVAILABLE, ANSWER = RestRefusedError, RestUnavailableError, RestAnswerError
QUICK = {"timeouts": {"read": 0.2, "total": 20}}
NEXT = {"kind": "cursor", "path": "next", "param": "cursor"}


@pytest.mark.parametrize(
    ("script", "rest", "error", "words", "tries"),
    [
        ([reply({}, 500)], {}, UNAVAILABLE, "answers 500", 3),
        ([reply({}, 503)], {}, UNAVAILABLE, "answers 503", 3),
        ([reply({}, 408)], {}, UNAVAILABLE, "answers 408", 3),
        ([reply({}, 425)], {}, UNAVAILABLE, "answers 425", 3),
        ([reply({}, 429)], {}, UNAVAILABLE, "answers 429", 3),
        ([hang], QUICK, UNAVAILABLE, "nothing came in time", 3),
        # Long enough for a busy machine to connect: what is meant is an answer that never ends.
        ([drip], {"timeouts": {"total": 3}}, UNAVAILABLE, "not fetched within 3 s", 1),
        ([drip_head], {"timeouts": {"total": 3}}, UNAVAILABLE, "not fetched within 3 s", 1),
        ([truncated({"rows": GOOD})], {}, UNAVAILABLE, "broke off", 3),
        ([reset], {}, UNAVAILABLE, "connection was lost", 3),
        ([reply('{"rows": [{"id": ')], {}, UNAVAILABLE, "no whole JSON", 3),
        ([reply('{"rows": [NaN]}')], {}, UNAVAILABLE, "no whole JSON", 3),
        ([reply("no gzip at all", Content_Encoding="gzip")], {}, UNAVAILABLE, "cannot be unpacked", 3),
        ([reply('{"rows": ' + "[" * 100_000)], {}, ANSWER, "nested too deep", 1),
        # What the parser reads and a writer that goes level by level cannot.
        ([reply('{"rows": [{"x": ' + "[" * 500 + "]" * 500 + "}]}")], {}, ANSWER, "nested too deep", 1),
        ([reply("<html>", Content_Type="text/html")], {}, ANSWER, "'text/html' instead of JSON", 1),
        ([reply({}, 401)], {}, REFUSED, "expired. Renew what the contract sends", 1),
        ([reply({}, 403)], {}, REFUSED, "answers 403", 1),
        ([reply({}, 404)], {}, REFUSED, "whether the API has this day", 1),
        ([reply({}, 400)], {}, REFUSED, "does not understand", 1),
        ([reply({}, 410)], {}, REFUSED, "gone for good", 1),
        ([reply({}, 304)], {}, REFUSED, "answers 304", 1),
        ([reply({"rows": GOOD}, 206)], {}, REFUSED, "answers 206", 1),
        ([reply({"rows": []})], {}, ANSWER, "no rows for 2026-01-05 any more", 1),
        ([reply({}, 204)], {}, ANSWER, "no rows for 2026-01-05 any more", 1),
        ([reply({"rows": []})], {"empty": "allow"}, ANSWER, "no rows for 2026-01-05 any more", 1),
        ([reply({"error": "sorry"})], {}, ANSWER, "no list of rows at rows (error)", 1),
        ([reply({"rows": None})], {}, ANSWER, "no list of rows", 1),
        ([reply({"rows": {"id": 1}})], {}, ANSWER, "no list of rows", 1),
        ([reply([1])], {}, ANSWER, "no object", 1),
        ([oversized], {"limits": {"bytes": 100_000}}, ANSWER, "more than 100000 bytes", 1),
        ([reply({"rows": ["x" * 200]})], {"limits": {"bytes": 100}}, ANSWER, "more than 100 bytes", 1),
        ([reply({"rows": GOOD, "next": "a"})], {"pagination": NEXT}, ANSWER, "very rows of page 1", 2),
        (
            [reply({"rows": GOOD, "next": "a"}), reply({"rows": [1], "next": "a"})],
            {"pagination": NEXT}, ANSWER, "has given before", 2,
        ),
        (
            [lambda h: reply({"rows": [(i := len(h.server.paths))], "next": i})(h)],
            {"pagination": NEXT, "limits": {"pages": 4}}, ANSWER, "more than 4 pages", 4,
        ),
        ([reply({"rows": GOOD, "next": {"a": 1}})], {"pagination": NEXT}, ANSWER, "leads to no next page", 1),
        (
            [reply({"rows": GOOD, "next": "a"}), reply({}, 404)],
            {"pagination": NEXT}, REFUSED, "nothing at this address", 2,
        ),
        (
            [reply({"rows": GOOD, "next": "a", "total": 9}), reply({"rows": [1], "total": 9})],
            {"pagination": NEXT | {"total": "total"}}, ANSWER, "says there are 9 rows and gave 3", 2,
        ),
        (
            [reply({"rows": GOOD, "next": "a", "total": 3}), reply({"rows": [1], "total": 4})],
            {"pagination": NEXT | {"total": "total"}}, ANSWER, "changed while they were read", 2,
        ),
        ([reply({"rows": GOOD})], {"pagination": NEXT | {"total": "total"}}, ANSWER, "does not say at total", 1),
        ([reply({}, 302, Location="/again")], {}, ANSWER, "redirects more than 5 times", 6),
        ([reply({}, 302)], {}, ANSWER, "redirects to nowhere", 1),
        ([reply({}, 302, Location="http://localhost:1/x")], {}, REFUSED, "redirects to http://localhost:1", 1),
        ([reply({}, 302, Location="file:///etc/passwd")], {}, ANSWER, "redirects to nowhere", 1),
        (
            [reply({"rows": GOOD, "next": "http://localhost:1/x"})],
            {"pagination": {"kind": "next_link", "path": "next"}}, ANSWER, "leads to another host, localhost", 1,
        ),
    ],
)  # fmt: skip
def test_whatever_goes_wrong_the_last_good_data_stay(
    filled: Bench, source: Source,
    script: list[Reply], rest: dict[str, Any], error: type[SluiceError], words: str, tries: int,
) -> None:  # fmt: skip
    source.bench = filled
    State.of(filled.settings).reset("things")
    assert source.fetch(reply({"rows": GOOD})).good
    if arrivals(filled.lake, source.contract()).pending:
        filled.ingest(source.contract())
    before, bronze = source.files(), source.bench.bronze("things")
    done = source.fetch(*script, **rest)
    found = the_failure(done)
    assert type(found) is error and words in str(found)
    assert len(source.server.paths) == tries
    assert source.files() == before
    assert arrivals(filled.lake, source.contract()).pending == {}
    assert filled.bronze("things") == bronze and len(bronze) == 2
    told = staleness(source.bench.settings, source.contract(), source.clock)
    assert told.stale and told.told.startswith("stale since 2026-01-12") and "the last good data stay" in told.told
    # And it heals by itself.
    assert source.fetch(reply({"rows": GOOD})).good
    assert not staleness(source.bench.settings, source.contract(), source.clock).stale


def test_time_that_is_over_while_a_connection_is_made_is_over(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = urllib3.util.connection.create_connection

    def late(*args: Any, **given: Any) -> Any:
        time.sleep(1)
        return connect(*args, **given)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", late)
    # Which drips as long as it is read.
    found = the_failure(source.fetch(drip, timeouts={"total": 0.5}))
    assert type(found) is UNAVAILABLE and "not fetched within 0.5 s" in str(found)


def test_time_that_is_over_while_a_proxy_lets_through_is_over(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    with rest_server.slow_proxy() as address:
        monkeypatch.setenv("HTTPS_PROXY", address)
        found = the_failure(source.fetch(url="https://api.example/x", timeouts={"total": 3}))
    assert type(found) is UNAVAILABLE and "not fetched within 3 s" in str(found)


def test_a_first_answer_without_rows_is_no_empty_file(source: Source) -> None:
    assert "set rest.empty: allow" in str(the_failure(source.fetch(reply({"rows": []}))))
    assert source.fetch(reply({"rows": []}), empty="allow").fetched[0].rows == 0
    assert source.files() == {} and not (source.bench.landing / f"things/date={DAY}").exists()


def test_nobody_listens(source: Source) -> None:
    with rest_server.serving() as gone:
        url = gone.url
    found = the_failure(source.fetch(reply({}), url=f"{url}/x"))
    assert type(found) is RestUnavailableError and "Connection refused" in str(found)
    assert source.clock.slept == [1.0, 2.0]


def test_tries_double_the_wait_up_to_a_bound_with_some_chance_in_it(source: Source) -> None:
    source.fetch(
        reply({}, 500), retries={"attempts": 6, "initial": 2, "maximum": 9, "jitter": 0}, breaker={"failures": 9}
    )
    assert source.clock.slept == [2.0, 4.0, 8.0, 9.0, 9.0]
    source.fetch(reply({}, 500), retries={"attempts": 3, "initial": 2, "jitter": 1}, breaker={"failures": 99})
    first, second = source.clock.slept
    assert 2 <= first <= 3 and 4 <= second <= 5 and (first, second) != (2, 4)


def test_a_try_that_succeeds_ends_the_tries(source: Source) -> None:
    done = source.fetch(reply({}, 502), reset, reply({"rows": GOOD}))
    assert done.good and done.fetched[0].requests == 3 and source.clock.slept == [1.0, 2.0]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_what_a_server_asks_to_wait_is_waited(source: Source, status: int, form: str) -> None:
    asked = "17" if form == "seconds" else email.utils.formatdate(NOW + 17, usegmt=True)
    done = source.fetch(reply({}, status, Retry_After=asked), reply({"rows": GOOD}))
    assert done.good and sum(source.clock.slept) == pytest.approx(17, abs=0.01)


def test_who_is_asked_to_wait_too_long_gives_up_at_once_and_so_does_the_next(source: Source) -> None:
    found = the_failure(source.fetch(reply({}, 429, Retry_After="3600")))
    assert "left alone for 3600 s" in str(found) and source.clock.slept == []
    held = the_failure(source.fetch(reply({"rows": GOOD})))
    assert type(held) is RestCircuitOpenError and "no sooner than in 3600 s" in str(held)
    assert source.server.paths == []
    source.clock.sleep(3600)
    assert source.fetch(reply({"rows": GOOD})).good


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("12", 12), (" 0 ", 0), ("-1", None), ("soon", None), (None, None), ("9" * 400, 86_400), ("1.5", None),
     ("99999999999", 86_400), ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
     (email.utils.formatdate(NOW - 60, usegmt=True), 0), (email.utils.formatdate(NOW + 90, usegmt=True), 90)],
)  # fmt: skip
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


def test_a_server_that_asks_for_three_thousand_years_is_asked_again_after_a_day(source: Source) -> None:
    source.fetch(reply({}, 429, Retry_After="99999999999"))
    source.clock.sleep(86_000)
    held = the_failure(source.fetch(reply({"rows": GOOD})))
    assert type(held) is RestCircuitOpenError and source.server.paths == []
    source.clock.sleep(400)
    assert source.fetch(reply({"rows": GOOD})).good


def nested(levels: int) -> str:
    """An answer of so many levels, a list and an object and lists in it."""
    return '{"rows": [{"id": "1", "x": ' + "[" * (levels - 3) + "]" * (levels - 3) + "}]}"


def test_an_answer_nested_too_deep_stops_no_other_day(source: Source) -> None:
    days = ("2026-01-01", "2026-01-02")
    done = source.fetch(reply(nested(101)), reply(nested(100)), days=days)
    assert [key for key, _ in done.failed] == ["2026-01-01"] and not done.untried
    assert [(one.partition_key, one.rows) for one in done.fetched] == [("2026-01-02", 1)]
    assert "by more than 100 levels" in str(the_failure(done))


def test_requests_keep_the_pace_over_partitions(source: Source) -> None:
    days = tuple(f"2026-01-0{n}" for n in range(1, 6))
    assert source.fetch(reply({"rows": GOOD}), days=days, rate=0.5).good
    assert source.clock.slept == [2.0] * 4


def rows_of(*numbers: int) -> list[dict[str, str]]:
    return [{"id": str(n)} for n in numbers]


@pytest.mark.parametrize(
    ("pagination", "script", "queries"),
    [
        ({"kind": "next_link", "path": "links.next"},
         [reply({"rows": rows_of(1, 2), "links": {"next": "?p=2"}}),
          reply({"rows": rows_of(3), "links": {"next": None}})], ["", "p=2"]),
        ({"kind": "link_header"},
         [reply({"rows": rows_of(1, 2)}, Link='</things/x?p=2>; rel="next"'), reply({"rows": rows_of(3)})],
         ["", "p=2"]),
        (NEXT, [reply({"rows": rows_of(1, 2), "next": 7}), reply({"rows": rows_of(3), "next": ""})], ["", "cursor=7"]),
        ({"kind": "page", "param": "page", "size": 2, "sizeParam": "n"},
         # The second page is short, and not the last.
         [reply({"rows": rows_of(1, 2)}), reply({"rows": rows_of(3)}), reply({"rows": []})],
         ["n=2&page=1", "n=2&page=2", "n=2&page=3"]),
        ({"kind": "page", "param": "page", "size": 2, "sizeParam": "n", "end": "short"},
         [reply({"rows": rows_of(1, 2)}), reply({"rows": rows_of(3)})], ["n=2&page=1", "n=2&page=2"]),
        ({"kind": "page", "param": "p", "first": 0, "total": "total"},
         [reply({"rows": rows_of(1, 2), "total": 3}), reply({"rows": rows_of(3), "total": "3"})], ["p=0", "p=1"]),
        ({"kind": "offset", "param": "from", "size": 100, "sizeParam": "n"},
         # The server gives fewer than asked for: the offset goes by what came.
         [reply({"rows": rows_of(1, 2)}), reply({"rows": rows_of(3)}), reply({"rows": []})],
         ["n=100&from=0", "n=100&from=2", "n=100&from=3"]),
    ],
)  # fmt: skip
def test_every_kind_of_pagination_takes_all_pages(
    source: Source, pagination: dict[str, Any], script: list[Reply], queries: list[str]
) -> None:
    done = source.fetch(*script, pagination=pagination)
    assert done.good and done.fetched[0].rows == 3, done.failed
    assert [path.partition("?")[2] for path in source.server.paths] == queries
    assert list(source.files().values()) == [b'{"id":"1"}\n{"id":"2"}\n{"id":"3"}\n']


def test_another_host_that_the_contract_names_gets_no_credentials(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_TOKEN", "quince-jelly-41")
    headers = {"Authorization": "Bearer ${THE_TOKEN}"}
    with rest_server.serving() as other:
        other.script = [reply({"rows": GOOD})]
        away = reply({}, 307, Location=f"http://localhost:{other.server_port}/elsewhere")
        allowed = [f"localhost:{other.server_port}"]
        done = source.fetch(away, headers=headers, redirectHosts=allowed)
        assert done.good, done.failed
        assert source.server.headers[0]["Authorization"] == "Bearer quince-jelly-41"
        assert "Authorization" not in other.headers[0] and "quince" not in str(other.headers) + str(other.paths)
    # On its own host they go along.
    assert source.fetch(reply({}, 308, Location="/moved"), reply({"rows": GOOD}), headers=headers).good
    assert [h["Authorization"] for h in source.server.headers] == ["Bearer quince-jelly-41"] * 2


def test_neither_netrc_nor_cookies_say_who_asks(source: Source, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password medlar\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    script = [reply({}, 302, Location="/next", Set_Cookie="session=1"), reply({"rows": GOOD})]
    assert source.fetch(*script).good
    assert not {"Authorization", "Cookie"} & {name for headers in source.server.headers for name in headers}


def test_what_is_refused_to_everybody_is_asked_once_and_a_missing_day_stops_no_other(source: Source) -> None:
    days = ("2026-01-01", "2026-01-02", "2026-01-03")
    done = source.fetch(reply({}, 401), days=days)
    assert [key for key, _ in done.failed] == ["2026-01-01"] and done.untried == list(days[1:])
    assert len(source.server.paths) == 1
    failing = staleness(source.bench.settings, source.contract(), source.clock).failing
    assert [row.partition_key for row in failing] == list(days)
    done = source.fetch(reply({}, 404), reply({"rows": GOOD}), days=days)
    assert [key for key, _ in done.failed] == ["2026-01-01"] and len(done.fetched) == 2 and not done.untried


def test_a_dead_api_is_asked_a_few_times_however_many_days_are_wanted(source: Source) -> None:
    days = tuple(f"2026-01-{n:02}" for n in range(1, 31))
    done = source.fetch(reply({}, 500), days=days)
    assert len(source.server.paths) == 5
    assert isinstance(done.failed[-1][1], RestCircuitOpenError)
    assert "The last failure: " in str(done.failed[-1][1]) and "answers 500" in str(done.failed[-1][1])


def test_a_fetch_that_was_killed_leaves_nothing_and_one_under_way_is_left_alone(source: Source) -> None:
    folder = source.bench.landing / f"things/date={DAY}"
    folder.mkdir(parents=True)
    left, busy = folder / ".things.jsonl.dead.tmp", folder / ".things.jsonl.alive.tmp"
    left.write_text("somebody's data")
    with busy.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert source.fetch(reply({"rows": GOOD})).good
        assert not left.exists() and busy.exists()


def test_a_file_too_large_for_ingest_is_not_written(
    make_bench: Any, server: Server, make_contract: MakeContract
) -> None:
    source = Source(make_bench("small", file_bytes=50), server, make_contract, FakeClock())
    assert "SLUICE_FILE_BYTES" in str(the_failure(source.fetch(reply({"rows": rows_of(*range(20))}))))
    assert source.files() == {}


def test_a_landing_area_that_is_gone_is_not_made(source: Source) -> None:
    source.bench.landing.rmdir()
    with pytest.raises(LandingError, match="mount it"):
        source.fetch(reply({"rows": GOOD}))
    assert not source.bench.landing.exists()


def test_a_contract_without_rest_is_not_fetched(source: Source, make_contract: MakeContract) -> None:
    with pytest.raises(ConfigurationError, match="no customProperty `rest`"):
        fetch(source.bench.settings, make_contract(COLUMNS), [DAY])


def test_regions_are_partitions_of_their_own(source: Source) -> None:
    def contract(**rest: Any) -> Contract:
        given = {"url": f"{source.server.url}/{{region}}/{{date}}", "rows": "rows", "params": {"r": "{region}"}}
        path = {"path": "things/region={region}/date={date}", "partitions": {"region": ["uk", "eu"]}}
        return source._make({"id": {}}, formats=["jsonl"], rest=given | rest, **path)

    source.contract = contract  # type: ignore[method-assign]
    assert source.fetch(reply({"rows": GOOD}), days=(f"{DAY}|uk",)).good
    assert source.server.paths == [f"/uk/{DAY}?r=uk"]
    assert list(source.files()) == [f"things/region=uk/date={DAY}/things.jsonl"]


def test_it_is_stale_when_it_was_not_fetched_for_longer_than_its_latency(source: Source) -> None:
    settings, contract = source.bench.settings, source.contract()
    assert staleness(settings, contract, source.clock).told == "never fetched"
    source.fetch(reply({"rows": GOOD}))
    source.clock.sleep(36 * 3600)
    assert not staleness(settings, contract, source.clock).stale
    source.clock.sleep(1800)
    told = staleness(settings, contract, source.clock)
    assert told.since is not None and told.since.timestamp() == NOW + 36 * 3600
    assert told.age_hours == pytest.approx(36.5)
