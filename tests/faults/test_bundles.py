"""Bundles that must not be served (fault catalogue 46 to 51) end the process with one line that says why."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from skops import io as skops

from tests.selection import often
from tests.serving import STOP_SECONDS, start

MIB = 2**20
MOST = 64 * MIB
"""How much more memory than a good bundle a hostile one may take."""
"""The memory that a process may take to refuse a bundle."""
Tamper = Callable[[Path], object]


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change bundle.json."""
    path = folder / "bundle.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest))


def replace(folder: Path, name: str, content: bytes) -> None:
    """Replace a file's content, and its digest in bundle.json, as an attacker with access to the folder would."""
    (folder / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    rewrite(folder, lambda manifest: manifest["files"].update({name: entry}))


def renamed(folder: Path, old: str, new: str, content: bytes, file_format: str) -> None:
    """Replace the model with one in another format."""
    (folder / old).unlink()
    rewrite(folder, lambda manifest: manifest["files"].pop(old))
    rewrite(folder, lambda manifest: manifest["model"].update(file=new, format=file_format))
    replace(folder, new, content)


def emptied(folder: Path) -> None:
    """Leave the folder empty."""
    for path in folder.iterdir():
        path.unlink()


def flipped(folder: Path) -> None:
    """Flip one bit of the model."""
    path = folder / "model.skops"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(folder: Path) -> None:
    """Cut off the model's end."""
    path = folder / "model.skops"
    path.write_bytes(path.read_bytes()[:-100])


def linked(folder: Path) -> None:
    """Make the model a link to a file elsewhere."""
    path = folder / "model.skops"
    shutil.move(path, folder.parent / "elsewhere.skops")
    path.symlink_to(folder.parent / "elsewhere.skops")


def outside(folder: Path) -> None:
    """Let bundle.json name a file outside the folder."""
    shutil.copy(folder / "model.skops", folder.parent / "outside.skops")
    rewrite(folder, lambda manifest: manifest["files"].update({"../outside.skops": manifest["files"]["model.skops"]}))


def sparse(folder: Path) -> None:
    """Make the model ten thousand million bytes of nothing."""
    os.truncate(folder / "model.skops", 10 * 10**9)


class Bomb:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("EXPLODED"),)


def untrusted(folder: Path) -> None:
    """Let the skops file hold a type that nobody trusts."""
    replace(folder, "model.skops", skops.dumps(Bomb.__new__(Bomb)))


def schema_of_others(folder: Path) -> None:
    """Give the schema other features than the model's."""
    text = (folder / "schema.yaml").read_text().replace("radius", "girth")
    replace(folder, "schema.yaml", text.encode())


def newer_library(folder: Path) -> None:
    """Make the bundle one saved by a newer library."""
    rewrite(folder, lambda manifest: manifest["libraries"].update({"scikit-learn": "99.0"}))


def zipped(content: bytes, members: Mapping[str, bytes]) -> bytes:
    """A zip with some members replaced or added."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as after:
        kept = {name: before.read(name) for name in before.namelist()}
        for name, data in {**kept, **members}.items():
            after.writestr(name, data)
    return written.getvalue()


def with_member(file: str, name: str, data: Callable[[], bytes]) -> Tamper:
    """A function that puts a member into a zip of the bundle."""
    return lambda folder: replace(folder, file, zipped((folder / file).read_bytes(), {name: data()}))


def npy(shape: tuple[int, ...], data: bytes) -> bytes:
    """An array as an .npy file, with any header."""
    written = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(written, header)
    return written.getvalue() + data


def nested(depth: int) -> bytes:
    """The JSON of a skops file of lists in lists."""
    start, end = b'{"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": [', b"]}"
    return start * depth + end * depth


def set_key(key: str, value: Any) -> Tamper:
    """A function that sets a key of bundle.json to another value."""
    return lambda folder: rewrite(folder, lambda manifest: manifest.update({key: value}))


# What is done to the bundle of examples/breast_cancer, and words in the refusal.
REFUSED: dict[str, tuple[Tamper, list[str]]] = {
    "no folder": (shutil.rmtree, ["bundle.json"]),
    "an empty folder": (emptied, ["bundle.json"]),
    "no bundle.json": (lambda folder: (folder / "bundle.json").unlink(), ["bundle.json"]),
    "no model": (lambda folder: (folder / "model.skops").unlink(), ["model.skops"]),
    "two models": (lambda folder: shutil.copy(folder / "model.skops", folder / "model2.skops"), ["model2"]),
    "a model cut off": (cut, ["model.skops"]),
    "a bit flipped": (flipped, ["model.skops", "sha256"]),
    "a link": (linked, ["model.skops"]),
    "a file outside": (outside, ["../outside.skops"]),
    "a huge sparse file": (sparse, ["model.skops", "10000000000"]),
    "a pickle as skops": (lambda f: replace(f, "model.skops", pickle.dumps(Bomb())), ["model.skops"]),
    "an untrusted type": (untrusted, ["model.skops", "Bomb"]),
    "skops cut off, with its digest": (
        lambda f: replace(f, "model.skops", b"PK\x03\x04" + b"\0" * 99),
        ["model.skops"],
    ),
    "a pickle said to be joblib": (
        lambda folder: renamed(folder, "model.skops", "model.joblib", pickle.dumps(Bomb()), "joblib"),
        ["model.joblib", "allow_joblib"],
    ),
    "another schema": (schema_of_others, ["schema.yaml"]),
    "a schema that is none": (lambda f: replace(f, "schema.yaml", b"task: [binary"), ["schema.yaml"]),
    "a format of the future": (set_key("format", 2), ["bundle.json", "format"]),
    "an unknown key": (set_key("colour", "red"), ["bundle.json", "colour"]),
    "no manifest": (lambda folder: (folder / "bundle.json").write_text("{"), ["bundle.json"]),
    "bytes that are no text": (
        lambda folder: (folder / "bundle.json").write_bytes((folder / "bundle.json").read_bytes()[:-3] + b"\xff}\n"),
        ["bundle.json", "not a manifest"],
    ),
    "rows that inflate": (
        with_member("reference.npz", "record/more.npy", lambda: npy((200 * MIB // 8,), bytes(200 * MIB))),
        ["reference.npz", "arrays of more than"],
    ),
    "rows of eight TiB": (
        with_member("reference.npz", "record/more.npy", lambda: npy((2**40,), bytes(80))),
        ["reference.npz", "as long as its header says"],
    ),
    "more rows than there are": (
        with_member("reference.npz", "record/more.npy", lambda: npy((2000,), bytes(16000))),
        ["reference.npz", "1000 rows"],
    ),
    "a model that inflates": (
        with_member("model.skops", "more.npy", lambda: bytes(200 * MIB)),
        ["model.skops", "inflates"],
    ),
    "a model nested 3,000 deep": (
        with_member("model.skops", "schema.json", lambda: nested(3000)),
        ["model.skops", "deep"],
    ),
    "a model of millions of nothing": (
        with_member("model.skops", "schema.json", lambda: b"[" + b"[]," * 2_000_000 + b"[]]"),
        ["model.skops", "more values"],
    ),
    "a schema of a megabyte": (
        lambda folder: replace(folder, "schema.yaml", (folder / "schema.yaml").read_bytes() + b"#" * MIB),
        ["schema.yaml", "over 1048576 bytes"],
    ),
    "a newer library": (newer_library, ["scikit-learn", "99.0"]),
    "reference rows that are none": (lambda f: replace(f, "reference.npz", b"PK\x03\x04no"), ["reference.npz"]),
    "pickled reference rows": (lambda f: replace(f, "reference.npz", pickle.dumps(Bomb())), ["reference.npz"]),
}
OFTEN = [
    "no folder",
    "two models",
    "a bit flipped",
    "a file outside",
    "an untrusted type",
    "a schema that is none",
    "an unknown key",
    "rows that inflate",
    "a model nested 3,000 deep",
    "a newer library",
]
"""One of each kind, since each starts a service."""
INFLATING = ["rows that inflate", "rows of eight TiB", "a model that inflates", "a model of millions of nothing",
             "a model nested 3,000 deep"]  # fmt: skip
OF_THE_TRANSFORMER = ["no folder", "no model", "a bit flipped", "a file outside", "another schema"]


def refusal(service: str, folder: Path, log: Path, *options: str) -> str:
    """The last line of a service that is started on a bundle which it must refuse."""
    host = ["--predictor_host=127.0.0.1:9"] if service == "transformer" else []
    started = start(f"tabserve_{service}", f"--model_dir={folder}", *host, *options, log=log)
    try:
        assert started.process.wait(STOP_SECONDS) == 1, started.text()
    finally:
        started.kill()
    lines = started.text().strip().splitlines()
    assert len(lines) == 1, started.text()
    return lines[0]


def assert_refused(service: str, folder: Path, *words: str, log: Path) -> None:
    """Assert that the service ends and says why, and that nothing in the bundle has run."""
    line = refusal(service, folder, log)
    assert line.startswith(f"{service}: ")
    assert all(word in line for word in words), line
    assert not Path("EXPLODED").exists()


@pytest.mark.parametrize("case", often(REFUSED, OFTEN))
def test_the_predictor_refuses(bundle: Path, tmp_path: Path, case: str) -> None:
    tamper, words = REFUSED[case]
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    tamper(folder)
    assert_refused("predictor", folder, *words, log=tmp_path / "log")


@pytest.mark.parametrize("case", OF_THE_TRANSFORMER)
def test_the_transformer_refuses(bundle: Path, tmp_path: Path, case: str) -> None:
    tamper, words = REFUSED[case]
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    tamper(folder)
    assert_refused("transformer", folder, *words, log=tmp_path / "log")


@pytest.mark.parametrize("service", ["predictor", "transformer"])
def test_a_bundle_of_another_digest_is_refused(bundle: Path, tmp_path: Path, service: str) -> None:
    digest = "sha256:" + "0" * 64
    line = refusal(service, bundle, tmp_path / "log", f"--digest={digest}")
    actual = "sha256:" + hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()
    assert digest in line
    assert actual in line


def json_model(bundle: Path) -> dict[str, Any]:
    """An XGBoost model as JSON."""
    content: dict[str, Any] = json.loads(xgboost.Booster(model_file=bundle / "model.ubj").save_raw("json"))
    return content


def bad_children(model: dict[str, Any]) -> None:
    """Let a tree's nodes point to children that do not exist (dmlc/xgboost issue 7903)."""
    tree = model["learner"]["gradient_booster"]["model"]["trees"][0]
    tree["left_children"] = [10**6 if child >= 0 else child for child in tree["left_children"]]


def fewer_trees(model: dict[str, Any]) -> None:
    """Remove a tree that the model counts."""
    model["learner"]["gradient_booster"]["model"]["trees"].pop()


def other_leaves(model: dict[str, Any]) -> None:
    """Negate every leaf: the model works, but is not the one that was saved."""
    for tree in model["learner"]["gradient_booster"]["model"]["trees"]:
        tree["split_conditions"] = [-condition for condition in tree["split_conditions"]]


@pytest.mark.parametrize("damage", [bad_children, fewer_trees, other_leaves], ids=lambda damage: damage.__name__)
def test_a_damaged_xgboost_model_is_refused(
    payments_bundle: Path, tmp_path: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    folder = Path(shutil.copytree(payments_bundle, tmp_path / "bundle"))
    model = json_model(payments_bundle)
    damage(model)
    renamed(folder, "model.ubj", "model.json", json.dumps(model).encode(), "json")
    assert_refused("predictor", folder, "model.json", log=tmp_path / "log")


@pytest.mark.parametrize("content", [b"", b"\x00" * 1000, pickle.dumps(Bomb()), b"{L\x00\x00"], ids=repr)
def test_what_is_no_xgboost_model_is_refused(payments_bundle: Path, tmp_path: Path, content: bytes) -> None:
    folder = Path(shutil.copytree(payments_bundle, tmp_path / "bundle"))
    replace(folder, "model.ubj", content)
    assert_refused("predictor", folder, "model.ubj", log=tmp_path / "log")


def test_a_model_changed_while_it_is_served_is_not_looked_at_again(quick_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(quick_bundle, tmp_path / "bundle"))
    service = start("tabserve_predictor", f"--model_dir={folder}", log=tmp_path / "log")
    try:
        service.wait_ready()
        shutil.rmtree(folder)
        assert service.status("/v2/health/ready") == 200
        assert service.terminate() == 0
    finally:
        service.kill()


LOAD = """
import re, sys
from tabserve import bundle, engines
refusal = ""
try:
    engines.load(bundle.load(sys.argv[1]))
except bundle.BundleError as error:
    refusal = error
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], refusal)
"""


def loaded(folder: Path) -> tuple[int, str]:
    """How much memory a process takes at most that loads a bundle, in bytes, and the refusal."""
    done = subprocess.run([sys.executable, "-c", LOAD, folder], capture_output=True, text=True, check=True)
    peak, _, refusal = done.stdout.partition(" ")
    return int(peak) * 1024, refusal


@pytest.fixture(scope="module")
def usual(bundle: Path) -> int:
    """How much memory a process takes that loads a bundle as it should be."""
    peak, refusal = loaded(bundle)
    assert not refusal.strip()
    return peak


@pytest.mark.parametrize("case", often(INFLATING, ["rows that inflate", "a model that inflates"]))
def test_what_inflates_is_refused_within_bounds_of_memory(bundle: Path, tmp_path: Path, usual: int, case: str) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    tamper, words = REFUSED[case]
    tamper(folder)
    peak, refusal = loaded(folder)

    assert all(word in refusal for word in words)
    assert peak - usual < MOST
