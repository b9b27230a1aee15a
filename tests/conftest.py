"""Options, markers and processes that several kinds of tests share."""

from __future__ import annotations

import asyncio
import functools
import inspect
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.serving import ROOT, START_SECONDS, Service, running


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests/contract here, because pytest reads options only from the topmost conftest."""
    group = parser.getgroup("contract", "Open Inference Protocol (tests/contract)")
    group.addoption("--url", help="the server to test, http://HOST:PORT; default: the project's own, started here")
    group.addoption("--grpc", help="its gRPC address, HOST:PORT; without it the gRPC statements are skipped")
    group.addoption("--grpc-limit", type=int, default=8 * 2**20, help="its largest message; default: %(default)s bytes")
    group.addoption("--model", help="the model's name; default: the only one it lists")
    group.addoption("--sample", type=Path, help="a file with a JSON inference request; default: made from the metadata")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and make Hypothesis independent of the machine's speed."""
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")
    config.addinivalue_line("markers", "statement(number): the statement of tests/contract/README.md that is tested")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Asynchronous tests run on the services' own event loop."""
    return "asyncio", {"use_uvloop": True}


def pytest_itemcollected(item: pytest.Item) -> None:
    """An asynchronous test must not hang."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = bounded(item.obj)


def bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The test, failing where it takes long."""

    @functools.wraps(test)
    async def within(**fixtures: Any) -> None:
        async with asyncio.timeout(2 * START_SECONDS):
            await test(**fixtures)

    return within


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the logs of processes."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def echo(logs: Path) -> Generator[Service]:
    """The model that echoes its inputs, behind the real server."""
    with running("tests.echo", log=logs / "echo.log") as service:
        yield service


@pytest.fixture(scope="session")
def typed_echo(logs: Path) -> Generator[Service]:
    """The echo model without FP16, which has no typed contents over gRPC."""
    with running("tests.echo", "--without=FP16", log=logs / "typed_echo.log") as service:
        yield service


def trained(example: str, folder: Path) -> Path:
    """The bundle that an example's train.py writes."""
    train = ROOT / "examples" / example / "train.py"
    done = subprocess.run([sys.executable, train, folder / example], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / example


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of examples/breast_cancer: a scikit-learn pipeline on numbers, which takes no missing values."""
    return trained("breast_cancer", tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def payments_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of examples/payments: XGBoost on numbers, categories, timestamps and missing values."""
    return trained("payments", tmp_path_factory.mktemp("bundles"))


@contextmanager
def transforming(bundle: Path, predictor: Service, log: Path) -> Generator[Service]:
    """The transformer of a bundle in front of a predictor."""
    host = f"--predictor_host=127.0.0.1:{predictor.http_port}"
    with running("tabserve_transformer", f"--model_dir={bundle}", host, log=log) as service:
        yield service


@pytest.fixture(scope="session")
def predictor(bundle: Path, logs: Path) -> Generator[Service]:
    """The predictor of examples/breast_cancer."""
    with running("tabserve_predictor", f"--model_dir={bundle}", log=logs / "predictor.log") as service:
        yield service


@pytest.fixture(scope="session")
def transformer(bundle: Path, predictor: Service, logs: Path) -> Generator[Service]:
    """The transformer of examples/breast_cancer, in front of that predictor."""
    with transforming(bundle, predictor, logs / "transformer.log") as service:
        yield service


@pytest.fixture(scope="session")
def payments_predictor(payments_bundle: Path, logs: Path) -> Generator[Service]:
    """The predictor of examples/payments."""
    with running(
        "tabserve_predictor", f"--model_dir={payments_bundle}", log=logs / "payments_predictor.log"
    ) as service:
        yield service


@pytest.fixture(scope="session")
def payments_transformer(payments_bundle: Path, payments_predictor: Service, logs: Path) -> Generator[Service]:
    """The transformer of examples/payments, in front of that predictor."""
    with transforming(payments_bundle, payments_predictor, logs / "payments_transformer.log") as service:
        yield service
