"""The architecture, checked: who may import whom, and that every module says what it is for.

The table is that of the architecture page. Imports are read from the source, so that those deferred into functions
count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluice.settings import PROJECT

# What a top-level part of the project may import of the project, itself included.
MAY_IMPORT: dict[str, set[str]] = {
    "sluice": {"sluice"},
    "resources": {"resources", "sluice"},
    "assets": {"assets", "resources", "sluice"},
    "sensors": {"sensors", "resources", "sluice"},
    "definitions": {"assets", "resources", "sensors", "sluice"},
}
PARTS = set(MAY_IMPORT)

# What the engine must do without: it is used from notebooks and scripts, too.
ORCHESTRATORS = {"dagster", "dagster_dbt", "dagster_duckdb", "dagster_webserver", "dbt"}
# `python -m sluice.scd_cases` runs cases through the real materialization, and that is dbt's to run.
DRIVES_DBT = "sluice/scd_harness.py"


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and top-level package of every import of a module, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


def complaints(part: str, name: str, source: str) -> list[str]:
    """What a module of a part does against the architecture."""
    found = []
    for line, package in imported(source):
        if package in PARTS and package not in MAY_IMPORT[part]:
            found.append(f"{name}:{line} imports {package}")
        if part == "sluice" and package in ORCHESTRATORS and (package, name) != ("dbt", DRIVES_DBT):
            found.append(f"{name}:{line} imports {package}: the engine never imports an orchestrator")
    if not ast.get_docstring(ast.parse(source)):
        found.append(f"{name}:1 has no docstring that says what it is for")
    return found


def modules(part: str) -> list[Path]:
    """The modules of a part."""
    single = PROJECT / f"{part}.py"
    return [single] if single.exists() else sorted((PROJECT / part).rglob("*.py"))


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_it_may(part: str) -> None:
    files = modules(part)
    assert files, f"{part} has no modules"
    found = [c for f in files for c in complaints(part, str(f.relative_to(PROJECT)), f.read_text(encoding="utf-8"))]
    assert found == []


def test_every_test_and_benchmark_says_what_it_is_for() -> None:
    for folder in ("tests", "benchmarks"):
        for path in sorted((PROJECT / folder).rglob("*.py")):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path.relative_to(PROJECT)


@pytest.mark.parametrize(
    ("part", "source", "complaint"),
    [
        ("sluice", '"""x"""\nimport dagster as dg\n', "imports dagster: the engine never"),
        ("sluice", '"""x"""\ndef f():\n    from dagster_dbt import dbt_assets\n', "m.py:3 imports dagster_dbt"),
        ("sluice", '"""x"""\nif True:\n    import dbt.cli.main\n', "m.py:3 imports dbt"),
        ("sluice", '"""x"""\nfrom assets.ingest import x\n', "m.py:2 imports assets"),
        ("sluice", '"""x"""\nimport resources.lake\n', "m.py:2 imports resources"),
        ("resources", '"""x"""\nfrom sensors import y\n', "m.py:2 imports sensors"),
        ("assets", '"""x"""\nimport definitions\n', "m.py:2 imports definitions"),
        ("sensors", '"""x"""\nimport os, assets\n', "m.py:2 imports assets"),
        ("assets", "import os\n", "m.py:1 has no docstring"),
    ],
)
def test_the_checker_complains(part: str, source: str, complaint: str) -> None:
    (found,) = complaints(part, "m.py", source)
    assert complaint in found


def test_the_checker_takes_what_is_allowed() -> None:
    source = '"""x"""\nimport os\nimport dagster\nfrom resources.lake import L\nimport sluice.books\n'
    assert complaints("assets", "m.py", source) == []
    assert complaints("sluice", "m.py", '"""x"""\nimport dagsterish\nfrom . import assets\n') == []
