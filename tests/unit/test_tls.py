"""Files of TLS that do not fit are refused by name, and read again when they have changed and fit."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from tabserve.inference import tls
from tabserve.inference.settings import ServerSettings, read
from tests.certificates import Authority


def settings(folder: Path, cert: str = "server.crt", key: str = "server.key") -> ServerSettings:
    return ServerSettings(tls_cert=str(folder / cert), tls_key=str(folder / key))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = Authority(tmp_path)
    for name in ("server", "client"):
        made.issue(name)
    return tmp_path


@pytest.mark.parametrize(
    "files", [("server.crt", "client.key"), ("none.crt", "server.key"), ("server.key", "server.key")]
)
def test_files_that_do_not_fit_are_refused(folder: Path, files: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="tls_cert, tls_key: expected a certificate and its key in"):
        tls.of_server(settings(folder, *files))


def test_an_authority_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="predictor_ca: expected certificates in"):
        tls.of_client(str(folder / "server.key"), "", "")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tls_cert": "a"}, "expected tls_cert and tls_key"),
        ({"tls_client_ca": "a"}, "expected tls_cert and tls_key"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, str], told: str) -> None:
    with pytest.raises(click.UsageError, match=told):
        read(ServerSettings, given, {})


def test_files_are_read_again_once_they_fit(folder: Path) -> None:
    files = tls.of_server(settings(folder))
    first = files.current()
    assert files.current() is first

    (folder / "server.crt").write_text("no certificate")
    assert files.current() is first
    Authority(folder, "another").issue("server")
    assert files.current() != first
