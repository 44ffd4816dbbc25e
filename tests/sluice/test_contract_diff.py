"""What changed between contracts: each kind of change has its class, and the version must say so."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice import contract_diff
from sluice.cli import main
from sluice.contract_diff import compare, contracts_at, differences, version_complaint
from sluice.contracts import Contract, VolumeGate, load_contract, load_contracts
from sluice.settings import PROJECT
from tests.conftest import contract_document

Document = dict[str, Any]
Edit = Callable[[Document], Any]


def document() -> Document:
    made = contract_document(
        {
            "id": {"physicalType": "INTEGER", "required": True, "primaryKey": True},
            "name": {
                "physicalName": "Name",
                "logicalTypeOptions": {"pattern": "^a", "minLength": 1, "maxLength": 9},
                "description": "What it is called.",
                "quality": [
                    {"name": "short", "type": "custom", "engine": "sluice", "implementation": "length(name) < 9"}
                ],
            },
            "size": {
                "physicalType": "DECIMAL(10,2)",
                "logicalTypeOptions": {"minimum": 0, "exclusiveMaximum": 100},
            },
            "kind": {
                "quality": [
                    {
                        "type": "library",
                        "metric": "invalidValues",
                        "arguments": {"validValues": ["a", "b"]},
                        "mustBe": 0,
                    }
                ],
            },
        },
        formats=["csv", "jsonl"],
        share=0.1,
        path="things/region={region}/date={date}",
        partitions={"region": ["uk", "eu"]},
    )
    made["slaProperties"] = [{"property": "latency", "value": 36, "unit": "h"}]
    return made


def contract(folder: Path, made: Document) -> Contract:
    folder.mkdir(exist_ok=True)
    path = folder / "things.odcs.yaml"
    path.write_text(yaml.safe_dump(made, sort_keys=False), encoding="utf-8")
    return load_contract(path)


def column(made: Document, name: str) -> Document:
    return next(p for p in made["schema"][0]["properties"] if p["name"] == name)  # type: ignore[no-any-return]


def custom(made: Document, name: str) -> Document:
    return next(p["value"] for p in made["schema"][0]["customProperties"] if p["property"] == name)  # type: ignore[no-any-return]


def put(column_: str, **given: Any) -> Edit:
    return lambda made: column(made, column_).update(given)


def option(name: str, **given: Any) -> Edit:
    return lambda made: column(made, name).setdefault("logicalTypeOptions", {}).update(given)


def no_option(name: str, which: str) -> Edit:
    return lambda made: column(made, name)["logicalTypeOptions"].pop(which)


def landing(**given: Any) -> Edit:
    return lambda made: custom(made, "landing").update(given)


def new_column(**given: Any) -> Edit:
    added = {"name": "more", "logicalType": "string", "physicalType": "VARCHAR", **given}
    return lambda made: made["schema"][0]["properties"].append(added)


def drop(name: str) -> Edit:
    return lambda made: made["schema"][0]["properties"].remove(column(made, name))


def evolution(mode: str) -> Edit:
    return lambda made: made["schema"][0]["customProperties"].append({"property": "schemaEvolution", "value": mode})


def severity(**rules: str) -> Document:
    return {"property": "severity", "value": rules}


def volume(**bounds: Any) -> Edit:
    return lambda made: custom(made, "gates").update(volume={"severity": "warn", **bounds})


def enum(*values: str) -> Edit:
    return lambda made: column(made, "kind")["quality"][0]["arguments"].update(validValues=list(values))


CHANGES: list[tuple[Edit, str, str]] = [
    (drop("size"), "breaking", "size: removed"),
    (put("size", name="extent", physicalName="size"), "breaking", "size: renamed to extent"),
    (put("name", physicalName="Title"), "breaking", "name: physicalName 'Name' → 'Title'"),
    (put("size", physicalType="DECIMAL(8,2)"), "breaking", "size: type DECIMAL(10,2) → DECIMAL(8,2) (not wider)"),
    (put("size", physicalType="DECIMAL(12,2)"), "compatible", "size: type DECIMAL(10,2) → DECIMAL(12,2) (wider)"),
    (put("id", physicalType="BIGINT"), "compatible", "id: type INTEGER → BIGINT (wider)"),
    (put("id", physicalType="VARCHAR", logicalType="string"), "breaking", "id: type INTEGER → VARCHAR (not wider)"),
    (put("name", required=True), "breaking", "name: required"),
    (put("id", required=False), "compatible", "id: no longer required"),
    (put("name", unique=True), "breaking", "name: unique"),
    (put("name", primaryKey=True), "breaking", "name: joins the primary key"),
    (put("id", primaryKey=False), "breaking", "id: leaves the primary key"),
    (new_column(), "compatible", "more: new"),
    (new_column(required=True), "breaking", "more: new, required"),
    (option("name", pattern="^b"), "breaking", "name: pattern '^a' → '^b'"),
    (no_option("name", "pattern"), "compatible", "name: pattern '^a' → none"),
    (option("kind", pattern="x"), "breaking", "kind: pattern none → 'x'"),
    (option("size", minimum=1), "breaking", "size: minimum 0 → 1"),
    (option("size", minimum=-1), "compatible", "size: minimum 0 → -1"),
    (option("size", exclusiveMaximum=99.5), "breaking", "size: exclusive_maximum 100 → 99.5"),
    (no_option("size", "exclusiveMaximum"), "compatible", "size: exclusive_maximum 100 → none"),
    (option("name", minLength=2), "breaking", "name: min_length 1 → 2"),
    (option("name", maxLength=10), "compatible", "name: max_length 9 → 10"),
    (enum("a"), "breaking", "kind: allowed values: only a"),
    (enum("a", "b", "c"), "compatible", "kind: allowed values: c besides"),
    (enum("b", "a"), "documentation", "kind: allowed values in another order"),
    (lambda made: column(made, "kind").pop("quality"), "compatible", "kind: allowed values: any"),
    (
        lambda made: column(made, "name")["quality"][0].update(implementation="length(name) < 8"),
        "breaking",
        "name, rule short: length(name) < 9 → length(name) < 8",
    ),
    (lambda made: column(made, "name").pop("quality"), "compatible", "name, rule short: removed"),
    (
        put("size", quality=[{"name": "q", "type": "custom", "engine": "sluice", "implementation": "size > 1"}]),
        "breaking",
        "size, rule q: new: size > 1",
    ),
    (landing(path="other/region={region}/date={date}"), "breaking", "landing.path: things/"),
    (landing(formats=["csv"]), "breaking", "landing.formats: no longer jsonl"),
    (landing(formats=["csv", "jsonl", "parquet"]), "compatible", "landing.formats: parquet besides"),
    (landing(partitions={"region": ["uk"]}), "breaking", "landing.partitions.region: values: only uk"),
    (
        landing(partitions={"region": ["uk", "eu", "row"]}),
        "compatible",
        "landing.partitions.region: values: row besides",
    ),
    (landing(partitions={}), "breaking", "landing.partitions: region → "),
    (landing(csv={"delimiter": ";"}), "breaking", "landing.csv.delimiter: ',' → ';'"),
    (landing(duplicates="batch"), "breaking", "landing.duplicates: file → batch"),
    (evolution("freeze"), "breaking", "schema_evolution: evolve → freeze"),
    (evolution("discard"), "breaking", "schema_evolution: evolve → discard"),
    (lambda made: custom(made, "gates").update(maxRejectedShare=0), "breaking", "max_rejected_share: 0.1 → 0"),
    (lambda made: custom(made, "gates").update(maxRejectedShare=1), "compatible", "max_rejected_share: 0.1 → 1"),
    (lambda made: made["slaProperties"][0].update(value=2), "compatible", "latency_hours: 36.0 → 2.0"),
    (put("name", classification="internal"), "compatible", "name: classification none → 'internal'"),
    (
        put("name", customProperties=[severity(pattern="warn")]),
        "compatible",
        "name, pattern: severity quarantine → warn",
    ),
    (put("name", customProperties=[severity(pattern="fail")]), "breaking", "name, pattern: severity quarantine → fail"),
    (
        lambda made: column(made, "name")["quality"][0].update(severity="fail"),
        "breaking",
        "name, rule short: severity quarantine → fail",
    ),
    (volume(minimum=0.5), "compatible", "volume: none → VolumeGate(minimum=0.5"),
    (volume(minimum=0.5, severity="fail"), "breaking", "volume: none → VolumeGate(minimum=0.5"),
    (put("name", description="Its name."), "documentation", "name: description"),
    (lambda made: made.update(domain="sales"), "documentation", "domain: changed"),
    (lambda made: made["schema"][0].update(description="Things."), "documentation", "description: changed"),
    (lambda made: made["schema"][0]["properties"].reverse(), "documentation", "columns: in another order"),
]


def test_how_a_personal_column_is_shown_breaks_who_reads_it(tmp_path: Path) -> None:
    def of(**shown: str) -> Contract:
        made = document()
        properties = [{"property": name, "value": value} for name, value in shown.items()]
        column(made, "name").update(classification="personal", customProperties=properties)
        return contract(tmp_path / "-".join(shown.values() or ["plain"]), made)

    clear = contract(tmp_path / "clear", document())
    hashed, masked, person = of(privacy="pseudonymize"), of(privacy="mask"), of(subject="customer")

    def told(old: Contract, new: Contract) -> list[tuple[str, str]]:
        return [(c.kind, c.what) for c in differences(old, new) if "classification" not in c.what]

    assert told(clear, masked) == [("breaking", "privacy none → 'mask'")]
    assert told(masked, hashed) == [("compatible", "privacy 'mask' → 'pseudonymize'")]
    assert told(hashed, masked) == [("breaking", "privacy 'pseudonymize' → 'mask'")]
    # What was protected is to be shown in clear.
    assert told(hashed, clear) == [("breaking", "privacy 'pseudonymize' → none")]
    assert told(hashed, person) == [("compatible", "subject none → 'customer'")]


@pytest.mark.parametrize(("edit", "kind", "told"), CHANGES, ids=[t for *_, t in CHANGES])
def test_each_change_has_its_class(edit: Edit, kind: str, told: str, tmp_path: Path) -> None:
    changed = document()
    edit(changed)
    old, new = contract(tmp_path / "old", document()), contract(tmp_path / "new", changed)
    found = [(c.kind, f"{c.where}: {c.what}") for c in differences(old, new)]
    assert (kind, True) in [(k, t.startswith(told)) for k, t in found], found
    # Nothing besides is told, but what the edit brings with it.
    assert len(found) == 1, found
    (each,) = compare({"things": old}, {"things": new})
    assert bool(each.complaint) == (kind != "documentation")


def test_what_is_not_known_here_yet_is_breaking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field that a later version of the engine gives a contract cannot slip through."""
    old = contract(tmp_path, document())
    assert list(differences(old, old)) == []
    for field in dataclasses.fields(old):
        if field.name in ("path", "name", "version", "columns", "rules", "landing"):
            continue
        changed = dataclasses.replace(old, **{field.name: _other(getattr(old, field.name), field.name)})
        assert list(differences(old, changed)), field.name
    for field in dataclasses.fields(old.columns[0]):
        first = dataclasses.replace(
            old.columns[0], **{field.name: _other(getattr(old.columns[0], field.name), field.name)}
        )
        changed = dataclasses.replace(old, columns=(first, *old.columns[1:]))
        assert list(differences(old, changed)), field.name
    monkeypatch.setattr(contract_diff, "_DOCUMENTATION", ())
    (found,) = differences(old, dataclasses.replace(old, domain="sales"))
    assert (found.kind, found.what) == ("breaking", "domain: 'default' → 'sales'")


def _other(value: Any, field: str) -> Any:
    if field == "volume":
        return VolumeGate(0.5, None, 28, "fail")
    if field == "severities":
        return (("type", "fail"),)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, tuple):
        return (*value, "other")
    return {"evolve": "freeze", "INTEGER": "UUID"}.get(value, "other")


def test_without_a_header_the_places_of_columns_are_what_counts(tmp_path: Path) -> None:
    plain = document()
    custom(plain, "landing")["csv"] = {"header": False}
    first = {"name": "more", "logicalType": "string", "physicalType": "VARCHAR"}
    edits: list[Edit] = [
        lambda made: made["schema"][0]["properties"].reverse(),
        lambda made: made["schema"][0]["properties"].insert(0, first),
    ]
    for edit in edits:
        changed = copy.deepcopy(plain)
        edit(changed)
        kinds = {c.kind for c in differences(contract(tmp_path / "o", plain), contract(tmp_path / "n", changed))}
        assert "breaking" in kinds


@pytest.mark.parametrize(
    ("before", "after", "kinds", "complaint"),
    [
        ("1.0.0", "1.0.0", [], ""),
        ("1.0.0", "1.0.0", ["documentation"], ""),
        ("1.0.0", "1.0.0", ["compatible"], "a compatible change needs a new minor version: 1.1.0 or later, not 1.0.0"),
        ("1.0.0", "1.0.1", ["compatible"], "a compatible change needs a new minor version: 1.1.0 or later, not 1.0.1"),
        ("1.0.0", "1.1.0", ["compatible", "documentation"], ""),
        ("1.2.3", "1.3.0", ["breaking"], "a breaking change needs a new major version: 2.0.0 or later, not 1.3.0"),
        ("1.2.3", "2.0.0", ["breaking", "compatible"], ""),
        ("1.2.3", "1.2.2", [], "version 1.2.2 comes before 1.2.3"),
        ("0.1.0", "0.1.1", ["breaking"], "a breaking change needs a new minor version: 0.2.0 or later, not 0.1.1"),
        ("0.1.0", "0.2.0", ["breaking"], ""),
        ("0.1.0", "0.1.1", ["compatible"], ""),
        ("0.9.0", "1.0.0", ["breaking"], ""),
    ],
)
def test_the_version_must_say_it(before: str, after: str, kinds: list[str], complaint: str) -> None:
    changes = [contract_diff.Change(kind, "x", "y") for kind in kinds]  # type: ignore[arg-type]
    assert version_complaint(before, after, changes) == complaint


def test_contracts_come_and_go(tmp_path: Path) -> None:
    old = contract(tmp_path, document())
    (came,) = compare({}, {"things": old})
    assert (came.before, came.after, came.complaint) == (None, "1.0.0", "")
    (gone,) = compare({"things": old}, {})
    assert gone.changes[0].kind == "breaking" and "deprecated or retired" in gone.complaint
    (announced,) = compare({"things": dataclasses.replace(old, status="retired")}, {})
    assert announced.complaint == "" and compare({"things": old}, {"things": old}) == []


# The command


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of two commits whose last one narrows a type."""
    folder = tmp_path / "repository" / "deep"
    folder.mkdir(parents=True)
    git(folder.parent, "init", "-q", "-b", "main")
    for number, kind in enumerate(("DECIMAL(10,2)", "DECIMAL(8,2)")):
        made = document()
        column(made, "size")["physicalType"] = kind
        contract(folder / "contracts", made)
        git(folder.parent, "add", "-A")
        git(folder.parent, "commit", "-q", "-m", str(number))
    return folder / "contracts"


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_command_compares_with_a_revision(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_CONTRACTS", str(repository))
    assert main(["contracts", "diff", "git:HEAD"]) == 0
    assert capsys.readouterr().out == "0 contracts changed, 1 did not, 0 refused\n"
    assert main(["contracts", "diff", "git:HEAD^"]) == 1
    assert capsys.readouterr().out == (
        "things 1.0.0 → 1.0.0\n"
        "    breaking      size: type DECIMAL(10,2) → DECIMAL(8,2) (not wider)\n"
        "    refused: a breaking change needs a new major version: 2.0.0 or later, not 1.0.0\n"
        "1 contract changed, 0 did not, 1 refused\n"
    )
    # Either side may be a revision or a folder, and a folder another one in the repository.
    assert main(["contracts", "diff", "git:HEAD", "git:HEAD^"]) == 1
    assert "(wider)" in capsys.readouterr().out
    assert main(["contracts", "diff", str(repository), "git:HEAD:deep/contracts"]) == 0
    # What is not committed yet counts, and a version that says it is taken.
    made = document()
    made["version"] = "2.0.0"
    column(made, "size")["physicalType"] = "DECIMAL(8,2)"
    contract(repository, made)
    assert main(["contracts", "diff", "git:HEAD^"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["HEAD"], "There is no folder 'HEAD'. A revision is written as git:HEAD."),
        (["git:nowhere"], "'nowhere' is no revision of the repository in"),
        (["git:"], "names no revision"),
        (["git:--upload-pack=x"], "names no revision"),
        (["git:HEAD:elsewhere"], "no contract (*.odcs.yaml) in elsewhere/ at HEAD"),
        (["/"], "No contract (*.odcs.yaml) in /. "),
    ],
)
def test_what_cannot_be_compared_is_code_2(
    arguments: list[str],
    words: str,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SLUICE_CONTRACTS", str(repository))
    assert main(["contracts", "diff", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err and len(captured.err.splitlines()) == 1


def test_without_a_repository_or_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    made = document()
    contract(tmp_path / "contracts", made)
    monkeypatch.setenv("SLUICE_CONTRACTS", str(tmp_path / "contracts"))
    assert main(["contracts", "diff", "git:HEAD"]) == 2
    assert "git rev-parse failed" in capsys.readouterr().err
    made["version"] = "one"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/things.odcs.yaml").write_text(yaml.safe_dump(made))
    assert main(["contracts", "diff", str(tmp_path / "other")]) == 2
    assert "version 'one' must be major.minor.patch" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["contracts", "diff"])
    assert stopped.value.code == 2


def test_a_revision_without_the_folder_has_no_contracts(repository: Path) -> None:
    root = repository.parent.parent
    (root / "new").mkdir()
    assert contracts_at("git:HEAD", root / "new") == {}
    assert set(contracts_at("git:HEAD:deep/contracts", root / "new")) == {"things"}


def test_the_project_own_contracts_are_compared_by_lint() -> None:
    assert 'contracts diff "git:$(CONTRACTS_SINCE)"' in (PROJECT / "Makefile").read_text(encoding="utf-8")
    mine = load_contracts(PROJECT / "contracts")
    assert compare(mine, mine) == []
