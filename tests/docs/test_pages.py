"""README and docs do what they say: their files are written, their commands run, their output compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tabserve_predictor.settings import Settings as PredictorSettings
from tabserve_transformer.settings import Settings as TransformerSettings
from tests.docs.blocks import Command, consoles, files
from tests.serving import ROOT, free_port

HTTP, GRPC, BUNDLE = "127.0.0.1:8080", "127.0.0.1:8081", "bundles/breast_cancer"
COMMAND_SECONDS = 300


def environment() -> dict[str, str]:
    """The environment with our commands first on the path, and without the user's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TABSERVE_")}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def run(commands: list[Command], folder: Path, addresses: dict[str, str]) -> None:
    """Run a block's commands in one shell each with the variables of those before, and compare what they print."""
    assigned = ""
    for command in commands:
        line = command.line
        for shown, used in addresses.items():
            line = line.replace(shown, used)
        done = subprocess.run(
            ["bash", "-c", assigned + line], cwd=folder, env=environment(), capture_output=True, timeout=COMMAND_SECONDS
        )
        output = done.stdout.decode().rstrip("\n")
        assert done.returncode == 0, f"$ {command.line}\n{output}\n{done.stderr.decode()}"
        assert command.prints(output), f"$ {command.line}\nexpected: {command.expected}\ngot: {output}"
        assigned += line + "\n" if line.split("=")[0].isidentifier() else ""


@contextmanager
def up(bundle: Path, *options: str) -> Generator[dict[str, str]]:
    """Serve a bundle with `tabserve up`; yields the real addresses by those that pages show."""
    http, grpc = free_port(), free_port()
    command = ["tabserve", "up", str(bundle), f"--http-port={http}", f"--grpc-port={grpc}", *options]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        serving = any("Serving until Ctrl-C" in line for line in process.stdout)
        assert serving, f"tabserve up ended with {process.wait()}"
        yield {HTTP: f"127.0.0.1:{http}", GRPC: f"127.0.0.1:{grpc}"}
    finally:
        process.terminate()
        told, _ = process.communicate(timeout=60)
        assert (process.returncode, told) == (0, "Stopped.\n")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, str]]:
    """Serve the demo's bundle; yields also its real folder."""
    bundle = tmp_path_factory.mktemp("demo") / "breast_cancer"
    subprocess.run([sys.executable, "examples/breast_cancer/train.py", str(bundle)], cwd=ROOT, check=True)
    with up(bundle) as addresses:
        yield {**addresses, BUNDLE: str(bundle)}


def test_the_readmes_commands(demo: dict[str, str], tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text()
    for name, content in files(page).items():
        (tmp_path / name).write_text(content.replace(GRPC, demo[GRPC]))
    blocks = consoles(page)

    assert len(blocks) == 2
    for block in blocks:
        run(block, tmp_path, demo)


def test_the_demo_has_a_page_for_browsers(demo: dict[str, str]) -> None:
    with urlopen(Request(f"http://{demo[HTTP]}/", headers={"Accept": "text/html"}), timeout=30) as answer:
        assert "<h1>breast-cancer <span" in answer.read().decode()


def test_what_programs_read_about_the_demo(demo: dict[str, str], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "contract.md").read_text()
    for name, content in files(page).items():
        (tmp_path / name).write_text(content.replace(HTTP, demo[HTTP]))
    blocks = consoles(page)

    assert len(blocks) == 3
    for block in blocks:
        run(block, tmp_path, demo)


@pytest.mark.parametrize(("page", "count"), [("clients.md", 5), ("request.md", 1), ("python.md", 1)])
def test_asking_from_the_shell_and_from_python(demo: dict[str, str], tmp_path: Path, page: str, count: int) -> None:
    text = (ROOT / "docs" / page).read_text()
    for name, content in files(text).items():
        given = content.removeprefix(f"# file: {name}\n").replace(HTTP, demo[HTTP]).replace(GRPC, demo[GRPC])
        (tmp_path / name).write_text(given)
    blocks = consoles(text)

    assert len(blocks) == count
    for block in blocks:
        run(block, tmp_path, demo)


def test_from_your_own_model_to_a_decision(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "your-model.md").read_text()
    for name, content in files(page).items():
        (tmp_path / name).write_text(content)
    blocks = consoles(page)

    assert len(blocks) == 3
    for block in blocks:
        run(block, tmp_path, {})


@pytest.mark.parametrize(("page", "count"), [("data.md", 3), pytest.param("decisions.md", 3, marks=pytest.mark.long)])
def test_from_files_to_files_of_decisions_and_why(tmp_path: Path, page: str, count: int) -> None:
    text = (ROOT / "docs" / page).read_text()
    for name, content in files(text).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content.removeprefix(f"# file: {name}\n"))
    blocks = consoles(text)

    assert len(blocks) == count
    for block in blocks:
        run(block, tmp_path, {})


def test_each_way_to_decide_has_a_command_that_a_test_runs() -> None:
    pages = {name: (ROOT / name).read_text() for name in ("docs/clients.md", "docs/request.md", "docs/spark.md")}
    pages |= {f"docs/{name}.md": (ROOT / f"docs/{name}.md").read_text() for name in ("data", "stream")}
    run_by_tests = [command.line for page in pages.values() for block in consoles(page) for command in block]
    shown = re.findall(r"^\| .* \| .* \| `(.+)` \|$", pages["docs/data.md"], re.MULTILINE)

    assert len(shown) == 6
    assert [each for each in shown if not any(each in line for line in run_by_tests)] == []


def test_what_a_canary_has_proven(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "rollout.md").read_text()
    for name, content in files(page).items():
        (tmp_path / name).write_text(content)
    blocks = consoles(page)

    assert len(blocks) == 2
    for block in blocks:
        run(block, tmp_path, {})


@pytest.mark.long
def test_from_a_decision_log_to_a_verdict(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "monitor.md").read_text()
    for name, content in files(page).items():
        (tmp_path / name).write_text(content)
    blocks = consoles(page)

    assert len(blocks) == 1
    for block in blocks:
        run(block, tmp_path, {})


@pytest.mark.long
def test_moving_a_model_and_its_clients(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "migrate.md").read_text()
    for name, content in files(page).items():
        (tmp_path / name).write_text(content)
    saving, *asking = consoles(page)

    run(saving, tmp_path, {})
    with up(tmp_path / "churn", "--compatible=kserve") as addresses:
        for block in asking:
            run(block, tmp_path, addresses)
    assert len(asking) == 2


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "serving.md").read_text()
    names = {*PredictorSettings.__struct_fields__, *TransformerSettings.__struct_fields__}

    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def test_pages_link_to_files_that_are_there() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())]

    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []
