"""What `make dev` looks at before it starts."""

import socket
from pathlib import Path

import pytest

from resources.instance import main, port_problem


def test_a_port_in_use_is_told_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DAGSTER_HOME", "SLUICE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main([str(port)]) == 1
        assert f"make dev PORT={port + 1}" in capsys.readouterr().err
    assert port_problem(str(port)) is None
    for text in ("abc", "80000", "0", "-1", "1e3"):
        assert main([text]) == 1
        assert capsys.readouterr().err.startswith(f"dev: {text!r} is no port. ")
    assert (tmp_path / "home/dagster/dagster.yaml").exists()
