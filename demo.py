"""`make demo`: load a landing area from nothing to a published warehouse, through Dagster, and say what came of it.

Without a landing area it has the simulated shop write one. It runs the very jobs the UI runs, on the same instance, so
that `make dev` afterwards shows everything it did. Nothing is computed here that a pipeline needs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sluice.contracts import Contract, load_contracts
from sluice.errors import LandingError, SluiceError
from sluice.landing import scan
from sluice.settings import HOME_SETTINGS, PROJECT, Settings, load_settings

if TYPE_CHECKING:
    from sluice.eventlog import Message

SHOP_START = date(2026, 1, 1)

# What dbt says line by line goes here.
DEMO_LOG = "demo.log"

# Who the demo is in the books, when it mends a dead letter.
DEMO_NAME = "demo"

# Where contracts/exchange_rates.odcs.yaml looks for the API's address.
RATES_URL = "RATES_API_URL"

# A number with a decimal comma: what was meant is plain, whatever the column.
_DECIMAL_COMMA = re.compile(r"\d+,\d+")

# Dead letters looked at to find one that the demo can mend.
_LOOKED_AT = 1_000

# Where the simulated shop's visitors are on the day after its files end.
EVENTS_TOPIC = "shop.events"

# The console gets the report; every event is in the instance, for the UI.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Outcome:
    """What the runs did, as far as the lake itself does not tell.

    `repaired`: id, wrong and right value of a letter. `live`: events streamed since the publication, sessions as
    published, and sessions as the live view had them.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    repaired: tuple[str, str, str] | None = None
    live: tuple[int, int, int] | None = None
    passed: int = 0
    warned: int = 0
    failed: list[str] = field(default_factory=list)

    def took(self, layer: str, seconds: float) -> None:
        """Add to a layer's time."""
        self.seconds[layer] = self.seconds.get(layer, 0.0) + seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="demo", description="Load a landing area, end to end.")
    parser.add_argument("--landing", type=Path, help="a landing area; a simulated shop's when left out")
    parser.add_argument("--days", type=int, default=30, help="days the simulated shop trades")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the simulated shop")
    parser.add_argument("--seed", type=int, default=7, help="seed of the simulated shop")
    chosen = parser.parse_args(arguments)
    try:
        return _demo(chosen)
    except (SluiceError, ValueError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _demo(chosen: argparse.Namespace) -> int:
    started = time.perf_counter()
    outcome = Outcome()
    end: date | None
    if chosen.landing is None:
        settings = load_settings()
        landing = settings.home / "landing"
        from sluice.simulation import generate
        from sluice.simulation.live import live_events

        # What is fetched lands there, too, and is none of the shop's files.
        fetched = [c.landing.prefix.split("/")[0] for c in load_contracts(settings.contracts).values() if c.rest]
        print(f"A shop trades for {chosen.days} days into {_shown(landing)} …", flush=True)
        begun = time.perf_counter()
        try:
            truth = generate(
                landing, seed=chosen.seed, days=chosen.days, scale=chosen.scale, start=SHOP_START, besides=fetched
            )
        except ValueError as error:
            raise LandingError(
                f"{error}. `make dev` goes on with what is there; `SLUICE_HOME=.sluice-2 make demo` makes another "
                "lake; `make clean` begins again."
            ) from error
        truth.write(settings.home / "shop_truth.json")
        outcome.took("simulated shop", time.perf_counter() - begun)
        # No end: the shop goes on trading, so files of later days find their partitions.
        start, end = SHOP_START, None
        visitors = live_events(chosen.seed, chosen.scale, SHOP_START + timedelta(days=chosen.days))
    else:
        landing = chosen.landing.resolve()
        settings = load_settings()
        start, end = landing_span(landing, list(load_contracts(settings.contracts).values()))
        visitors = []
    noted = {"SLUICE_LANDING": str(landing), "SLUICE_START_DATE": str(start)}
    note_settings(settings.home, noted if end is None else {**noted, "SLUICE_END_DATE": str(end)})
    settings = load_settings(home=str(settings.home), landing=landing, start_date=start, end_date=end)
    with _simulated_api(settings, chosen.landing is None):
        fetch = [] if chosen.landing else [SHOP_START + timedelta(days=n) for n in range(chosen.days)]
        _run_everything(settings, outcome, fetch, visitors)
    outcome.took("total", time.perf_counter() - started)
    _report(settings, outcome)
    return 1 if outcome.failed else 0


@contextlib.contextmanager
def _simulated_api(settings: Settings, wanted: bool) -> Iterator[None]:
    """The API of the exchange rates, for as long as the demo takes; unless the environment names another."""
    if not wanted or RATES_URL in os.environ:
        yield
        return
    from sluice.rest.state import State
    from sluice.simulation.rates_api import serving

    with serving() as api:
        os.environ[RATES_URL] = api.url
        try:
            yield
        finally:
            del os.environ[RATES_URL]
            # Its port was for this once: a breaker of it would be in `sluice rest status` for ever.
            State.of(settings).forget_host(urlsplit(api.url).netloc)


def landing_span(landing: Path, contracts: Sequence[Contract]) -> tuple[date, date]:
    """First day (inclusive) and last day (exclusive) a landing area has files for.

    Raises:
        LandingError: it is not there, or holds no file of any contract.
    """
    days = [
        date.fromisoformat(dict(f.tokens)["date"]) for c in contracts for f in scan(c, landing, date.min, None).files
    ]
    if not days:
        known = ", ".join(c.landing.path for c in contracts)
        raise LandingError(f"{landing} holds no file of any contract. Files are looked for in {known}.")
    return min(days), max(days) + timedelta(days=1)


def note_settings(home: Path, values: dict[str, str]) -> None:
    """Keep settings in the home folder, where `make dev` finds them.

    Raises:
        LandingError: the home folder already belongs to another landing area; two must not mix in one lake.
    """
    path = home / HOME_SETTINGS
    text = "".join(f"{name}={value}\n" for name, value in values.items())
    if path.exists():
        before = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
        if before.get("SLUICE_LANDING") != values["SLUICE_LANDING"]:
            raise LandingError(
                f"{home} holds the lake of {before.get('SLUICE_LANDING')}. Set SLUICE_HOME to another folder for "
                f"{values['SLUICE_LANDING']}, or remove {home} to begin again."
            )
    home.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _run_everything(settings: Settings, outcome: Outcome, days: Sequence[date], visitors: Sequence[Message]) -> None:
    """The jobs of the UI, in this process, one after the other.

    Args:
        settings: of the lake.
        outcome: is told what was done.
        days: those fetched from APIs.
        visitors: what they do comes by the event log, in two halves.
    """
    from resources.instance import prepare_instance

    prepare_instance(settings)
    begun = time.perf_counter()
    # Deferred: Dagster takes two seconds to import, and the settings must be in the environment before.
    import dagster as dg

    from definitions import build_definitions
    from resources.dbt import project_fingerprint
    from resources.partitions import run_tags
    from sluice.audits import is_built
    from sluice.lake import Lake

    defs = build_definitions(settings)
    outcome.took("start-up", time.perf_counter() - begun)
    with dg.DagsterInstance.get() as instance:

        def run(job: str, tags: dict[str, str], layer: str | None) -> dg.ExecuteInProcessResult:
            begun = time.perf_counter()
            with (settings.home / DEMO_LOG).open("a") as log, contextlib.redirect_stdout(log):
                result = defs.resolve_job_def(job).execute_in_process(
                    instance=instance, tags=tags, raise_on_error=False, run_config=_QUIET
                )
            if layer:
                outcome.took(layer, time.perf_counter() - begun)
            _count_checks(result, outcome)
            if not result.success:
                outcome.failed += _failures(result)
            return result

        for contract in load_contracts(settings.contracts).values():
            if contract.rest and days:
                # One partition a day: the demo's own source has no other dimension.
                landing = defs.resolve_assets_def(dg.AssetKey(["landing", contract.name])).partitions_def
                assert landing is not None, "landing assets are partitioned"
                run(f"fetch_{contract.name}", run_tags([d.isoformat() for d in days], landing), "fetching")
                print(f"{contract.name} fetched from its API", flush=True)
            definition = defs.resolve_assets_def(dg.AssetKey(["bronze", contract.name])).partitions_def
            assert definition is not None, "ingest assets are partitioned"
            found = scan(contract, settings.landing_path, settings.start_date, settings.end_date)
            keys = [k for k in definition.get_partition_keys() if k in found.by_partition()]
            if not keys:
                print(f"no files for {contract.name}", flush=True)
                continue
            run(f"ingest_{contract.name}", run_tags(keys, definition), "bronze")
            print(f"bronze.{contract.name} loaded", flush=True)
        if outcome.failed:
            return
        outcome.repaired = _repair_one(settings)

        def build() -> None:
            if is_built(Lake(settings), project_fingerprint(settings)):
                print("The warehouse is built of these very batches already.")
                return
            begun = time.perf_counter()
            result = run("build_warehouse", {}, None)
            _split_time(result, time.perf_counter() - begun, outcome)

        halves = _halves_to_come(settings, visitors)
        if halves:
            _append(settings, halves[0])
            run("stream_events", {}, "stream")
            print(f"{len(halves[0]):,} events of the day after came by the topic {EVENTS_TOPIC}", flush=True)
        build()
        if halves and not outcome.failed:
            _append(settings, halves[1])
            run("stream_events", {}, "stream")
            outcome.live = _live(settings)
            build()


def _halves_to_come(settings: Settings, visitors: Sequence[Message]) -> list[Sequence[Message]]:
    """The two halves of the events that are to be streamed; none if they have been, or there are none."""
    from sluice.eventlog import open_log

    log = open_log(settings)
    if not visitors or EVENTS_TOPIC in log.topics():
        return []
    return [visitors[: len(visitors) // 2], visitors[len(visitors) // 2 :]]


def _append(settings: Settings, messages: Sequence[Message]) -> None:
    """As the shop's web site would: one after the other into the topic, those of a visitor in order."""
    from sluice.eventlog import open_log

    stream = load_contracts(settings.contracts)["events"].stream
    assert stream is not None, "the shop's events come by a topic, too"
    log = open_log(settings)
    log.create(stream.topic, stream.partitions)
    log.append(stream.topic, messages)


def _live(settings: Settings) -> tuple[int, int, int]:
    """What has streamed in since the publication, and the sessions there are without and with it."""
    from sluice.publication import connect

    with connect(settings) as pinned, connect(settings, live=True) as con:
        published = pinned.execute("SELECT count(*) FROM fct_sessions").fetchall()[0][0]
        events = con.execute("SELECT sum(events) FROM live_events_5min").fetchall()[0][0]
        events -= pinned.execute("SELECT sum(events) FROM agg_events_5min").fetchall()[0][0]
        return int(events), published, con.execute("SELECT count(*) FROM live_sessions").fetchall()[0][0]


def _repair_one(settings: Settings) -> tuple[str, str, str] | None:
    """Correct one dead letter and replay it, as `sluice dead-letters replay ID --payload …` does; once in a lake.

    It is the first one that was rejected for nothing but a decimal comma.

    Returns:
        Its id, the value it came with, the one it was given; None if there is no such letter, or one was mended before.
    """
    from sluice.dead_letters import Choice, letters
    from sluice.lake import Lake
    from sluice.replay import replay

    lake = Lake(settings)
    if any(each.decided_by == DEMO_NAME for each in letters(lake, Choice(status="replayed"), _LOOKED_AT)):
        return None
    for letter in letters(lake, Choice(rule="type"), _LOOKED_AT):
        wrong = letter.reasons[0]["value"]
        if len(letter.reasons) > 1 or letter.raw is None or wrong is None or not _DECIMAL_COMMA.fullmatch(wrong):
            continue
        quoted, right = f'"{wrong}"', wrong.replace(",", ".")
        if letter.raw.count(quoted) != 1:
            continue
        contract = load_contracts(settings.contracts)[letter.source]
        corrections = {letter.dead_letter_id: letter.raw.replace(quoted, right)}
        done = replay(lake, contract, Choice(ids=tuple(corrections)), corrections=corrections, by=DEMO_NAME)
        if done.accepted + done.duplicate:
            return letter.dead_letter_id, wrong, right
    return None


def _count_checks(result: Any, outcome: Outcome) -> None:
    import dagster as dg

    for check in result.get_asset_check_evaluations():
        if check.passed:
            outcome.passed += 1
        elif check.severity == dg.AssetCheckSeverity.WARN:
            outcome.warned += 1
        else:
            outcome.failed.append(f"{check.asset_key.to_user_string()}: {check.check_name}")


def _failures(result: Any) -> list[str]:
    return [
        f"{e.step_key}: {(e.event_specific_data.error.cause or e.event_specific_data.error).message.strip()}"
        for e in result.all_events
        if e.is_step_failure
    ]


def _split_time(result: Any, whole: float, outcome: Outcome) -> None:
    """Time of silver and gold as dbt measured them; the rest is tests, publication and dbt itself."""
    spent = 0.0
    for event in result.get_asset_materialization_events():
        seconds = event.materialization.metadata.get("Execution Duration")
        if seconds is not None:
            outcome.took(event.asset_key.path[0], float(seconds.value))
            spent += float(seconds.value)
    outcome.took("checks, dbt, publish", whole - spent)


def _report(settings: Settings, outcome: Outcome) -> None:
    from sluice.books import books
    from sluice.lake import LAKE, Lake
    from sluice.publication import current_publication

    lake = Lake(settings)
    rows = books(lake, list(load_contracts(settings.contracts)))
    print("\nBooks (rows read = accepted + dead-lettered + exact duplicates)")
    _table(
        ["source", "batches", "read", "accepted", "dead-lettered", "duplicates", "balanced"],
        [
            [
                b.source,
                b.batches,
                b.rows_read,
                b.rows_accepted,
                b.rows_dead_lettered,
                b.rows_duplicate,
                "yes" if b.balanced else "NO",
            ]
            for b in rows
        ],
    )
    if outcome.repaired:
        letter, wrong, right = outcome.repaired
        print(
            f"\nA dead letter, mended and replayed: {wrong} became {right}, and its row went into the warehouse.\n"
            f"  {_command(settings)} dead-letters show {letter[:12]}"
        )
    if outcome.live:
        events, published, live = outcome.live
        print(
            f"\nStreamed after the publication: {events:,} events, seen at once by the live views ({published:,} "
            f"sessions published,\n{live:,} with what came since), and by everybody after the next build.\n"
            f"  {_command(settings)} query --live 'from live_sessions order by last_event_at desc limit 5'"
        )
    with lake.reading() as con:
        tables = [
            name
            for (name,) in con.execute(
                "SELECT table_name FROM duckdb_tables() WHERE database_name = ? AND schema_name = 'gold' ORDER BY 1",
                [LAKE],
            ).fetchall()
        ]
        counts = [[name, con.execute(f'SELECT count(*) FROM gold."{name}"').fetchall()[0][0]] for name in tables]
    print("\nGold")
    _table(["table", "rows"], counts)
    print("\nTime")
    _table(["layer", "seconds"], [[layer, f"{seconds:.1f}"] for layer, seconds in outcome.seconds.items()])
    print(f"\nChecks: {outcome.passed} passed, {outcome.warned} warned, {len(outcome.failed)} failed")
    for failure in outcome.failed:
        print(f"  failed: {failure}")
    if outcome.failed:
        print(f"More in {_shown(settings.home / DEMO_LOG)} and, with `make dev`, in the UI.")
    publication = current_publication(lake)
    if publication is None:
        print("Nothing is published.")
        return
    print(f"Published: snapshot {publication.snapshot_id}")
    print(
        "\nQuery it:\n"
        f"  {_command(settings)} query 'select * from mart_daily_sales order by calendar_date limit 5'\n"
        f"  .venv/bin/duckdb -init {_shown(settings.home)}/published.sql\n"
        "  >>> import sluice; sluice.connect().sql('from mart_customer_value limit 5')\n"
        f"See it:  {_home(settings)}make dev   and open http://127.0.0.1:3000"
    )


def _home(settings: Settings) -> str:
    return "" if settings.home == PROJECT / ".sluice" else f"SLUICE_HOME={_shown(settings.home)} "


def _command(settings: Settings) -> str:
    return f"{_home(settings)}.venv/bin/sluice"


def _table(head: list[str], rows: list[list[object]]) -> None:
    """Print a table, numbers to the right."""
    cells = [head, *([f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        first = f"  {row[0]:<{widths[0]}}"
        print("  ".join([first, *(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))]))


def _shown(path: Path) -> str:
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


if __name__ == "__main__":
    raise SystemExit(main())
