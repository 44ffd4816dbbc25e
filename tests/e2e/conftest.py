"""What the end-to-end tests share: a small simulated shop, and a browser where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from running import DAYS, START, Shop

from sluice.simulation import generate
from tests.conftest import go_without

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    files = tmp_path_factory.mktemp("shop") / "files"
    return Shop(files, generate(files, days=DAYS, scale=0.05, start=START))


# Not for the session: while it lives, Playwright's event loop runs in this thread, and others cannot run theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, _CHROMIUM)), None) or playwright.chromium.executable_path
        if not Path(found).exists():
            go_without("no Chromium on the PATH, nor one of playwright's own")
        browser = playwright.chromium.launch(executable_path=found, args=list(_ARGUMENTS))
        yield browser
        browser.close()
