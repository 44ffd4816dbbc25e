"""Secrets of an API come from the environment and go to its host alone: planted ones are looked for everywhere else."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from sluice.errors import ConfigurationError
from sluice.rest import fetch, staleness
from sluice.rest.secrets import Secrets
from tests import rest_server
from tests.conftest import Bench, MakeContract
from tests.rest_server import FakeClock, drip, hang, reply, reset

TOKEN = "quince jelly/41+é".encode("ascii", "ignore").decode()
KEY = "medlar-cheese-93"
FORMS = [f(s) for s in (TOKEN, KEY) for f in (str, quote, quote_plus, lambda s: quote(s, safe=""))]

REST = {
    "headers": {"Authorization": "Bearer ${THE_TOKEN}"},
    "params": {"api_key": "${THE_KEY}"},
    "retries": {"attempts": 2, "jitter": 0},
    "timeouts": {"read": 0.3, "total": 1},
    "breaker": {"failures": 99},
}


def test_no_error_log_or_file_holds_a_secret(
    bench: Bench,
    make_contract: MakeContract,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    with rest_server.serving() as server:

        def run(url: str, **rest: Any) -> None:
            contract = make_contract({"id": {}}, formats=["jsonl"], rest=REST | {"url": url} | rest)
            done = fetch(
                bench.settings, contract, ["2026-01-01", "2026-01-02"], clock=FakeClock(),
                secrets=Secrets({"THE_TOKEN": TOKEN, "THE_KEY": KEY}),
            )  # fmt: skip
            told.extend(repr(error) + str(error.__cause__) + str(error.__context__) for _, error in done.failed)
            told.append(staleness(bench.settings, contract).told)
            told.append(repr(staleness(bench.settings, contract)))

        echo = f"/again?api_key={quote(KEY)}"
        for script in (
            reply({"echo": TOKEN}, 500),
            reply({"echo": KEY}, 401),
            reply({}, 404),
            reply(TOKEN, Content_Type="text/plain"),
            reply({KEY: TOKEN}),
            reply("{" + TOKEN),
            reply({}, 302, Location=echo),
            reply({}, 302, Location=f"http://{KEY}.invalid/x?api_key={KEY}"),
            reset,
            hang,
            drip,
        ):
            server.script = [script]
            run(server.url, rows="rows")
        server.script = [reply({"rows": [{"id": "1"}], "next": echo})]
        run(server.url, rows="rows", pagination={"kind": "next_link", "path": "next"})
        run(f"{server.url}/${{THE_KEY}}/x")
        run("http://127.0.0.1:1/")
        run("http://${THE_KEY}/")
        run("http://${THE_KEY}:x/")
        # The server was told them, by those requests that were sent.
        assert any(KEY in path for path in server.paths)
        assert any(TOKEN in headers.get("Authorization", "") for headers in server.headers)
    out = "".join(capfd.readouterr())
    assert len(told) > 40 and "urllib3" in caplog.text
    texts = {"errors": "\n".join(told), "logs": caplog.text, "output": out}
    for path in sorted(bench.settings.home.rglob("*")):
        assert not any(form in path.name for form in FORMS)
        if path.is_file():
            texts[path.name] = path.read_bytes().decode("latin-1")
    assert "state.sqlite" in texts
    assert {name for name, text in texts.items() for form in FORMS if form in text} == set()


def test_a_next_link_without_the_key_gets_it(bench: Bench, make_contract: MakeContract) -> None:
    with rest_server.serving() as server:
        rest = {"params": {"api_key": "${THE_KEY}", "day": "{date}"}, "pagination": {"kind": "link_header"}}
        contract = make_contract({"id": {}}, formats=["jsonl"], rest=rest | {"url": server.url})
        server.script = [reply([{"id": "1"}], Link="</more?p=2>; rel=next"), reply([{"id": "2"}])]
        done = fetch(bench.settings, contract, ["2026-01-01"], secrets=Secrets({"THE_KEY": KEY}))
        assert done.good and server.paths == [f"/?api_key={KEY}&day=2026-01-01", f"/more?p=2&api_key={KEY}"]


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "which is not set"), ("", "which is not set"), ("a\nb", "a line end"), ("é", "a line end")],
)
def test_a_variable_that_cannot_be_sent_is_named(value: str | None, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        Secrets({"THE_TOKEN": value}).fill("headers.X", "Bearer ${THE_TOKEN}")
    assert "THE_TOKEN" in str(caught.value) and "a\nb" not in str(caught.value)


def test_it_comes_from_the_process_before_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ONE_TOKEN=file\nOTHER_TOKEN=file\n")
    monkeypatch.setattr("sluice.rest.secrets.PROJECT", tmp_path)
    monkeypatch.setenv("ONE_TOKEN", "process")
    assert Secrets().fill("x", "${ONE_TOKEN} ${OTHER_TOKEN} ${NO_TOKEN:-default}") == "process file default"
