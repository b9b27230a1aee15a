"""Every message that names an extra names one that exists, and how to get it here; nothing names an unpublished one."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

import tabserve
from tabserve import extras
from tabserve.bundle import libraries
from tests.docs.test_sentences import sources
from tests.serving import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {"pyspark": {"pyspark"}} | {  # too large for this environment
    module: {name.lower().replace("_", "-") for name in found} for module, found in packages_distributions().items()
}
COMMAND = Path(sys.executable).parent / "tabserve"
EXTRAS = PROJECT["optional-dependencies"]
TEXTS = {path: path.read_text() for ending in (".md", ".py", ".tpl", ".txt") for path in sources(ending)}


def names(requirement: str) -> set[str]:
    """The extras in a text such as `'.[train,serve]'`, or in words."""
    listed = re.findall(r"(?:tabserve|['\"]\.)\[([\w,-]+)\]", requirement)
    return {name for each in listed for name in each.split(",")} | set(re.findall(r"\bextra `([\w-]+)`", requirement))


def brought(extra: str) -> set[str]:
    """The distributions that an extra brings, also through others."""
    found: set[str] = set()
    for requirement in EXTRAS[extra]:
        inner = names(requirement)
        found |= set().union(*map(brought, inner)) if inner else {re.split(r"[^\w.-]", requirement)[0]}
    return found


def test_every_extra_that_is_named_anywhere_exists() -> None:
    named = {(path.name, name) for path, text in TEXTS.items() for name in names(text)}
    assert {"train", "serve", "batch", "loadtest"} <= {name for _, name in named}
    assert [each for each in sorted(named) if each[1] not in EXTRAS] == []


def test_nothing_tells_anybody_to_install_what_is_not_published() -> None:
    told = re.compile(r"pip install (?:[^\n`#]*?[\"' ])?tabserve(?:[\[\s\"'`.,)]|$)", re.MULTILINE)
    assert told.search("pip install tabserve[batch]")
    assert told.search('pip install "tabserve[batch]"')
    assert [str(path) for path, text in TEXTS.items() if path != Path(__file__) and told.search(text)] == []


def test_every_extra_is_documented_and_no_other() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    rows = [
        line.split("|")[1] for line in page.partition("## Extras")[2].partition("## ")[0].splitlines() if "|" in line
    ]
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == set(EXTRAS)


@pytest.mark.parametrize("module", sorted(extras.OF_MODULE))
def test_a_missing_module_is_of_the_extra_that_is_named(module: str) -> None:
    assert DISTRIBUTIONS[module] & brought(extras.OF_MODULE[module])


def test_every_module_of_an_extra_is_known() -> None:
    known = {name for module in extras.OF_MODULE for name in DISTRIBUTIONS[module]}
    others = {"xgboost", "scikit-learn-intelex"}  # one is known as xgboost-cpu, the other is not in this environment
    assert set().union(*map(brought, EXTRAS)) - known - others == set()


def test_the_oldest_versions_in_the_code_and_the_page_are_those_of_the_project() -> None:
    listed = "\n".join(text for texts in [PROJECT["dependencies"], *EXTRAS.values()] for text in texts)
    requirements = dict(re.findall(r"^([\w-]+)>=([\d.]+)", listed, re.MULTILINE))
    page = (ROOT / "docs" / "install.md").read_text().partition("## Versions")[2]
    rows = re.findall(r"^\| ([\w -]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    lock = (ROOT / "requirements.lock").read_text()
    assert {"xgboost": requirements["xgboost-cpu"]} == libraries.OLDEST
    assert len(rows) == 9
    for library, oldest, tested in rows:
        name = {"xgboost": "xgboost-cpu", "onnx runtime": "onnxruntime"}.get(library.lower(), library.lower())
        assert oldest == requirements[name], library
        assert re.search(rf"^{name}=={re.escape(tested)} ", lock, re.MULTILINE), library


def run_without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that can't import a module."""
    code = f"import sys; sys.modules[{module!r}] = None; from tabserve.cli import main; main({list(arguments)})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("pyarrow", ["score", ".", "in", "out"], "batch"),
        ("kubernetes", ["doctor"], "doctor"),
        ("locust", ["load", "run"], "loadtest"),
        ("pyarrow", ["schema", "draft", "records.parquet"], "batch"),
        ("cryptography", ["bundle", "sign", ".", "--key", "pyproject.toml"], "serve"),
    ],
)
def test_a_command_says_which_extra_it_needs(module: str, arguments: list[str], extra: str, tmp_path: Path) -> None:
    (tmp_path / "records.parquet").touch()
    given = [str(tmp_path / each) if each.endswith(".parquet") else each for each in arguments]
    done = run_without(module, *given)
    assert done.returncode == 1
    assert done.stderr == f"Error: {module} is not installed. {extras.how(extra)}\n"


def test_spark_says_which_extra_it_needs() -> None:
    code = "import sys; sys.modules['pyspark'] = None; import tabserve.spark"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.endswith(f"ModuleNotFoundError: pyspark is not installed. {extras.how('spark')}\n")


def test_without_any_extra_a_schema_is_drafted_of_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1.5,yes\n2.5,no\n")
    arguments = ["schema", "draft", str(tmp_path / "a.csv"), "--target=b"]
    code = f"import sys; sys.modules.update(dict.fromkeys({list(extras.OF_MODULE)})); from tabserve.cli import main; "
    done = subprocess.run([sys.executable, "-c", f"{code}main({arguments})"], capture_output=True, text=True)
    assert done.stdout.startswith("task: binary"), done.stderr


def test_a_module_of_no_extra_is_no_user_s_fault() -> None:
    assert extras.needs(ModuleNotFoundError(name="mine")) is None
    assert extras.needs(ModuleNotFoundError(name="sklearn.svm")) == f"sklearn is not installed. {extras.how('serve')}"


def test_the_command_tells_its_version() -> None:
    done = subprocess.run([COMMAND, "--version"], capture_output=True, text=True)
    assert done.stdout == f"tabserve, version {tabserve.__version__}\n"


def test_a_shell_completes_the_commands() -> None:
    words = {"COMP_WORDS": "tabserve bundle s", "COMP_CWORD": "2", "_TABSERVE_COMPLETE": "bash_complete"}
    completed = subprocess.run([COMMAND], env=words, capture_output=True, text=True)
    assert completed.stdout.split() == ["plain,save", "plain,show", "plain,sign"]
    page = (ROOT / "docs" / "install.md").read_text()
    lines = [f"_TABSERVE_COMPLETE={shell}_source tabserve" for shell in ("bash", "zsh", "fish")]
    assert [line for line in lines if line not in page] == []
    used = {"_TABSERVE_COMPLETE": "bash_source", "PATH": "/usr/bin:/bin"}
    assert "_tabserve_completion" in subprocess.run([COMMAND], env=used, capture_output=True, text=True).stdout


def distribution(folder: Path, name: str, version: str) -> None:
    """A distribution's record, as pip leaves it."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def verified(folder: Path, code: str) -> str:
    """What checking XGBoost says in a process that finds these distributions first."""
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); from tabserve.bundle import libraries; {code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return (done.stderr.strip().splitlines() or [done.stdout.strip()])[-1]


WHOLE = "libraries.verify_whole('xgboost'); print('whole', libraries.installed('xgboost'))"


def test_xgboost_of_two_distributions_is_refused_where_they_differ(tmp_path: Path) -> None:
    distribution(tmp_path, "xgboost", "2.1.4")
    distribution(tmp_path, "xgboost-cpu", "3.2.0")
    assert verified(tmp_path, WHOLE) == (
        "tabserve.bundle.errors.BundleError: xgboost: xgboost 2.1.4 and xgboost-cpu 3.2.0 are installed, and write the "
        "same files. Keep one of them: pip uninstall -y xgboost xgboost-cpu && pip install xgboost-cpu==3.2.0."
    )


def test_the_version_of_two_alike_is_what_their_files_say(tmp_path: Path) -> None:
    distribution(tmp_path, "xgboost", "9.9")
    distribution(tmp_path, "xgboost-cpu", "9.9")
    spec = find_spec("xgboost")
    assert spec is not None
    assert spec.origin is not None
    assert verified(tmp_path, WHOLE) == f"whole {(Path(spec.origin).parent / 'VERSION').read_text().strip()}"


NO_OTHERS = "sys.path[:] = [each for each in sys.path if 'site-packages' not in each]; "
"""Leaves only the distributions that a test made; what is imported stays."""


@pytest.mark.parametrize("left", [(), ("xgboost/lib",)])
def test_xgboost_whose_files_went_with_another_distribution_is_refused(left: tuple[str, ...], tmp_path: Path) -> None:
    distribution(tmp_path, "xgboost-cpu", "3.2.0")
    for name in left:
        (tmp_path / name).mkdir(parents=True)
    assert verified(tmp_path, NO_OTHERS + WHOLE) == (
        "tabserve.bundle.errors.BundleError: xgboost: the files of xgboost-cpu 3.2.0 are gone, with another "
        "distribution's. Install it again: pip install --force-reinstall --no-deps xgboost-cpu==3.2.0."
    )


def test_an_xgboost_that_is_too_old_saves_nothing(tmp_path: Path) -> None:
    distribution(tmp_path, "xgboost", "2.1.4")
    (tmp_path / "xgboost").mkdir()
    (tmp_path / "xgboost" / "__init__.py").touch()
    assert verified(tmp_path, NO_OTHERS + "libraries.verify_new_enough('xgboost')").endswith(
        "xgboost: expected 3.1 or newer, got 2.1.4. Install a newer one: pip install 'xgboost>=3.1'."
    )
