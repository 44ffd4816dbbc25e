"""Reading contract files: from YAML to `sluice.contracts.model`, each complaint with its file and place."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from open_data_contract_standard.model import OpenDataContractStandard, SchemaObject, SchemaProperty

from sluice.contracts.model import (
    DECIMAL,
    EVOLUTIONS,
    LEAST_HISTORY,
    PERSONAL,
    PRIVACY,
    REBUILT,
    SEVERITIES,
    USUAL_HISTORY,
    VERSION,
    Column,
    Contract,
    RowRule,
    VolumeGate,
)
from sluice.contracts.reading_arrival import read_change_feed, read_landing, read_pull, read_stream
from sluice.contracts.reading_rest import read_rest
from sluice.contracts.standard import check_against_standard
from sluice.encodings import ENCODINGS, encoding
from sluice.errors import ContractError

SUFFIX = ".odcs.yaml"

# Rules of a column whose severity may be chosen; a value that is missing or has no type cannot be let through.
_ANY_SEVERITY = ("pattern", "minimum", "maximum", "min_length", "max_length", "enum")
_NO_WARNING = ("required", "type", "unique")

# No HUGEINT: DuckDB writes it into Parquet as a double, and the lake would hold another number than came.
_SCALAR_TYPES = frozenset(
    ["BIGINT", "BOOLEAN", "DATE", "DOUBLE", "INTEGER", "SMALLINT", "TIMESTAMP", "TINYINT", "UUID", "VARCHAR"]
)
_OPTIONS = (
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "format",
    "timezone",
)
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")


def load_contracts(folder: Path) -> dict[str, Contract]:
    """Read every `*.odcs.yaml` in `folder`, by source name.

    Raises:
        ContractError: the folder is missing or empty, a file is not a valid contract, or two name the same source or
            read the same folder.
    """
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        raise ContractError(f"No contract (*{SUFFIX}) in {folder}. Set SLUICE_CONTRACTS to the folder that holds them.")
    contracts: dict[str, Contract] = {}
    for path in paths:
        contract = load_contract(path)
        if contract.name in contracts:
            raise ContractError(
                f"{path.name} and {contracts[contract.name].path.name} both describe the source {contract.name!r}. "
                "Rename the schema object of one of them."
            )
        for other in contracts.values():
            _check_apart(contract, other)
        contracts[contract.name] = contract
    return contracts


def misnamed(folder: Path) -> list[Path]:
    """YAML files in the folder of contracts that are not read, because their names end otherwise than a contract's."""
    return sorted(p for p in folder.glob("*.y*ml") if p.suffix in (".yaml", ".yml") and not p.name.endswith(SUFFIX))


def _check_apart(one: Contract, other: Contract) -> None:
    """Every file below a contract's folder is its own: in another's it would be loaded twice, or belong nowhere."""
    folders = [Path(c.landing.prefix) for c in (one, other)]
    if folders[0].is_relative_to(folders[1]) or folders[1].is_relative_to(folders[0]):
        raise ContractError(
            f"{one.path.name} and {other.path.name} both read {max(folders, key=lambda f: len(f.parts))}/ in the "
            "landing area. Begin landing.path of one of them with a folder of its own."
        )


def load_contract(path: Path) -> Contract:
    """Read one contract file.

    Raises:
        ContractError: it is no YAML, breaks the standard, or asks for something Sluice does not offer; the message
            names the file, the place in it and what to write instead.
    """
    try:
        return _load(path)
    except RecursionError:
        raise ContractError(
            f"{path}: is nested too deep for a contract. See docs/contracts.md for the shape."
        ) from None


def _load(path: Path) -> Contract:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: cannot be read: {error}. Check the path, its rights and its encoding.") from error
    except yaml.YAMLError as error:
        raise ContractError(f"{path}: not valid YAML: {_yaml_problem(error)}. Mend it there.") from error
    if not isinstance(raw, dict):
        raise ContractError(f"{path}: holds no contract. See docs/contracts.md for the shape.")
    check_against_standard(path, raw)
    document = OpenDataContractStandard(**raw)
    if not document.schema_ or len(document.schema_) != 1:
        raise ContractError(
            f"{path}: needs exactly one schema object, has {len(document.schema_ or [])}. One file, one source."
        )
    contract = _Reader(path, document, document.schema_[0]).contract()
    # Deferred: the rules are made of contracts.
    from sluice.rules import check_rules

    check_rules(contract)
    return contract


def _yaml_problem(error: yaml.YAMLError) -> str:
    """What is wrong and where, in one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


class _Reader:
    """Turns one parsed document into a `Contract`, naming the file and place in each complaint."""

    def __init__(self, path: Path, document: OpenDataContractStandard, schema: SchemaObject) -> None:
        self.path, self.document, self.schema = path, document, schema

    def fail(self, message: str) -> ContractError:
        return ContractError(f"{self.path}: {message}")

    def contract(self) -> Contract:
        name = self.schema.name or ""
        if not _IDENTIFIER.fullmatch(name):
            raise self.fail(f"schema name {name!r} must be lower-case letters, digits and underscores.")
        if not VERSION.fullmatch(self.document.version or ""):
            raise self.fail(f"version {self.document.version!r} must be major.minor.patch, such as 1.0.0.")
        if REBUILT in name:
            raise self.fail(f"schema name {name!r} is like that of the shadow of a source that is rebuilt. Rename it.")
        custom = self._custom("landing", "stream", "rest", "changeFeed", "gates", "schemaEvolution", "pull")
        columns, rules = self._columns()
        self._check_erasable(columns)
        stream = read_stream(custom.get("stream"), columns, self._mapping, self.fail)
        # A stream's history may be delivered as files beside it, without anybody having to say where.
        usual = {"path": f"{name}/date={{date}}", "formats": ["jsonl"]} if stream else None
        landing = read_landing(custom.get("landing", usual), self._mapping, self.fail)
        if stream and landing.partitions:
            raise self.fail("landing.partitions and a stream do not go together: no message says which it is of.")
        taken = {c.name for c in columns} & set(landing.tokens)
        if taken:
            raise self.fail(f"{sorted(taken)} are both columns and tokens of landing.path. Rename one.")
        feed = read_change_feed(custom.get("changeFeed"), self._mapping, self.fail)
        if feed and not any(c.primary_key for c in columns):
            raise self.fail("a change feed needs a primary key. Mark its column with primaryKey: true.")
        if feed and set(landing.formats) != {"jsonl"}:
            raise self.fail("a change feed arrives as JSON lines. Set landing.formats to [jsonl].")
        if custom.get("rest") is not None and custom.get("pull") is not None:
            raise self.fail("rest and pull do not go together: they would write the same files. Make it two sources.")
        purpose = self.document.description.purpose if self.document.description else None
        return Contract(
            name=name,
            version=self.document.version or "",
            title=self.document.name or name,
            description=(self.schema.description or purpose or "").strip(),
            granularity=(self.schema.dataGranularityDescription or "").strip(),
            domain=self.document.domain or "default",
            owners=self._owners(),
            columns=columns,
            rules=rules,
            landing=landing,
            change_feed=feed,
            stream=stream,
            max_rejected_share=self._max_rejected_share(custom.get("gates")),
            volume=self._volume(custom.get("gates")),
            schema_evolution=self._schema_evolution(custom.get("schemaEvolution", EVOLUTIONS[0])),
            latency_hours=self._latency_hours(),
            status=self.document.status or "",
            rest=read_rest(custom.get("rest"), landing, self._mapping, self.fail),
            pull=read_pull(custom.get("pull"), name, landing, self._mapping, self.fail),
            path=self.path,
        )

    def _custom(self, *known: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for item in self.schema.customProperties or []:
            if item.property not in known:
                close = difflib.get_close_matches(item.property or "", known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else f" Known are {', '.join(known)}."
                raise self.fail(f"customProperties has {item.property!r}, which Sluice does not know.{hint}")
            found[item.property] = item.value
        return found

    def _mapping(self, value: Any, where: str, known: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(f"{where} must be a mapping.")
        for key in value:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else f" Known are {', '.join(known)}."
                raise self.fail(f"{where} has {key!r}, which Sluice does not know.{hint}")
        return value

    def _columns(self) -> tuple[tuple[Column, ...], tuple[RowRule, ...]]:
        columns: list[Column] = []
        rules: list[RowRule] = []
        for item in self.schema.properties or []:
            column, own = self._column(item)
            if any(column.name == c.name for c in columns):
                raise self.fail(f"column {column.name!r} stands twice.")
            if any(column.source_name == c.source_name for c in columns):
                raise self.fail(f"the physicalName {column.source_name!r} stands twice. Remove one of its columns.")
            columns.append(column)
            rules.extend(own)
        if not columns:
            raise self.fail("the schema has no properties. List the source's columns.")
        return tuple(columns), tuple(rules)

    def _column(self, item: SchemaProperty) -> tuple[Column, list[RowRule]]:
        name = item.name or ""
        if not _IDENTIFIER.fullmatch(name):
            raise self.fail(
                f"column name {name!r} must be lower-case letters, digits and underscores; "
                "the name in the files goes into physicalName."
            )
        options = dict(item.logicalTypeOptions or {})
        self._mapping(options, f"logicalTypeOptions of {name}", _OPTIONS)
        pattern = options.get("pattern")
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise self.fail(f"the pattern of {name} is no regular expression: {error}.") from error
        enum: tuple[str, ...] = ()
        severities = self._severities(name, item)
        rules: list[RowRule] = []
        for check in item.quality or []:
            if check.type == "custom" and check.engine == "sluice" and isinstance(check.implementation, str):
                if not check.name:
                    raise self.fail(f"a quality rule of {name} has no name. Name it; dead letters are told by it.")
                severity = self._severity(check.name, check.severity)
                rules.append(RowRule(check.name, name, check.implementation, check.description or "", severity))
            elif check.type == "library" and check.metric == "invalidValues" and check.mustBe == 0:
                values = (check.arguments or {}).get("validValues")
                if not isinstance(values, list):
                    raise self.fail(f"invalidValues of {name} needs arguments.validValues, a list.")
                enum = tuple(str(value) for value in values)
                severities["enum"] = self._severity(f"invalidValues of {name}", check.severity)
            else:
                raise self.fail(
                    f"a quality rule of {name} is of a kind Sluice does not evaluate (type {check.type!r}, metric "
                    f"{check.metric!r}). Use invalidValues with mustBe: 0, or type: custom, engine: sluice."
                )
        column = Column(
            name=name,
            source_name=item.physicalName or name,
            type=self._type(name, item),
            description=(item.description or "").strip(),
            required=bool(item.required),
            unique=bool(item.unique),
            primary_key=bool(item.primaryKey),
            pattern=pattern,
            minimum=options.get("minimum"),
            maximum=options.get("maximum"),
            exclusive_minimum=options.get("exclusiveMinimum"),
            exclusive_maximum=options.get("exclusiveMaximum"),
            min_length=options.get("minLength"),
            max_length=options.get("maxLength"),
            enum=enum,
            format=self._format(name, item, options.get("format")),
            classification=item.classification,
            severities=tuple(sorted(severities.items())),
            **self._privacy(name, item),
        )
        self._check_format(column)
        return column, rules

    def _format(self, name: str, item: SchemaProperty, standard: str | None) -> str | None:
        """How the values of a column are written; of numbers the standard's own `format` cannot say it."""
        own = [custom.value for custom in item.customProperties or [] if custom.property == "format"]
        if not own:
            return standard
        if standard is not None or len(own) > 1:
            raise self.fail(f"{name} has two formats. Keep one.")
        if encoding(own[0]) is None:
            raise self._no_format(name, own[0])
        return str(own[0])

    def _no_format(self, name: str, given: Any) -> ContractError:
        return self.fail(
            f"the format {given!r} of {name} is not offered. Use {', '.join(ENCODINGS)} (the last with a scale, such "
            "as decimal_base64:2, or alone where values bring theirs) or, in logicalTypeOptions, a strptime format."
        )

    def _check_format(self, column: Column) -> None:
        """A format of `ENCODINGS` must suit its column; what only looks like one is not taken for a strptime format."""
        name, given = column.name, column.format
        named = encoding(given)
        if named is None:
            if isinstance(given, str) and re.match("epoch|decimal", given):
                raise self._no_format(name, given)
            return
        if not column.type.startswith(ENCODINGS[named]):
            raise self.fail(f"the format {given} of {name} is for {ENCODINGS[named]}, not for {column.type}.")
        if column.subject:
            raise self.fail(
                f"{name} names a {column.subject} and cannot have the format {given}: an erasure looks for ids in the "
                "files as they are in bronze. Have the source write it as text."
            )

    def _privacy(self, name: str, item: SchemaProperty) -> dict[str, str | None]:
        """What the contract says of a column's personal data: how it is treated, and whether it names a person."""
        given: dict[str, Any] = {}
        for custom in item.customProperties or []:
            given[custom.property or ""] = custom.value
        self._mapping(given, f"customProperties of {name}", ("format", "privacy", "severity", "subject"))
        personal = item.classification == PERSONAL
        privacy = given.get("privacy", PRIVACY[0] if personal else None)
        if privacy is not None and not personal:
            raise self.fail(f"{name} has privacy {privacy!r} but is not personal. Set classification: {PERSONAL}.")
        if personal and privacy not in PRIVACY:
            raise self.fail(f"privacy of {name} is {privacy!r}; it must be {' or '.join(PRIVACY)}.")
        subject = given.get("subject")
        if subject is not None and not (isinstance(subject, str) and _IDENTIFIER.fullmatch(subject)):
            raise self.fail(f"subject of {name} is {subject!r}; write whom it names in lower case, such as customer.")
        return {"privacy": privacy, "subject": subject}

    def _check_erasable(self, columns: tuple[Column, ...]) -> None:
        """Where a row outlives the person it names, what says who it was must be allowed to be null."""
        for subject in {c.subject for c in columns if c.subject}:
            if any(c.subject == subject and c.primary_key for c in columns):
                continue
            for column in columns:
                if column.required and (column.subject == subject or column.personal):
                    raise self.fail(
                        f"{column.name} is required, but must be emptied when a {subject} is erased, for the row "
                        "stays. Drop required from it; or, if the row is about nobody else and goes with the person, "
                        f"make the column that names the {subject} a part of the primary key."
                    )

    def _type(self, name: str, item: SchemaProperty) -> str:
        given = (item.physicalType or "").upper().strip()
        if given in _SCALAR_TYPES:
            return given
        match = DECIMAL.fullmatch(given)
        if match and 1 <= int(match.group(1)) <= 38 and int(match.group(2)) <= int(match.group(1)):
            return f"DECIMAL({match.group(1)},{match.group(2)})"
        offered = ", ".join(sorted(_SCALAR_TYPES))
        close = difflib.get_close_matches(given, _SCALAR_TYPES, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise self.fail(
            f"physicalType {item.physicalType!r} of {name} is not offered.{meant} Use DECIMAL(p,s) or {offered}."
        )

    def _max_rejected_share(self, value: Any) -> float:
        given = self._mapping(value or {}, "customProperties.gates", ("maxRejectedShare", "volume"))
        share = given.get("maxRejectedShare", 0.0)
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise self.fail(f"gates.maxRejectedShare must be a number from 0 to 1; it is {share!r}.")
        return float(share)

    def _volume(self, value: Any) -> VolumeGate | None:
        if not isinstance(value, dict) or value.get("volume") is None:
            return None
        given = self._mapping(value["volume"], "gates.volume", ("minimum", "maximum", "history", "severity"))
        low, high = given.get("minimum"), given.get("maximum")
        for bound in (low, high):
            if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float) or bound < 0):
                raise self.fail("gates.volume: minimum and maximum are shares of the usual rows, such as 0.5 and 2.")
        if (low is None and high is None) or (low is not None and high is not None and low > high):
            raise self.fail("gates.volume needs a minimum or a maximum, the one not above the other.")
        history = given.get("history", USUAL_HISTORY)
        if isinstance(history, bool) or not isinstance(history, int) or history < LEAST_HISTORY:
            raise self.fail(
                f"gates.volume.history must be a number of batches from {LEAST_HISTORY}; it is {history!r}."
            )
        severity = given.get("severity", "warn")
        if severity not in ("warn", "fail"):
            raise self.fail(f"gates.volume.severity is {severity!r}; it must be warn or fail.")
        return VolumeGate(None if low is None else float(low), None if high is None else float(high), history, severity)

    def _severities(self, name: str, item: SchemaProperty) -> dict[str, str]:
        """What is chosen for the rules of a column in its customProperty `severity`."""
        given: dict[str, str] = {}
        for own in item.customProperties or []:
            if own.property == "severity":
                given |= self._mapping(own.value, f"severity of {name}", (*_ANY_SEVERITY, *_NO_WARNING))
        for rule, severity in given.items():
            self._severity(f"{rule} of {name}", severity)
            if severity == "warn" and rule in _NO_WARNING:
                raise self.fail(f"severity of {name}: {rule} cannot only warn; such a row has no place in bronze.")
        return given

    def _severity(self, where: str, severity: str | None) -> str:
        if severity is not None and severity not in SEVERITIES:
            raise self.fail(f"the severity of {where} is {severity!r}; it must be one of {', '.join(SEVERITIES)}.")
        return severity or "quarantine"

    def _schema_evolution(self, value: Any) -> str:
        if value not in EVOLUTIONS:
            raise self.fail(
                f"customProperties.schemaEvolution is {value!r}; it must be one of {', '.join(EVOLUTIONS)}."
            )
        return str(value)

    def _latency_hours(self) -> float | None:
        hours = {"h": 1.0, "hours": 1.0, "hour": 1.0, "d": 24.0, "days": 24.0, "day": 24.0}
        for sla in self.document.slaProperties or []:
            if sla.property == "latency":
                if sla.unit not in hours or not isinstance(sla.value, int | float):
                    raise self.fail(f"slaProperties latency {sla.value!r} {sla.unit!r}: give a number of h or d.")
                return float(sla.value) * hours[sla.unit]
        return None

    def _owners(self) -> tuple[str, ...]:
        team = self.document.team
        members = (team if isinstance(team, list) else team.members if team else None) or []
        return tuple(m.username for m in members if m.username and m.role == "owner")
