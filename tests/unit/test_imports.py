"""What importing a part of tabserve loads, which a pod's cold start pays for."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    *(
        "kserve",
        "sklearn",
        "xgboost",
        "onnxruntime",
        "pandas",
        "scipy",
        "skops",
        "onnx",
        "fastapi",
        "pydantic",
        "pyarrow",
    )
}


def loaded_by(code: str) -> set[str]:
    """Top-level modules in a new process that has run the code."""
    listing = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "tabserve.inference.server",
        "tabserve.inference.rest.codec",
        "tabserve.bundle",
        "tabserve.schema.records",
        "tabserve.cli",
        "tabserve_predictor.__main__",
        "tabserve_transformer.__main__",
    ],
)
def test_no_ml_library_and_no_sdk_is_loaded_by_importing(module: str) -> None:
    assert loaded_by(f"import {module}") & HEAVY == set()


def test_xgboost_is_imported_without_scikit_learn_and_pandas() -> None:
    loaded = loaded_by(
        "from tabserve_predictor.imports import import_booster; import_booster('xgboost'); import_booster('xgboost')"
    )

    assert loaded & {"xgboost", "sklearn", "pandas"} == {"xgboost"}


def test_xgboost_is_imported_without_what_scipy_takes_of_numpy_and_does_not_use() -> None:
    listing = "import sys; print(*(set(sys.modules) & {'numpy.f2py', 'numpy.ma', 'numpy.polynomial', 'numpy.testing'}))"
    imported = "from tabserve_predictor.imports import import_booster; import_booster('xgboost')"
    code = f"{imported}; {listing}; import numpy; print(numpy.ma.masked_array)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["", "<class 'numpy.ma.MaskedArray'>"]


def test_scikit_learn_and_pandas_can_still_be_imported_afterwards() -> None:
    loaded = loaded_by(
        "from tabserve_predictor.imports import import_booster; import_booster('xgboost'); import sklearn, pandas"
    )

    assert {"sklearn", "pandas"} <= loaded


@pytest.mark.parametrize("service", ["predictor", "transformer"])
def test_a_service_loads_templates_only_for_its_page(service: str) -> None:
    assert "jinja2" not in loaded_by(f"import tabserve_{service}.__main__")


def test_the_command_loads_neither_grpc_nor_arrow_nor_templates_until_they_are_needed() -> None:
    assert loaded_by("import tabserve.cli") & {"grpc", "jinja2", "pyarrow"} == set()


def test_the_command_needs_nothing_of_the_services() -> None:
    assert loaded_by("import tabserve.cli") & {"httptools", "uvloop"} == set()
