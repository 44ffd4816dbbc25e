"""The documents are true as far as a machine can tell: settings, targets, links and the lock files they speak of."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from docs.timelines import draw_all
from sluice.cli import main
from sluice.contracts import load_contracts
from sluice.settings import PROJECT, Settings

README = (PROJECT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").glob("*.md"))]


def test_the_settings_table_lists_every_setting_and_no_other() -> None:
    listed = set(re.findall(r"^\| `SLUICE_(\w+)` \|", README, re.MULTILINE))
    assert listed == {name.upper() for name in Settings.model_fields}


def test_every_target_named_exists() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"\bmake ([a-z-]+)\b(?=[`\n ]*[`\n#(L]|`)", document.read_text(encoding="utf-8")))
        assert named <= targets, document.name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_anchor_is_a_heading(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            text = (document.parent / target if target else document).read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            # As GitHub makes them: no marks but hyphens and underscores, blanks become hyphens.
            made = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
            assert anchor in made, f"{target}#{anchor}"


@pytest.mark.parametrize(
    "lock", ["requirements.lock", "requirements-dev.lock", "requirements-contracts.lock", "requirements-bench.lock"]
)
def test_locks_have_hashes_and_no_addresses(lock: str) -> None:
    text = (PROJECT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    pinned = re.findall(r"^[\w.\-\[\],]+==.*$", text, re.MULTILINE)
    assert len(pinned) > 30
    assert all(line.rstrip().endswith("\\") for line in pinned)


@pytest.mark.parametrize(
    "command",
    [
        ["sync"],
        ["books"],
        ["published"],
        ["backup"],
        ["restore"],
        ["verify"],
        ["erase"],
        ["trace"],
        ["topics"],
        ["stream"],
        ["replay"],
        ["capture"],
        ["pull"],
    ],
)
def test_the_command_line_documented_exists(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    assert command[0] in capsys.readouterr().out


def test_the_contract_of_a_captured_table_is_one(tmp_path: Path) -> None:
    text = (PROJECT / "docs" / "cdc.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    name = re.search(r"`contracts/(\w+\.odcs\.yaml)`, whole", text)
    assert name is not None
    # Beside the demo's, as a reader of the page would put it.
    shutil.copytree(PROJECT / "contracts", tmp_path / "contracts")
    (tmp_path / "contracts" / name[1]).write_text(block, encoding="utf-8")
    contracts = load_contracts(tmp_path / "contracts")
    made = contracts.pop(name[1].removesuffix(".odcs.yaml"))
    feed = made.change_feed
    assert feed is not None and feed.paths == ("position.commit", "position.order")
    assert feed.truncates and made.key == ("id",)
    assert made.stream is not None and made.stream.topic not in {c.stream.topic for c in contracts.values() if c.stream}


def test_the_time_lines_are_what_the_materialization_gives(tmp_path: Path) -> None:
    drawn = draw_all(tmp_path)
    assert len(drawn) == 4
    for path in drawn:
        kept = PROJECT / "docs" / "images" / path.name
        assert _said(kept) == _said(path), f"draw it anew: python -m docs.timelines docs/images ({path.name})"


def _said(picture: Path) -> list[str]:
    # Not bytes: where a line lies to the last digit depends on the machine's fonts.
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture.read_text(encoding="utf-8"))
