"""Connection strings and what errors tell of them: of thirteen ways to get one wrong, none shows the password in it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice import lake as lake_module
from sluice.backup import back_up
from sluice.cli import main
from sluice.connections import password_of, problem, scrub, shown, without_password
from sluice.errors import SluiceError
from sluice.lake import Lake
from sluice.settings import load_settings
from tests.postgres import PASSWORD, Server
from tests.test_secrets import WRONG, files, leaks


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails, fails at once: a server that is not there is otherwise asked for a quarter of a minute."""
    monkeypatch.setattr(lake_module, "ATTEMPTS", 1)


def ways_to_be_wrong(server: Server, name: str) -> dict[str, str]:
    """Settings of the catalog that do not work, each with a secret in it."""
    good = server.connection(name)
    return {
        "wrong password": f"{good} password={WRONG}",
        "in quotes": f"{good} password='{WRONG} and \\' more'",
        "as an address": f"postgresql://sluice:{WRONG}@127.0.0.1:{server.port}/{name}",
        "nobody listens": f"{good.replace(str(server.port), '1')} password={WRONG}",
        "no such host": f"{good.replace('127.0.0.1', 'nowhere.invalid')} password={WRONG}",
        "no such database": f"{server.connection('nowhere')} password={PASSWORD}",
        "no such role": f"{server.connection(name, 'nobody')} password={WRONG}",
        "a keyword misspelt": f"{good} passwrd={WRONG}",
        "a wrong option": f"{good} password={WRONG} sslmode=perhaps",
        "quote not closed": f"{good} password='{WRONG}",
        "quote in the middle": f"{good} password={WRONG}'x",
        "no keyword": f"{good} {WRONG}",
        "address cut off": f"postgresql://sluice:{WRONG}%zz@127.0.0.1:{server.port}/{name}",
    }


def test_no_error_of_the_lake_tells_a_password(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    postgres.database("secrets_errors")
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    told: list[tuple[str, bytes]] = []
    for name, connection in ways_to_be_wrong(postgres, "secrets_errors").items():
        monkeypatch.setenv("SLUICE_CATALOG", f"postgres:{connection}")
        for attempt in (
            lambda: Lake(load_settings()).create(),
            lambda: back_up(load_settings(), tmp_path / "backup"),
        ):
            with pytest.raises(SluiceError) as caught:
                attempt()
            # Everything that a log would have of it, causes included.
            trace = "".join(traceback.format_exception(caught.value))
            assert "SLUICE_CATALOG" in trace or "The PostgreSQL catalog" in trace, name
            told.append((name, trace.encode()))
        for words in (["query", "SELECT 1"], ["backup", str(tmp_path / "b")]):
            assert main(words) == 1, (name, words)
            out, err = capfd.readouterr()
            assert err.startswith("sluice: ") and len(err.splitlines()) == 1, (name, words)
            told.append((f"{name} {words}", (out + err).encode()))
        try:
            told.append((f"{name} repr", repr(load_settings()).encode()))
        except SluiceError:
            continue
    assert leaks(told) == []
    assert leaks(files(tmp_path)) == []


def test_postgresqls_programs_get_the_password_from_the_environment(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in a command line is seen by everybody on the machine."""
    catalog = f"postgres:{postgres.database('secrets_dump')} password='{PASSWORD}'"
    settings = load_settings(home=tmp_path / "home", catalog=catalog)
    Lake(settings).create()
    binaries = tmp_path / "bin"
    binaries.mkdir()
    wrapper = binaries / "pg_dump"
    wrapper.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nexec {postgres.programs}/pg_dump "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    back_up(settings, tmp_path / "backup")
    arguments = (tmp_path / "arguments").read_text()
    assert "dbname=secrets_dump" in arguments and PASSWORD not in arguments


@pytest.mark.parametrize(
    ("connection", "wrong"),
    [
        ("dbname=x host=h password=p", False),
        ("dbname = x password = 'a b'", False),
        (r"password='a\' b' dbname=x", False),
        ("password=a'b", False),
        ("password= dbname=x", False),
        ("postgresql://u:p%40x@h:1/d?sslmode=require", False),
        ("postgres://h/d", False),
        ("", False),
        ("password='a", True),
        ("dbname=x oops", True),
        ("oops", True),
        ("postgresql://u:p%zz@h/d", True),
        ("mysql://u:p@h/d", True),
    ],
)
def test_connection_strings_are_looked_at_before_libpq_quotes_them(connection: str, wrong: bool) -> None:
    assert (problem(connection) is not None) == wrong


def test_the_password_of_a_connection() -> None:
    assert password_of(r"host=h password='a\' b' user=u") == "a' b"
    assert password_of("host=h password = x") == "x"
    assert password_of("postgresql://u:p%40x@h/d") == "p@x"
    assert password_of("postgresql://u@h/d") is password_of("host=h password=") is password_of("") is None


def test_what_is_shown_of_a_connection() -> None:
    assert shown(r"host=h  password='a\' b' user=u passwrd=x") == "host=h user=u"
    assert shown("postgresql://u:p@h:1/d?password=x") == "u@h:1/d"
    assert scrub("password='a b' x") == "password=*** x"
    assert scrub("PGPASSWORD=abc") == "PGPASSWORD=***"
    assert scrub("postgresql://u:p@h/d") == "postgresql://u:***@h/d"
    told: Callable[[str], str] = lambda text: scrub(text, f"host=h password={WRONG} x={WRONG}")  # noqa: E731
    assert told(f'at "host=h password={WRONG} x={WRONG}" no') == 'at "host=h" no'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("host=db password=hunter2 user=u", "host=db password=*** user=u"),
        ("host=db password='hunter2 or so' user=u", "host=db password=*** user=u"),
        ('at "host=db PASSWORD = hunter2": refused', 'at "host=db PASSWORD = ***": refused'),
        ("postgresql://u:hunter2@db:5432/x?sslmode=no", "postgresql://u:***@db:5432/x?sslmode=no"),
        ("postgresql://:hunter2@db/x", "postgresql://:***@db/x"),
        ("postgresql://u@db:5432/x", "postgresql://u@db:5432/x"),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_passwords_are_hidden(text: str, told: str) -> None:
    assert scrub(text) == told
    assert "hunter2" not in without_password(text)
