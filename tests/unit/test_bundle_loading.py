from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tabserve.bundle
from tabserve import engines
from tabserve.bundle import BundleError
from tests.unit.bundles import resealed, saved

FILES = ("schema.yaml", "reference.npz", "model.skops", "model.onnx")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    return saved(model, tmp_path_factory.mktemp("original"), engine="onnxruntime").path


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def refused(folder: Path, match: str, **options: Any) -> BundleError:
    with pytest.raises(BundleError, match=match) as caught:
        tabserve.bundle.load(folder, **options)
    return caught.value


def test_a_bundle_says_what_it_is(folder: Path) -> None:
    bundle = tabserve.bundle.load(folder)
    assert bundle.manifest.name == "m"
    assert bundle.schema.outputs.classes == ("accept", "fraud")
    assert bundle.digest.startswith("sha256:")
    assert tabserve.bundle.load(folder, digest=bundle.digest).digest == bundle.digest
    assert set(bundle.manifest.files) == set(FILES)


def test_loading_imports_no_ml_library(folder: Path) -> None:
    code = (
        "import sys, tabserve.bundle; tabserve.bundle.load(sys.argv[1]);"
        "print(sorted({'sklearn', 'xgboost', 'pandas', 'onnxruntime', 'scipy', 'skops'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_refused_with_the_file(folder: Path, name: str) -> None:
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    error = refused(folder, rf"^{name}: expected sha256 .*, got ")
    assert error.remedy


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(folder: Path, name: str) -> None:
    os.truncate(folder / name, 10)
    refused(folder, rf"^{name}: expected \d+ bytes, got 10")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, rf"^{name}: missing")


def test_an_extra_file_is_refused(folder: Path) -> None:
    (folder / "sitecustomize.py").write_text("")
    refused(folder, "^sitecustomize.py: not in the manifest")


def test_a_symbolic_link_is_refused_even_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    (folder / "model.skops").rename(tmp_path / "elsewhere")
    (folder / "model.skops").symlink_to(tmp_path / "elsewhere")
    refused(folder, "^model.skops: not a regular file")


def test_a_fifo_does_not_block(folder: Path) -> None:
    (folder / "model.skops").unlink()
    os.mkfifo(folder / "model.skops")
    refused(folder, "^model.skops: not a regular file")


def test_a_manifest_that_is_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "bundle.json").rename(tmp_path / "bundle.json")
    (folder / "bundle.json").symlink_to(tmp_path / "bundle.json")
    refused(folder, "bundle.json: cannot be read")


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(folder)
    assert tabserve.bundle.load(tmp_path / "models").manifest.name == "m"


@pytest.mark.parametrize("name", ["", "my model", "a/b", "-a", "a.", "ü", "a\n", "a" * 61])
def test_a_name_that_no_path_could_hold_is_refused(folder: Path, name: str) -> None:
    resealed(folder, lambda contents: contents.update(name=name))
    error = refused(folder, "^bundle.json: name: expected 1 to 60 characters .*, got ")
    assert error.remedy == "Save the bundle again with another name."


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", "..", ".hidden", "", "bundle.json"])
def test_a_path_outside_the_folder_is_refused(folder: Path, name: str) -> None:
    resealed(folder, lambda contents: contents["files"].update({name: {"sha256": "0" * 64, "size": 1}}))
    refused(folder, "leads outside the bundle")


def test_a_ten_gigabyte_sparse_file_is_refused_unread(folder: Path) -> None:
    os.truncate(folder / "model.skops", 10 << 30)
    refused(folder, r"^model.skops: expected \d+ bytes, got 10737418240")


def test_a_huge_manifest_is_refused_unread(folder: Path) -> None:
    os.truncate(folder / "bundle.json", 10 << 30)
    refused(folder, "^bundle.json: over ")


def test_another_bundle_than_the_one_asked_for_is_refused(folder: Path) -> None:
    refused(folder, "^bundle.json: expected digest sha256:00, got sha256:", digest="sha256:00")


def test_an_empty_folder_and_none_are_no_bundles(tmp_path: Path) -> None:
    refused(tmp_path, "missing, so this is not a bundle")
    refused(tmp_path / "nowhere", "missing, so this is not a bundle")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda contents: contents.update(format=2), "expected format 1, got 2"),
        (lambda contents: contents.update(surprise=1), "unknown field `surprise`"),
        (lambda contents: contents.pop("model"), "missing required field `model`"),
        (lambda contents: contents["model"].update(file="other.skops"), "^other.skops: used by the manifest without"),
        (lambda contents: contents.update(task="regression"), "^schema.yaml: expected task regression, got binary"),
        (lambda contents: contents["model"].update(classes=[0, 1, 2]), "expected 3 names, got 2"),
        (lambda contents: contents["model"].update(format="ubj"), "^model.skops: expected ubj content, got skops"),
    ],
)
def test_a_wrong_manifest_is_refused(folder: Path, change: Callable[[dict[str, Any]], None], match: str) -> None:
    resealed(folder, change)
    refused(folder, match)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', "\x00", '{"format": "1"}'])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "bundle.json").write_text(text)
    refused(folder, "^bundle.json: not a manifest")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("features: [amount, age]", "features: [age, amount]", r"expected the model's features \[amount, age\]"),
        ("features: [amount, age]", "features: [amount]", r"expected the model's features \[amount, age\]"),
        ("{name: age, type: number}", "{name: age, type: category, values: [a]}", "expected a number, got a category"),
        ("  classes", "  default: [contributions, other]\n  classes", "expected"),
        ("task: binary", "task: binray", "expected one of"),
    ],
)
def test_a_schema_that_does_not_fit_the_model_is_refused(folder: Path, old: str, new: str, match: str) -> None:
    path = folder / "schema.yaml"
    path.write_text(path.read_text().replace(old, new))
    resealed(folder)
    assert refused(folder, match).file == "schema.yaml"


class _Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("dump", [pickle.dumps, "joblib", "zlib", "gzip", "bz2", "xz", "lzma"])
@pytest.mark.parametrize(("name", "form"), [("model.skops", "skops"), ("model.ubj", "ubj"), ("model.json", "json")])
def test_a_pickle_under_another_name_is_refused_and_never_runs(
    folder: Path, tmp_path: Path, dump: Any, name: str, form: str
) -> None:
    marker = tmp_path / "it ran"
    (folder / "model.skops").unlink()
    if callable(dump):
        (folder / name).write_bytes(dump(_Payload(marker)))
    else:
        joblib.dump(_Payload(marker), folder / name, compress=0 if dump == "joblib" else (dump, 3))
    resealed(folder, lambda contents: contents["model"].update(file=name, format=form))
    refused(folder, f"^{name}: expected {form} content, got a pickle")
    assert not marker.exists()


def test_joblib_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    bundle = saved(LogisticRegression(), tmp_path, format="joblib", allow_joblib=True)
    refused(bundle.path, "^model.joblib: loading a joblib file runs")
    loaded = tabserve.bundle.load(bundle.path, allow_joblib=True)
    assert engines.load_native(loaded, 1).run(bundle.reference.features, ["predict"])["predict"].shape == (700,)


def test_a_pickle_is_not_unpickled_before_its_digest_is_verified(tmp_path: Path) -> None:
    bundle = saved(LogisticRegression(), tmp_path, format="joblib", allow_joblib=True)
    (bundle.path / "model.joblib").write_bytes(pickle.dumps(_Payload(tmp_path / "it ran")))
    refused(bundle.path, "^model.joblib: expected", allow_joblib=True)
    assert not (tmp_path / "it ran").exists()


def test_pickled_objects_in_the_reference_are_refused(folder: Path, tmp_path: Path) -> None:
    import numpy as np

    objects = np.empty(1, object)
    objects[0] = _Payload(tmp_path / "it ran")
    np.savez(folder / "reference.npz", allow_pickle=True, **{"record/amount": objects})
    resealed(folder)
    refused(folder, "^reference.npz: not a reference")
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("library", ["scikit-learn", "onnxruntime"])
def test_a_library_older_than_the_one_that_saved_is_refused_where_it_is_used(folder: Path, library: str) -> None:
    resealed(folder, lambda contents: contents["libraries"].update({library: "99.1"}))
    bundle = tabserve.bundle.load(folder)
    with pytest.raises(
        BundleError, match=rf"saved with {library} 99.1, but the older .* is installed.* Install {library} 99.1"
    ):
        engines.open_engine(bundle, "onnxruntime" if library == "onnxruntime" else "sklearn", 1)


def test_untrusted_types_are_refused_with_their_list(folder: Path) -> None:
    import skops.io

    model = LogisticRegression()
    model.extra_ = Untrusted()
    skops.io.dump(model, folder / "model.skops")
    resealed(folder)
    bundle = tabserve.bundle.load(folder)
    with pytest.raises(BundleError, match=r"types that are not trusted: tests\.unit\.test_bundle_loading\.Untrusted\."):
        engines.load_native(bundle, 1)


class Untrusted:
    """A type that nobody vouches for."""


def test_the_manifest_is_canonical(folder: Path) -> None:
    from tabserve.bundle import manifest

    data = (folder / "bundle.json").read_bytes()
    assert manifest.encode(manifest.decode(data)) == data
    assert list(json.loads(data)) == sorted(json.loads(data))


def test_a_pickle_is_allowed_where_another_process_opens_it(tmp_path: Path) -> None:
    path = saved(LogisticRegression(), tmp_path, format="joblib", allow_joblib=True).path

    with pytest.raises(BundleError, match="runs its author's code"):
        tabserve.bundle.load(path, opened=("model",))
    assert tabserve.bundle.load(path, opened=("preprocessor",)).manifest.model.format == "joblib"
