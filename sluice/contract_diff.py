"""What changed between two sets of contracts, whom it breaks, and whether their versions say so.

A contract has two sides: who delivers files and who reads bronze. A change is `breaking` when files or queries that
were right before are not any more, `compatible` when both go on as they are, `documentation` when only people read it.
Where the old contracts come from (a folder, a revision of git) is here, too; what is printed is in `sluice.commands`.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from sluice.bronze import widens
from sluice.contracts import SEVERITIES, SUFFIX, VERSION, Column, Contract, Stream, VolumeGate, load_contracts
from sluice.errors import ContractError

Kind = Literal["breaking", "compatible", "documentation"]

REVISION = "git:"

# What a contract may say of its own end before it goes.
_ENDING = ("deprecated", "retired")

# A change of these is read by people, or changes how soon data are missed, and no row's fate.
_DOCUMENTATION = ("title", "description", "granularity", "domain", "owners", "status")


@dataclass(frozen=True)
class Change:
    """One difference between two versions of a contract: where, what, and whom it concerns."""

    kind: Kind
    where: str
    what: str


@dataclass(frozen=True)
class Comparison:
    """A contract then and now; `complaint` is what its version should have been, empty where it is right."""

    name: str
    before: str | None
    after: str | None
    changes: tuple[Change, ...]
    complaint: str


def compare(old: Mapping[str, Contract], new: Mapping[str, Contract]) -> list[Comparison]:
    """Every contract that was changed, came or went, by name."""
    found = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before is None and after is not None:
            change = Change("compatible", "contract", "new")
            found.append(Comparison(name, None, after.version, (change,), ""))
        elif after is None and before is not None:
            announced = before.status in _ENDING
            complaint = "" if announced else "set its status to deprecated or retired, and remove it in a later change"
            change = Change("compatible" if announced else "breaking", "contract", f"removed (it was {before.status})")
            found.append(Comparison(name, before.version, None, (change,), complaint))
        elif before is not None and after is not None:
            changes = tuple(differences(before, after))
            complaint = version_complaint(before.version, after.version, changes)
            if changes or complaint or before.version != after.version:
                found.append(Comparison(name, before.version, after.version, changes, complaint))
    return found


def version_complaint(before: str, after: str, changes: Iterable[Change]) -> str:
    """What a version should have been, by semantic versioning; empty where it is right.

    Breaking changes move the major version, compatible ones the minor, documentation none. Below 1.0.0 breaking changes
    move the minor version, and compatible ones the patch.

    Raises:
        ContractError: a version is no semantic one.
    """
    old, new = _version(before), _version(after)
    kinds = {change.kind for change in changes}
    level = 0 if "breaking" in kinds else 1 if "compatible" in kinds else None
    if new < old:
        return f"version {after} comes before {before}"
    if level is None:
        return ""
    parts = ("major", "minor", "patch")
    place = level + 1 if old[0] == new[0] == 0 else level
    if new[: place + 1] > old[: place + 1]:
        return ""
    least = [*old[:place], old[place] + 1, *([0] * (2 - place))]
    return (
        f"a {'breaking' if level == 0 else 'compatible'} change needs a new {parts[place]} version: "
        f"{'.'.join(map(str, least))} or later, not {after}"
    )


def _version(given: str) -> tuple[int, int, int]:
    match = VERSION.fullmatch(given.strip())
    if not match:
        raise ContractError(f"The version {given!r} of a contract is none: write major.minor.patch, such as 1.0.0.")
    return int(match.group(1)), int(match.group(2)), int(match.group(3))


def differences(old: Contract, new: Contract) -> Iterator[Change]:
    """Every change from one version of a contract to the next."""
    found: list[Change] = [*_columns(old, new), *_rules(old, new), *_landing(old, new)]
    handled = {"name", "version", "path", "columns", "rules", "landing"}

    def add(field: str, kind: Kind, what: str) -> None:
        handled.add(field)
        found.append(Change(kind, field, what))

    if old.change_feed != new.change_feed:
        add("change_feed", "breaking", f"{old.change_feed} → {new.change_feed}")
    if old.max_rejected_share != new.max_rejected_share:
        stricter = new.max_rejected_share < old.max_rejected_share
        told = f"{old.max_rejected_share:g} → {new.max_rejected_share:g}"
        add("max_rejected_share", "breaking" if stricter else "compatible", told)
    if old.volume != new.volume:
        add("volume", _volume(old.volume, new.volume), f"{old.volume or 'none'} → {new.volume or 'none'}")
    if old.schema_evolution != new.schema_evolution:
        # Files that came in are refused, or columns that came into bronze come no more.
        looser = ("freeze", "discard", "evolve")
        kind: Kind = (
            "compatible" if looser.index(new.schema_evolution) > looser.index(old.schema_evolution) else "breaking"
        )
        add("schema_evolution", kind, f"{old.schema_evolution} → {new.schema_evolution}")
    if old.stream != new.stream:
        add("stream", _stream(old.stream, new.stream), f"{old.stream or 'none'} → {new.stream or 'none'}")
    if old.latency_hours != new.latency_hours:
        add("latency_hours", "compatible", f"{old.latency_hours} → {new.latency_hours}")
    if old.rest != new.rest:
        # Where files come from is nobody's promise: what they hold is.
        add(
            "rest",
            "compatible",
            "how it is fetched" if old.rest and new.rest else "is fetched" if new.rest else "no longer fetched",
        )
    for field in _DOCUMENTATION:
        if getattr(old, field) != getattr(new, field):
            add(field, "documentation", "changed")
    if old.pull != new.pull:
        add("pull", "compatible", "what is pulled, or how, changed")
    yield from found
    # What this module does not know yet must not pass for nothing.
    yield from _unknown(old, new, handled, "contract")


def _stream(old: Stream | None, new: Stream | None) -> Kind:
    """Another topic, none any more, or a record set aside that was taken before; how batches are cut is nobody's."""
    if old is None:
        return "compatible"
    if new is None or new.topic != old.topic:
        return "breaking"
    stricter = new.late == "quarantine" and (
        old.late != new.late
        or old.event_time != new.event_time
        or new.allowed_lateness_seconds < old.allowed_lateness_seconds
    )
    return "breaking" if stricter else "compatible"


def _unknown(old: Any, new: Any, handled: set[str], where: str) -> Iterator[Change]:
    for field in dataclasses.fields(old):
        if field.name not in handled and getattr(old, field.name) != getattr(new, field.name):
            told = f"{field.name}: {getattr(old, field.name)!r} → {getattr(new, field.name)!r}"
            yield Change("breaking", where, told)


def _columns(old: Contract, new: Contract) -> Iterator[Change]:
    before = {c.name: c for c in old.columns}
    after = {c.name: c for c in new.columns}
    by_source = {c.source_name: c for c in new.columns if c.name not in before}
    renamed: dict[str, str] = {}
    for name, column in before.items():
        if name in after:
            continue
        now = by_source.get(column.source_name)
        if now is not None:
            renamed[now.name] = name
            yield Change("breaking", name, f"renamed to {now.name}")
            yield from _column(column, now)
        else:
            yield Change("breaking", name, "removed")
    for name, column in after.items():
        if name in before:
            yield from _column(before[name], column)
        elif name not in renamed:
            must = column.required or column.primary_key
            yield Change("breaking" if must else "compatible", name, f"new{', required' if must else ''}")
    if old.key != new.key and set(old.key) == set(new.key):
        yield Change("breaking", "primary key", f"{', '.join(old.key)} → {', '.join(new.key)}")
    shared = [c.name for c in old.columns if c.name in after]
    if shared != [c.name for c in new.columns if c.name in before]:
        yield Change("documentation" if new.landing.csv.header else "breaking", "columns", "in another order")
    elif not new.landing.csv.header and [*before][: len(after)] != [*after][: len(before)]:
        yield Change("breaking", "columns", "moved, and the files have no header")


def _column(old: Column, new: Column) -> Iterator[Change]:
    where = new.name
    if old.source_name != new.source_name:
        yield Change("breaking", where, f"physicalName {old.source_name!r} → {new.source_name!r}")
    if old.type != new.type:
        wider = widens(old.type, new.type)
        told = f"type {old.type} → {new.type} ({'wider' if wider else 'not wider'})"
        yield Change("compatible" if wider else "breaking", where, told)
    if old.primary_key != new.primary_key:
        yield Change("breaking", where, "joins the primary key" if new.primary_key else "leaves the primary key")
    for field in ("required", "unique"):
        if getattr(old, field) != getattr(new, field):
            now = getattr(new, field)
            yield Change("breaking" if now else "compatible", where, f"{field if now else f'no longer {field}'}")
    for field in ("pattern", "format"):
        a, b = getattr(old, field), getattr(new, field)
        if a != b:
            looser = field == "pattern" and b is None
            yield Change("compatible" if looser else "breaking", where, f"{field} {_said(a)} → {_said(b)}")
    for field, lower in (
        ("minimum", True),
        ("exclusive_minimum", True),
        ("min_length", True),
        ("maximum", False),
        ("exclusive_maximum", False),
        ("max_length", False),
    ):
        a, b = getattr(old, field), getattr(new, field)
        if a != b:
            yield Change(
                "compatible" if _looser(a, b, lower) else "breaking", where, f"{field} {_said(a)} → {_said(b)}"
            )
    if old.enum != new.enum:
        yield from _values(where, "allowed values", old.enum, new.enum)
    if old.classification != new.classification:
        told = f"classification {_said(old.classification)} → {_said(new.classification)}"
        yield Change("compatible", where, told)
    if old.privacy != new.privacy:
        # Who counts or joins by what readers see goes on only where a mask becomes a pseudonym; and what is to be
        # shown in clear is not to be let through unread.
        kind: Kind = "compatible" if (old.privacy, new.privacy) == ("mask", "pseudonymize") else "breaking"
        yield Change(kind, where, f"privacy {_said(old.privacy)} → {_said(new.privacy)}")
    if old.subject != new.subject:
        yield Change("compatible", where, f"subject {_said(old.subject)} → {_said(new.subject)}")
    rules = {rule for rule, _ in (*old.severities, *new.severities)}
    for rule in sorted(rules & {rule for rule, _ in new.severities}):
        yield from _severity(f"{where}, {rule}", old.severity(rule), new.severity(rule))
    if old.description != new.description:
        yield Change("documentation", where, "description")
    handled = {"name", "source_name", "type", "primary_key", "required", "unique", "pattern", "format", "enum"}
    handled |= {"minimum", "maximum", "exclusive_minimum", "exclusive_maximum", "min_length", "max_length"}
    yield from _unknown(
        old, new, handled | {"classification", "privacy", "subject", "severities", "description"}, where
    )


def _values(where: str, what: str, old: tuple[str, ...], new: tuple[str, ...]) -> Iterator[Change]:
    """A list of allowed values; an empty one allows all."""
    gone, come = [v for v in old if v not in new], [v for v in new if v not in old]
    if not new:
        yield Change("compatible", where, f"{what}: any")
    elif not old or gone:
        yield Change("breaking", where, f"{what}: only {', '.join(new)}")
    elif come:
        yield Change("compatible", where, f"{what}: {', '.join(come)} besides")
    else:
        yield Change("documentation", where, f"{what} in another order")


def _looser(old: Any, new: Any, lower: bool) -> bool:
    """Whether a bound lets in all it did before; of bounds that cannot be compared nobody can say so."""
    if new is None:
        return True
    if old is None:
        return False
    try:
        a, b = Decimal(str(old)), Decimal(str(new))
    except InvalidOperation:
        # Dates and times in one way of writing are in order as texts.
        a, b = str(old), str(new)  # type: ignore[assignment]
        if len(str(a)) != len(str(b)):
            return False
    return b <= a if lower else b >= a


def _said(value: Any) -> str:
    return "none" if value is None else repr(value)


def _rules(old: Contract, new: Contract) -> Iterator[Change]:
    before = {(r.column, r.name): r for r in old.rules}
    after = {(r.column, r.name): r for r in new.rules}
    for key in {**before, **after}:
        was, now = before.get(key), after.get(key)
        where = f"{key[0]}, rule {key[1]}"
        if now is None:
            yield Change("compatible", where, "removed")
        elif was is None:
            yield Change("breaking", where, f"new: {now.condition}")
        elif was.condition != now.condition:
            yield Change("breaking", where, f"{was.condition} → {now.condition}")
        else:
            yield from _severity(where, was.severity, now.severity)
            if was.description != now.description:
                yield Change("documentation", where, "description")


def _severity(where: str, old: str, new: str) -> Iterator[Change]:
    if old != new:
        stricter = SEVERITIES.index(new) > SEVERITIES.index(old)
        yield Change("breaking" if stricter else "compatible", where, f"severity {old} → {new}")


def _volume(old: VolumeGate | None, new: VolumeGate | None) -> Kind:
    """A gate that only warns stops nobody; one that refuses breaks whom it let through."""
    if new is None or new.severity == "warn":
        return "compatible"
    if old is None or old.severity == "warn":
        return "breaking"
    wider = _looser(old.minimum, new.minimum, True) and _looser(old.maximum, new.maximum, False)
    return "compatible" if wider and old.history == new.history else "breaking"


def _landing(old: Contract, new: Contract) -> Iterator[Change]:
    a, b = old.landing, new.landing
    if a.path != b.path:
        yield Change("breaking", "landing.path", f"{a.path} → {b.path}")
    gone, come = [f for f in a.formats if f not in b.formats], [f for f in b.formats if f not in a.formats]
    if gone:
        yield Change("breaking", "landing.formats", f"no longer {', '.join(gone)}")
    elif come:
        yield Change("compatible", "landing.formats", f"{', '.join(come)} besides")
    if list(a.partitions) != list(b.partitions):
        yield Change("breaking", "landing.partitions", f"{', '.join(a.partitions)} → {', '.join(b.partitions)}")
    else:
        for token, values in a.partitions.items():
            if values != b.partitions[token]:
                yield from _values(f"landing.partitions.{token}", "values", values, b.partitions[token])
    for field in dataclasses.fields(a.csv):
        was, now = getattr(a.csv, field.name), getattr(b.csv, field.name)
        if was != now:
            yield Change("breaking", f"landing.csv.{field.name}", f"{was!r} → {now!r}")
    if a.duplicates != b.duplicates:
        yield Change("breaking", "landing.duplicates", f"{a.duplicates} → {b.duplicates}")
    yield from _unknown(a, b, {"path", "formats", "partitions", "csv", "duplicates"}, "landing")


def contracts_at(place: str, standing: Path) -> dict[str, Contract]:
    """The contracts in a folder, or as they were at a revision of git (`git:HEAD^`, `git:v1.2:other/contracts`).

    Args:
        place: the folder; or `git:` and a revision of the repository that holds `standing`, and, behind another colon,
            the folder in it when it was another one then.
        standing: the folder of the contracts in force.

    Raises:
        ContractError: there is no such place, or a contract there cannot be read. A revision that has no such folder
            has no contracts.
    """
    if not place.startswith(REVISION):
        if not Path(place).is_dir():
            raise ContractError(f"There is no folder {place!r}. A revision is written as git:{place}.")
        return load_contracts(Path(place))
    revision, _, folder = place.removeprefix(REVISION).partition(":")
    top = Path(_git(standing)("rev-parse", "--show-toplevel").strip())
    git = _git(top)
    if not revision or revision.startswith("-"):
        raise ContractError(f"{place!r} names no revision. Write for instance git:HEAD^ or git:v1.0.0.")
    try:
        commit = git("rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}").strip()
    except ContractError as error:
        raise ContractError(f"{revision!r} is no revision of the repository in {top}.") from error
    inside = (folder or standing.resolve().relative_to(top.resolve()).as_posix()).strip("/") + "/"
    names = git("ls-tree", "-z", "--name-only", commit, "--", inside).split("\0")
    wanted = [name for name in names if name.endswith(SUFFIX)]
    if not wanted and folder:
        raise ContractError(f"There is no contract (*{SUFFIX}) in {inside} at {revision}.")
    if not wanted:
        return {}
    with TemporaryDirectory() as temporary:
        for name in wanted:
            (Path(temporary) / Path(name).name).write_text(git("show", f"{commit}:{name}"), encoding="utf-8")
        return load_contracts(Path(temporary))


def _git(folder: Path) -> Callable[..., str]:
    """Runs git in a folder; it is never let on the network, not even for objects a partial clone has left out."""
    environment = {**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}

    def run(*arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, check=True, env=environment, timeout=60
            )
        except FileNotFoundError as error:
            raise ContractError("git is not installed. Compare with a folder instead.") from error
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().splitlines()
            raise ContractError(
                f"git {arguments[0]} failed in {folder}: {said[0] if said else 'no word why'}."
            ) from error
        return done.stdout.decode("utf-8", errors="strict")

    return run
