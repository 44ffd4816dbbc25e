"""A throw-away dbt project and lake in which the real materializations build small models from logs.

Belongs here: the folder, the logs, the calls of dbt. The macros are copied from the project, and nothing else of it
but its profile: what runs here runs in any dbt project. What the logs hold and what must come of them belongs to the
callers: the case runner (`sluice.scd_cases`) and the tests.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import duckdb
import yaml

from sluice import dbt_plugin
from sluice.errors import ConfigurationError, SluiceError
from sluice.lake import LAKE, Lake
from sluice.settings import PROJECT, load_settings
from sluice.sql import quoted

DBT_PROJECT = PROJECT / "dbt_project"
# `scd` alone, as another project would lift it out; what follows a dimension needs the other two.
MACROS = DBT_PROJECT / "macros" / "scd"
FOLLOWING = (DBT_PROJECT / "macros" / "heal", DBT_PROJECT / "macros" / "as_of.sql")

# Where the logs lie, and where the profile puts the models.
LOGS = "logs"
RESULTS = "gold"

# Each row of a log says with which batch it came, so that a batch can be taken out again. Models do not see it.
BATCH = "_batch"

Row = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A model to be built: its options, and the log it is built from.

    Attributes:
        name: of the model, its table and its log.
        config: options of the materialization, as in `config(materialized='scd', ...)`.
        log: columns of the log and their SQL types.
        feed: let the materialization read the log's change feed (`changes_in`) instead of computing every key.
        post_hook: statement run at the end of the build, within its transaction; rendered by Jinja.
        sightings: name of a boolean column; rows of which it is true lie in a log of their own, `<name>_seen`, as where
            facts tell of keys and the changes come from elsewhere. Empty: one log has all rows.
    """

    name: str
    config: Mapping[str, Any]
    log: Mapping[str, str]
    feed: bool = True
    post_hook: str = ""
    sightings: str = ""

    @property
    def log_tables(self) -> list[str]:
        """The logs as `changes_in` names them: that of the changes and, if it is apart, that of the sightings."""
        return [f"{LOGS}.{self.name}_log", *([f"{LOGS}.{self.name}_seen"] if self.sightings else [])]

    def sql(self) -> str:
        """The model's file."""
        options = {k: v for k, v in self.config.items() if v is not None}
        if self.feed:
            feeds: list[dict[str, Any]] = [{"table": table} for table in self.log_tables]
            if self.sightings:
                feeds[1]["sighting"] = True
            options.setdefault("changes_in", feeds)
        if self.post_hook:
            options["post_hook"] = self.post_hook
        given = "".join(f",\n    {name}={json.dumps(value)}" for name, value in options.items())
        columns = ",\n    ".join(quoted(column) for column in self.log)
        head = f"{{{{ config(\n    materialized='scd'{given}\n) }}}}\n"
        selects = [f"select\n    {columns}\nfrom {LAKE}.{table}\n" for table in self.log_tables]
        return head + "\nunion all\n\n".join(selects)


@dataclass
class Harness:
    """A lake and a dbt project below `folder`; a context manager, for both hold connections.

    One process has one dbt: use a single harness at a time.
    """

    folder: Path
    models: dict[str, Model] = field(default_factory=dict)

    # Of all in this process, the one dbt worked for last.
    _latest: ClassVar[Harness | None] = None

    def __post_init__(self) -> None:
        if not MACROS.is_dir() or not any(MACROS.glob("*.sql")):
            raise ConfigurationError(f"There is no materialization in {MACROS}. Check out the whole project.")
        self.settings = load_settings(home=self.folder / "home", catalog="", data_path="")
        self.lake = Lake(self.settings)
        self.project = self.folder / "project"
        (self.project / "models").mkdir(parents=True)
        shutil.copytree(MACROS, self.project / "macros" / "scd")
        shutil.copy(DBT_PROJECT / "profiles.yml", self.project)
        (self.project / "dbt_project.yml").write_text(
            yaml.safe_dump(
                {
                    "name": "scd_harness",
                    "version": "0.1.0",
                    "config-version": 2,
                    "profile": "sluice",
                    "model-paths": ["models"],
                    "macro-paths": ["macros"],
                    "flags": {"send_anonymous_usage_stats": False},
                }
            ),
            encoding="utf-8",
        )
        self.con = self.lake.connect()
        self.con.execute(f"CREATE SCHEMA IF NOT EXISTS {LOGS}")
        self._manifest: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lake, also on dbt's side, which otherwise keeps its connection for the next call."""
        self.con.close()
        if self._manifest is not None:
            from dbt.adapters.duckdb.connections import DuckDBConnectionManager

            DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]

    def define(self, models: Iterable[Model]) -> None:
        """Make models, or change those of the same name; a log gains the columns it lacks. Parses once."""
        for model in models:
            for table in model.log_tables:
                self._shape_log(model, table)
            self.models[model.name] = model
            (self.project / "models" / f"{model.name}.sql").write_text(model.sql(), encoding="utf-8")
        self._manifest = self._dbt(["parse"], None)

    def define_sql(self, models: Mapping[str, str]) -> None:
        """Make models of SQL of their own, by name; those that follow a dimension have their macros here. Parses once.

        Their logs are the caller's to make; `build` builds them only when named.
        """
        for path in FOLLOWING:
            place = self.project / "macros" / path.name
            if path.is_dir():
                shutil.copytree(path, place, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, place)
        for name, sql in models.items():
            (self.project / "models" / f"{name}.sql").write_text(sql, encoding="utf-8")
        self._manifest = self._dbt(["parse"], None)

    def _shape_log(self, model: Model, table: str) -> None:
        known = self.models.get(model.name)
        if known is None:
            columns = "".join(f", {quoted(name)} {kind}" for name, kind in model.log.items())
            self.con.execute(f"CREATE TABLE {table} ({BATCH} BIGINT{columns})")
            return
        for name, kind in model.log.items():
            if name not in known.log:
                self.con.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {kind}")
            elif known.log[name] != kind:
                self.con.execute(f"ALTER TABLE {table} ALTER {quoted(name)} SET DATA TYPE {kind}")

    def change_logs(
        self,
        add: Mapping[str, Mapping[int, Sequence[Row]]] | None = None,
        remove: Mapping[str, Iterable[int] | None] | None = None,
    ) -> None:
        """Change logs in one transaction: first the removals, then the additions.

        Args:
            add: rows by name of the log and number of the batch; a column a row lacks is null.
            remove: numbers of the batches to take out, by name of the log; None of a name empties the log.
        """
        self.con.execute("BEGIN")
        try:
            for name, batches in (remove or {}).items():
                numbers = ", ".join(str(int(number)) for number in batches or [])
                if batches is None or numbers:
                    chosen = f" WHERE {BATCH} IN ({numbers})" if numbers else ""
                    for table in self.models[name].log_tables:
                        self.con.execute(f"DELETE FROM {table}{chosen}")
            for name, by_batch in (add or {}).items():
                rows = [{BATCH: number, **row} for number, batch in by_batch.items() for row in batch]
                model = self.models[name]
                for table, apart in zip(model.log_tables, (False, True), strict=False):
                    chosen_rows = [row for row in rows if bool(row.get(model.sightings)) == apart]
                    if chosen_rows:
                        self._insert(model, table, chosen_rows)
            self.con.execute("COMMIT")
        except BaseException:
            self.con.execute("ROLLBACK")
            raise

    def _insert(self, model: Model, table: str, rows: list[Row]) -> None:
        kinds = {BATCH: "BIGINT", **model.log}
        shape = {name: [kind[:-2]] if kind.endswith("[]") else kind for name, kind in kinds.items()}
        columns = ", ".join(quoted(name) for name in kinds)
        self.con.execute(
            f"INSERT INTO {table} ({columns}) SELECT item.* FROM (SELECT unnest(from_json(?, ?)) AS item)",
            [json.dumps(rows, default=str), json.dumps([shape])],
        )

    def build(self, names: Iterable[str] | None = None, *, full_refresh: bool = False) -> dict[str, str | None]:
        """Run dbt for some models, or all.

        Args:
            names: of the models; None for all.
            full_refresh: build them anew, as `dbt run --full-refresh`.

        Returns:
            Per model None, or the message of the error that refused it.
        """
        chosen = list(self.models if names is None else names)
        if not chosen:
            return {}
        arguments = ["run", "--no-write-json", "--no-print", "--no-populate-cache", "--select", *chosen]
        outcome = self._dbt([*arguments, "--full-refresh"] if full_refresh else arguments, self._manifest)
        return {
            result.node.name: None if str(result.status) == "success" else str(result.message)
            for result in outcome.results
        }

    def read(self, name: str) -> list[Row]:
        """The rows of a result table, in no order; none if it is not there."""
        try:
            result = self.con.execute(f"SELECT * FROM {RESULTS}.{name}")
        except duckdb.CatalogException:
            return []
        columns = [column[0] for column in result.description or []]
        return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]

    def snapshot(self) -> int:
        """The number of the lake's newest snapshot: as long as it stays, nothing at all was written."""
        return self.lake.current_snapshot(self.con)

    def changes(self, name: str, since: int) -> list[Row]:
        """What the change feed of a result table tells of the snapshots after `since`."""
        now = self.snapshot()
        if now == since:
            return []
        result = self.con.execute(f"FROM ducklake_table_changes('{LAKE}', '{RESULTS}', '{name}', {since + 1}, {now})")
        columns = [column[0] for column in result.description or []]
        return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]

    def _dbt(self, arguments: list[str], manifest: Any) -> Any:
        """One call of dbt within this process.

        Measured: importing dbt takes 1.4 s and parsing 1.4 s, once each; with the manifest given, a call takes 0.1 s
        beside its models. dbt keeps its connection between calls, which saves the 0.3 s of attaching the lake.
        """
        # Deferred: whoever only looks at cases need not wait for dbt.
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager
        from dbt.cli.main import dbtRunner

        if Harness._latest is not self:
            # dbt takes a connection that is still open for its own, whichever lake it was opened for.
            DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]
            Harness._latest = self

        # fmt: off
        quiet = [
            "--quiet", "--log-level", "none", "--log-level-file", "none", "--log-path", str(self.folder / "logs"),
            "--no-use-colors", "--no-send-anonymous-usage-stats", "--no-partial-parse", "--no-version-check",
        ]
        # fmt: on
        places = ["--project-dir", str(self.project), "--profiles-dir", str(self.project)]
        with _environment(self._environment()):
            outcome = dbtRunner(manifest=manifest).invoke([*quiet, *arguments, *places])
        if outcome.exception is not None or outcome.result is None:
            raise SluiceError(f"dbt {arguments[0]} failed in {self.project}: {outcome.exception}. Mend the models.")
        return outcome.result

    def _environment(self) -> dict[str, str]:
        return {
            "SLUICE_DBT_TARGET": "sqlite",
            dbt_plugin.METADATA: self.settings.attach_path.removeprefix("ducklake:"),
            dbt_plugin.DATA_PATH: self.settings.lake_data_path,
            dbt_plugin.TEMP_DIRECTORY: str(self.settings.temp_path),
            dbt_plugin.BUCKETS: "[]",
            # On tables of ten rows a second thread costs 0.1 s a model.
            dbt_plugin.CORES: "1",
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            "DO_NOT_TRACK": "1",
        }


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
