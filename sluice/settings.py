"""Every setting, its default and where it comes from.

A setting is read, first hit wins, from the environment (`SLUICE_…`), from `.env` in the project folder, and from
`settings.env` in the home folder, where `make demo` notes what it loaded. Secrets come from the environment alone
and are never printed. Nothing here touches the lake.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sluice.connections import kafka_client, problem
from sluice.errors import ConfigurationError

PROJECT = Path(__file__).resolve().parent.parent

HOME_SETTINGS = "settings.env"

_PREFIX = "SLUICE_"

# Names that begin likewise and are read elsewhere: what dbt is told, how the bucket is reached, secrets of sources.
_NOT_SETTINGS = ("SLUICE_DBT_", "SLUICE_S3_", "SLUICE_CDC_", "SLUICE_PULL_")

# A letter or two wrong or missing, and not another word.
_NEARLY = 0.85

_POSTGRES = "postgres:"

# 32 hexadecimal digits are 128 bits, which nobody tries out.
KEY_CHARACTERS = 32

# Folders below home that Sluice itself fills and empties.
_OWN = ("lake", "dagster", "readers", "rest", "tmp", "topics", "kafka", "captures")

# A hundred years: as good as for ever, and a day so far back is still in the calendar.
LONGEST_DAYS = 36_500


class Settings(BaseSettings):
    """Where things lie and how they run. Paths given relative are relative to the project folder."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", frozen=True, validate_default=True)

    home: Path = Field(PROJECT / ".sluice", description="Everything Sluice writes: lake, Dagster's instance, logs.")
    landing: Path = Field(Path("landing"), description="Where source files arrive; relative to home.")
    contracts: Path = Field(Path("contracts"), description="Folder of the data contracts.")
    captures: Path = Field(Path("captures"), description="Folder of the captures of databases' changes.")
    catalog: SecretStr = Field(
        SecretStr(""),
        description="DuckLake catalog: empty for a SQLite file under home, or postgres:<libpq connection string>.",
    )
    data_path: str = Field(
        "", description="Parquet files of the lake: empty for home/lake/data, or s3://bucket/prefix/."
    )
    start_date: date = Field(date(2026, 1, 1), description="First daily partition, inclusive.")
    end_date: date | None = Field(
        None, description="Last daily partition, exclusive; without one, partitions grow daily."
    )
    # Several times the largest machine's; at numbers it cannot count with, DuckDB meets an error within.
    threads: int = Field(0, ge=0, le=4096, description="DuckDB threads; 0 for all cores.")
    memory_limit: str = Field(
        "",
        pattern=r"^(\d+(\.\d+)?\s?[KMGT]i?B)?$",
        description="DuckDB memory limit such as 4GB; empty for 80 % of the machine's.",
    )
    chunk_bytes: int = Field(
        # 256 MiB of text is about 3 million order lines and 1.5 GB at its widest in DuckDB: it fits a small machine,
        # and below it the cost of a commit (0.1 s) is under 3 % of a chunk's time.
        256 * 1024 * 1024,
        gt=0,
        description="Unpacked bytes of landing files taken into one transaction, at least one batch.",
    )
    file_bytes: int = Field(
        # Gzip packs a thousand to one, so that a small file may fill any disk. The largest file of a year of the shop
        # unpacks to 5 MB; 2 GiB are 25 million order lines.
        2 * 1024 * 1024 * 1024,
        gt=0,
        description="Most unpacked bytes of one landing file; a larger one is set aside, however small it is packed.",
    )
    belief_days: int = Field(
        # As far back as people usually ask why a report said what it said: the last quarter. Kept are only the files
        # that later builds replaced.
        90,
        ge=0,
        le=LONGEST_DAYS,
        description="Days for which maintenance keeps readable what readers saw (`sluice.connect(as_of=...)`).",
    )
    pseudonym_key: SecretStr = Field(
        SecretStr(""),
        description="Key of the pseudonyms in silver and gold, 32 characters or more; without one they are masked.",
    )
    erasure_key: SecretStr = Field(
        SecretStr(""),
        description="Key by which erased people are recognised; empty for one made and kept in home/erasure.key.",
    )
    kafka: SecretStr = Field(
        SecretStr(""),
        description="Brokers as host:port,... or settings of Kafka's client as JSON; empty for the embedded event log.",
    )
    alert_command: str = Field(
        "", description="Command run on a failed run, its message on standard input; empty for none."
    )

    @field_validator("home", "contracts", "captures")
    @classmethod
    def _below_project(cls, value: Path) -> Path:
        return (PROJECT / value).resolve()

    @field_validator("catalog")
    @classmethod
    def _catalog_can_be_read(cls, value: SecretStr) -> SecretStr:
        catalog = value.get_secret_value()
        if catalog and not catalog.startswith(_POSTGRES):
            raise ValueError("catalog must be empty (SQLite under home) or begin with postgres:")
        wrong = problem(catalog.removeprefix(_POSTGRES))
        if wrong:
            raise ValueError(f"after postgres: comes a libpq connection string, and {wrong}")
        return value

    @field_validator("kafka")
    @classmethod
    def _kafka_can_be_read(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value():
            kafka_client(value.get_secret_value())
        return value

    @field_validator("pseudonym_key", "erasure_key")
    @classmethod
    def _hard_to_guess(cls, value: SecretStr) -> SecretStr:
        # Whoever can guess the key can make the pseudonym of every address there is, and compare.
        if value.get_secret_value() and len(value.get_secret_value()) < KEY_CHARACTERS:
            raise ValueError(
                f"is shorter than {KEY_CHARACTERS} characters and could be guessed; `openssl rand -hex 32` makes one"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.end_date is not None and self.end_date <= self.start_date:
            raise ValueError(f"end_date {self.end_date} must lie after start_date {self.start_date}")
        home, landing = self.home.resolve(), self.landing_path
        if home.is_relative_to(landing) or any(landing.is_relative_to(home / own) for own in _OWN):
            # An erasure rewrites what it finds in the landing area.
            raise ValueError(f"landing {landing} must be a folder of its own: the lake is in {home}")
        return self

    @property
    def landing_path(self) -> Path:
        """The landing folder, absolute."""
        return (self.home / self.landing).resolve()

    @property
    def own_folders(self) -> tuple[Path, ...]:
        """The landing folder and those below home that Sluice fills and empties: what else lies there is in its way."""
        return self.landing_path, *(self.home / own for own in _OWN)

    @property
    def uses_postgres(self) -> bool:
        """Whether the catalog is PostgreSQL, which takes several writers, instead of SQLite, which takes one."""
        return bool(self.catalog.get_secret_value())

    @property
    def uses_kafka(self) -> bool:
        """Whether the event log is Kafka instead of files under home."""
        return bool(self.kafka.get_secret_value())

    @property
    def topics_path(self) -> Path:
        """The embedded event log: a folder for each topic."""
        return self.home / "topics"

    @property
    def logs_of_events(self) -> tuple[Path, ...]:
        """Where event logs keep their files below home: nobody else writes there. `make kafka` has its broker's too."""
        return self.topics_path, self.home / "kafka"

    @property
    def capture_path(self) -> Path:
        """Where captures keep how far they have come, and what Debezium says: a folder for each."""
        return self.home / "captures"

    @property
    def connection(self) -> str:
        """The PostgreSQL catalog's connection string, empty with SQLite. It may hold a password: never print it."""
        return self.catalog.get_secret_value().removeprefix(_POSTGRES)

    @property
    def catalog_path(self) -> Path:
        """The SQLite catalog's file; meaningless with PostgreSQL."""
        return self.home / "lake" / "catalog.sqlite"

    @property
    def readers_path(self) -> Path:
        """What accounts that may only read are given: the catalog's copy and the script that opens it."""
        return self.home / "readers"

    @property
    def attach_path(self) -> str:
        """What DuckDB's ATTACH takes. With PostgreSQL it may hold a password: never print it."""
        if self.uses_postgres:
            return "ducklake:" + self.catalog.get_secret_value()
        return f"ducklake:sqlite:{self.catalog_path}"

    @property
    def lake_data_path(self) -> str:
        """Where the lake's Parquet files lie, ending in a slash."""
        path = self.data_path or str(self.home / "lake" / "data")
        return path.rstrip("/") + "/"

    @property
    def erasure_key_path(self) -> Path:
        """Where the key is kept by which the erased are recognised, unless it comes from the environment."""
        return self.home / "erasure.key"

    @property
    def temp_path(self) -> Path:
        """Where DuckDB spills and unclean files are rewritten; emptied by whoever wrote there."""
        return self.home / "tmp"


def _names_in(env_files: Iterable[Path]) -> Iterator[str]:
    for file in env_files:
        # One that is not there, or not to be read, is for pydantic to judge.
        with contextlib.suppress(OSError):
            yield from re.findall(r"(?m)^\s*(?:export\s+)?(\w+)\s*=", file.read_text(errors="replace"))


def _check_names(given: Iterable[str]) -> None:
    """Refuse a name that is nearly a setting's: it would be left out silently, and the default hold."""
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in sorted({n.upper() for n in given}):
        if not name.startswith(_PREFIX) or name in known or name.startswith(_NOT_SETTINGS):
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=_NEARLY)
        if close:
            raise ConfigurationError(f"{name} is no setting. Did you mean {close[0]}? Mend the name, or unset it.")


# What to write, where the checker's own words are of patterns and parsers; by its type of error.
_INSTEAD = {
    "string_pattern_mismatch": "is no amount; write for instance 4GB",
    "int_parsing": "is no whole number",
    "date_parsing": "is no date; write for instance 2026-01-31",
    "date_from_datetime_parsing": "is no date; write for instance 2026-01-31",
}


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; `overrides` win over every other place.

    Raises:
        ConfigurationError: a value does not fit, or a name is nearly that of a setting; the message names the variable.
            A secret's value is not shown.
    """
    home = Path(overrides.get("home") or os.environ.get("SLUICE_HOME") or PROJECT / ".sluice")
    env_files = ((PROJECT / home) / HOME_SETTINGS, PROJECT / ".env")  # the later one wins
    _check_names([*os.environ, *_names_in(env_files)])
    try:
        return Settings(_env_file=env_files, **overrides)  # type: ignore[call-arg]
    except ValidationError as error:
        lines = []
        for item in error.errors(include_input=False, include_url=False, include_context=False):
            name = "SLUICE_" + "_".join(str(part) for part in item["loc"]).upper() if item["loc"] else "settings"
            lines.append(f"{name}: {_INSTEAD.get(item['type'], item['msg'])}")
        raise ConfigurationError("; ".join(lines) + ". Mend the variable or the settings file.") from None
