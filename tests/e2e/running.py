"""A small shop, and a `dagster dev` of its own: started as `make dev` does, asked through GraphQL, ended as a whole.

What belongs here: the process, its landing area, and what its answers to `questions` say. What does not: any
expectation of a test.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import questions

from sluice.errors import NoLakeError
from sluice.lake import Lake
from sluice.publication import Publication, current_publication
from sluice.settings import PROJECT, Settings, load_settings
from sluice.simulation import Truth
from tests.ports import free_port

T = TypeVar("T")

START = date(2026, 1, 1)
DAYS = 3
# Days without files of their own at the end, for what a test delivers itself.
SPARE_DAYS = 3

LOCATION = "sluice"
# Nothing tells how far it is while the code is loaded: 39 s on two cores, 168 s beside five times the work they can do.
START_SECONDS = 600
STOP_SECONDS = 20
# No run has begun, told anything or ended: the longest silence of a healthy one is the start of dbt, 8 s where all of
# a build takes 29 s. How long a run takes as a whole is the machine's business, and no test's.
STILL_SECONDS = 90
# However much moves: runs that are begun over and over move too. Ten times the longest wait on a slow machine (180 s).
ENDLESS_SECONDS = 1800
FINISHED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
SELECTOR = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}


@dataclass(frozen=True)
class Shop:
    """The files of a simulated shop, not delivered yet, and what a correct platform makes of them."""

    files: Path
    truth: Truth
    start: date = START
    end: date = START + timedelta(days=DAYS + SPARE_DAYS)

    @property
    def spare_day(self) -> date:
        """A day for which the shop has written nothing."""
        return self.end - timedelta(days=1)


@dataclass(frozen=True)
class Run:
    """A run as the instance has it."""

    run_id: str
    job: str
    status: str
    created: float
    tags: dict[str, str]
    assets: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether it has come to an end, a good or a bad one."""
        return self.status in FINISHED


@dataclass
class Platform:
    """One home folder, and the `dagster dev` on it while there is one.

    Args:
        home: SLUICE_HOME; made if absent, with an empty landing folder.
        start, end: SLUICE_START_DATE and SLUICE_END_DATE.
        environment: further variables of the process.
    """

    home: Path
    start: date
    end: date
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.landing.mkdir(parents=True, exist_ok=True)

    @property
    def landing(self) -> Path:
        """The landing folder."""
        return self.home / "landing"

    @property
    def log(self) -> Path:
        """What `dagster dev` says."""
        return self.home / "dagster-dev.log"

    @property
    def url(self) -> str:
        """Where the UI is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> Settings:
        """The settings the process runs with."""
        return load_settings(home=str(self.home), landing=self.landing, start_date=self.start, end_date=self.end)

    @property
    def lake(self) -> Lake:
        """The lake, as any other process may open it."""
        return Lake(self.settings)

    # --- the process

    def start_up(self) -> float:
        """Start `dagster dev` as `make dev` does and wait until its code is loaded; returns the seconds it took."""
        assert self._process is None, "it runs already"
        begun = time.monotonic()
        environment = self._environment()
        subprocess.run([sys.executable, "-m", "resources.instance"], cwd=PROJECT, env=environment, check=True)
        self.port = free_port()
        command = ["-m", "dagster", "dev", "--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log, _heeding_interrupts():
            self._process = subprocess.Popen(
                [sys.executable, *command, "--workspace", "workspace.yaml"],
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A process group of its own: the webserver, the daemon, the code server and the runs end with it.
                start_new_session=True,
            )
        try:
            self.wait_for(self._loaded, "dagster dev has loaded the code location", START_SECONDS, every=0.5)
        except BaseException:
            self.stop()
            raise
        return time.monotonic() - begun

    @contextmanager
    def left_alone(self) -> Iterator[Self]:
        """Started and with its sensors stopped, so that nothing happens but what is asked for; ended at the end."""
        self.start_up()
        try:
            self.stop_sensors()
            yield self
        finally:
            self.stop()

    def listening(self) -> set[str]:
        """Addresses on which anything that was started takes connections."""
        assert self._process is not None
        return listening(self._process.pid)

    def stop(self) -> None:
        """End `dagster dev` and every process it started: politely first, then for good."""
        process, self._process = self._process, None
        if process is None:
            return
        for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5)):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            until = time.monotonic() + patience
            while time.monotonic() < until and _alive(process):
                time.sleep(0.1)
        process.wait(timeout=5)

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLUICE_", "DAGSTER_", "PYTEST_"))}
        return {
            **inherited,
            "SLUICE_HOME": str(self.home),
            "SLUICE_LANDING": str(self.landing),
            "SLUICE_START_DATE": str(self.start),
            "SLUICE_END_DATE": str(self.end),
            # As in `tests.conftest.one_thread`.
            "SLUICE_THREADS": "1",
            "DAGSTER_HOME": str(self.home / "dagster"),
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            "DO_NOT_TRACK": "1",
            "PATH": str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", ""),
            **self.environment,
        }

    def _loaded(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"dagster dev ended with {self._process.returncode}.\n{self.last_words()}")
        try:
            entries = self.ask(questions.LOADED)["workspaceOrError"]["locationEntries"]
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        kinds = {e["name"]: (e["locationOrLoadError"] or {}).get("__typename") for e in entries}
        assert kinds.get(LOCATION) != "PythonError", f"the code location does not load.\n{self.last_words()}"
        return kinds.get(LOCATION) == "RepositoryLocation"

    # --- landing files

    def drop(self, relative: str, content: bytes) -> Path:
        """Deliver a file as a careful sender does: written under a name nobody reads, then renamed."""
        path = self.landing / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        temporary.write_bytes(content)
        return temporary.replace(path)

    def drop_all(self, folder: Path) -> None:
        """Deliver every file of another landing folder."""
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            self.drop(path.relative_to(folder).as_posix(), path.read_bytes())

    # --- questions

    def ask(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask GraphQL; returns its data."""
        request = urllib.request.Request(
            f"{self.url}/graphql",
            json.dumps({"query": query, "variables": variables or {}}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"GraphQL refused: {error.read().decode()[:2000]}") from None
        assert not answer.get("errors"), f"GraphQL: {json.dumps(answer['errors'])[:2000]}"
        data: dict[str, Any] = answer["data"]
        return data

    def runs(self) -> list[Run]:
        """All runs, newest first."""
        found = self.ask(questions.RUNS, {"limit": 500})["runsOrError"]["results"]
        return [
            Run(
                r["runId"],
                r["jobName"],
                r["status"],
                r["creationTime"],
                {t["key"]: t["value"] for t in r["tags"]},
                tuple(sorted("/".join(a["path"]) for a in r["assetSelection"] or [])),
            )
            for r in found
        ]

    def events(self, run_id: str) -> list[dict[str, Any]]:
        """A run's step starts, materializations and failures."""
        found: list[dict[str, Any]] = self.ask(questions.ERRORS, {"run": run_id})["logsForRun"]["events"]
        return found

    def materializations(self, key: str) -> list[tuple[str | None, str]]:
        """(partition, run) of every materialization of an asset."""
        asset = self.ask(questions.MATERIALIZATIONS, {"key": {"path": key.split("/")}})["assetOrError"]
        return [(m["partition"], m["runId"]) for m in asset.get("assetMaterializations", [])]

    def told(self, key: str) -> dict[str, str]:
        """The texts an asset's page shows of its newest materialization, by label."""
        asset = self.ask(questions.TOLD, {"key": {"path": key.split("/")}})["assetOrError"]
        (newest,) = asset["assetMaterializations"]
        texts = {e["label"]: e.get("mdStr", e.get("text")) for e in newest["metadataEntries"]}
        return {label: text for label, text in texts.items() if text is not None}

    def checks(self, key: str) -> dict[str, str]:
        """How each check of an asset came out for its newest materialization, "none" where it was not evaluated."""
        found = self.ask(questions.CHECKS, {"key": {"path": key.split("/")}})["assetNodeOrError"]["assetChecksOrError"]
        newest = {check["name"]: check["executionForLatestMaterialization"] for check in found["checks"]}
        return {name: execution["status"] if execution else "none" for name, execution in newest.items()}

    def sensors(self, after: float = 0) -> dict[str, dict[str, Any]]:
        """Every sensor's state with its ticks after a moment, by name."""
        found = self.ask(questions.SENSORS, {"repository": SELECTOR, "after": after})["sensorsOrError"]["results"]
        return {s["name"]: s["sensorState"] for s in found}

    def stop_sensors(self) -> None:
        """Stop every sensor: from now on nothing starts by itself."""
        # The daemon notes the state of a sensor at its first tick, and stumbles over one noted before.
        self.wait_for(lambda: all(s["ticks"] for s in self.sensors().values()), "every sensor has ticked", 300)
        self.wait_for(self._stopped, "every sensor has stopped", 300)

    def _stopped(self) -> bool:
        """Whether no sensor runs any more; stops those that do. A tick under way notes at its end that it runs."""
        states = self.sensors().values()
        running = [state for state in states if state["status"] != "STOPPED"]
        for state in running:
            self.ask("mutation($id: String!) { stopSensor(id: $id) { __typename } }", {"id": state["id"]})
        return not running and not any(tick["status"] == "STARTED" for state in states for tick in state["ticks"])

    def launch(self, job: str, assets: list[str], tags: dict[str, str]) -> str:
        """Start a run of some assets of a job, or of all; returns its id."""
        answer = self.ask(
            """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
              __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
              ... on RunConfigValidationInvalid { errors { message } }
            } }""",
            {
                "params": {
                    "selector": {
                        **SELECTOR,
                        "jobName": job,
                        "assetSelection": [{"path": a.split("/")} for a in assets] or None,
                    },
                    "runConfigData": "{}",
                    "mode": "default",
                    "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
                }
            },
        )["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", f"{job} does not start: {answer}"
        run_id: str = answer["run"]["runId"]
        return run_id

    def launch_backfill(
        self, assets: list[str], partitions: list[str], job: str | None = None, config: dict[str, Any] | None = None
    ) -> str:
        """Start a backfill with the very parameters the UI sends; returns its id.

        Args:
            assets: to be loaded.
            partitions: of them.
            job: the job on whose page the backfill is asked for; None if it is asked for on the assets' page.
            config: of its runs.
        """
        # fmt: off
        params: dict[str, Any] = {
            "tags": [], "assetSelection": [{"path": a.split("/")} for a in assets], "partitionNames": partitions,
            "fromFailure": False,
        }
        # fmt: on
        if job is not None:
            params["selector"] = {"partitionSetName": f"{job}_partition_set", "repositorySelector": SELECTOR}
        if config is not None:
            params["runConfigData"] = json.dumps(config)
        answer = self.ask(questions.LAUNCH_BACKFILL, {"params": params})["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", f"the backfill does not start: {answer}"
        backfill_id: str = answer["backfillId"]
        return backfill_id

    def backfills(self) -> dict[str, str]:
        """Status of every backfill, by its id."""
        found = self.ask(questions.BACKFILLS)["partitionBackfillsOrError"]["results"]
        assert not [b for b in found if b["error"]], f"backfills fail: {found}\n{self.state()}"
        return {b["id"]: b["status"] for b in found}

    def partitions(self, key: str) -> dict[str, int]:
        """How many partitions an asset has, and how many of them are materialized, under way and failed."""
        found: dict[str, int] = self.ask(questions.PARTITIONS, {"key": {"path": key.split("/")}})["assetNodeOrError"][
            "partitionStats"
        ]
        return found

    def command(self, *words: str) -> None:
        """Run a command of the project's environment beside `dagster dev`, and wait until it has gone well."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name(words[0])), *words[1:]],
            cwd=PROJECT,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ENDLESS_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{words}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"

    def finished(self, run_id: str) -> Run:
        """The run, once it has come to an end."""

        def ended() -> Run | None:
            return next((r for r in self.runs() if r.run_id == run_id and r.finished), None)

        return self.wait_for(ended, f"run {run_id} has ended", every=0.5)

    def publication(self) -> Publication | None:
        """What readers see; None while there is nothing."""
        try:
            return current_publication(self.lake)
        except NoLakeError:
            return None

    def wait_for(
        self, found: Callable[[], T | None], what: str, seconds: float = STILL_SECONDS, every: float = 1.0
    ) -> T:
        """Call until it returns something, and return that; fail and say how things stand when nothing moves any more.

        Args:
            found: called again and again.
            what: is waited for, in the words of the failure.
            seconds: in which neither this came true nor any run got on.
            every: so many seconds it is called.
        """
        begun = looked = time.monotonic()
        progress = self._progress()
        while True:
            result = found()
            if result:
                return result
            now = time.monotonic()
            if now > looked + seconds:
                former, progress, looked = progress, self._progress(), now
                if progress == former or now > begun + ENDLESS_SECONDS:
                    raise AssertionError(f"Not so after {now - begun:.0f} s: {what}.\n{self.state()}")
            time.sleep(every)

    def _progress(self) -> dict[str, tuple[str, str]]:
        """How far each run has come: its status, and where its events end while it is under way."""
        try:
            return {
                run.run_id: (run.status, "" if run.finished else self._end_of_events(run.run_id)) for run in self.runs()
            }
        except OSError:
            return {}  # it is starting, or has ended

    def _end_of_events(self, run_id: str) -> str:
        cursor: str = self.ask(questions.END, {"run": run_id})["logsForRun"]["cursor"]
        return cursor

    def state(self) -> str:
        """The last runs and why they failed, the sensors' last ticks, and the end of the log: for failed assertions."""
        lines = []
        try:
            for run in self.runs()[:8]:
                keys = run.tags.get("dagster/partition") or run.tags.get("dagster/asset_partition_range_start") or ""
                lines.append(f"run {run.run_id[:8]} {run.status} {run.job} {', '.join(run.assets)[:100]} {keys}")
                lines += [f"    {reason}" for reason in (self.failures(run.run_id) if run.status == "FAILURE" else [])]
            for name, sensor in self.sensors().items():
                for tick in sensor["ticks"][:1]:
                    told = (tick["error"] or {}).get("message") or tick["skipReason"] or tick["runIds"]
                    lines.append(f"sensor {name} {sensor['status']} {tick['status']}: {told}")
        except (AssertionError, OSError) as error:
            lines.append(f"GraphQL does not tell: {error}")
        return "\n".join([*lines, self.last_words()])

    def failures(self, run_id: str) -> list[str]:
        """Why a run failed, a line for each step, the innermost cause."""
        told = []
        for event in self.events(run_id):
            if event["__typename"] == "ExecutionStepFailureEvent":
                inner = (event["error"]["causes"] or [event["error"]])[-1]
                told.append(f"{event['stepKey']}: {inner['message'].strip()[:600]}")
            elif event["__typename"] == "RunFailureEvent":
                told.append(str(event.get("message")).strip()[:300])
        return told

    def last_words(self) -> str:
        """The end of the log."""
        if not self.log.exists():
            return "there is no log"
        return "log ends:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])


@contextmanager
def _heeding_interrupts() -> Iterator[None]:
    """Let a child heed interrupts even if this process ignores them, as one in the background does.

    Dagster ends on SIGTERM as it does on SIGINT; where SIGINT is ignored it would end on neither.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def listening(group: int) -> set[str]:
    """Addresses on which the processes of a group take connections, as /proc has them: `127.0.0.1:3000`."""
    sockets = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == group:
                sockets |= {str(link.readlink()) for link in (folder / "fd").iterdir()}
        except (ProcessLookupError, FileNotFoundError):
            continue  # it has just ended
    found = set()
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in sockets:  # it listens
                packed, _, port = columns[1].partition(":")
                words = [bytes.fromhex(packed[n : n + 8])[::-1] for n in range(0, len(packed), 8)]
                found.add(f"{socket.inet_ntop(family, b''.join(words))}:{int(port, 16)}")
    return found


def _alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether any process of the group lives; the leader is reaped on the way."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
