"""The transformer's decision log: what is refused before the service starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import xgboost

from tabserve.bundle import Bundle
from tabserve.inference.settings import read
from tabserve_transformer.__main__ import serve
from tabserve_transformer.settings import Settings
from tests.unit.bundles import saved

BANDS = "  decision: {score: fraud, bands: [{from: 0.5, label: block}, {from: 0, label: accept}]}\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    model = xgboost.XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1)
    return saved(model, tmp_path_factory.mktemp("saved"), extra=BANDS)


def refusal(bundle: Bundle, **settings: str) -> str:
    """Why a transformer with these settings does not start."""
    given = {"predictor_host": "127.0.0.1:1", "model_dir": str(bundle.path), **settings}
    with pytest.raises(SystemExit) as ended:
        serve(read(Settings, given, {}))
    return str(ended.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"decision_log_always": "accept, blok"},
            "decision_log_always: the bundle has no decision blok. Its decisions are block, accept.",
        ),
        (
            {"decision_log_buffer_rows": "9999"},
            "decision_log_buffer_rows: 9999 rows are less than a request may have. Set it to at least max_rows, 10000.",
        ),
        ({"decision_log": "kafka://broker"}, "decision_log: expected kafka://HOST:PORT/TOPIC, with commas between"),
        (
            {"decision_log": "kafka://broker:1/topic", "decision_log_kafka_file": "/none"},
            "decision_log_kafka_file: /none cannot be read: No such file or directory. Name a file",
        ),
        ({"decision_log": "/dev/null/log"}, "decision_log: cannot write to /dev/null/log: Not a directory."),
    ],
)
def test_what_does_not_fit_ends_it_before_it_serves(
    bundle: Bundle, tmp_path: Path, settings: dict[str, str], told: str
) -> None:
    assert told in refusal(bundle, **{"decision_log": str(tmp_path / "log"), **settings})


def test_without_arrow_it_says_how_to_get_it(bundle: Bundle, tmp_path: Path) -> None:
    arguments = [f"--model_dir={bundle.path}", "--predictor_host=127.0.0.1:1", f"--decision_log={tmp_path}"]
    code = (
        f"import sys; sys.modules['pyarrow'] = None; from tabserve_transformer.__main__ import main; main({arguments})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 1
    assert "transformer: decision_log: pyarrow is not installed. In a checkout" in done.stderr
    assert "pip install '.[transformer-log]'" in done.stderr
