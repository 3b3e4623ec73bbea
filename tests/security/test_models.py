"""What somebody who may write the model store can do to a worker: nothing but be refused."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from bentos.models.admission import Admission
from bentos.models.deployment import ModelRoom
from stores.keys import Keys
from stores.models import ModelError, read_model_files
from tests.bentos.running import save_model, sign


@pytest.fixture
def store(tmp_path: Path) -> Path:
    save_model(tmp_path, "sound", trees=3)
    (tmp_path / "deployment.json").write_text('{"champion": "sound"}')
    return tmp_path


def replant(home: Path, change: Any, *, signed: bool = True, **facts: Any) -> Path:
    """A model whose text is `change` of a sound one, under a digest (and a signature) that fit."""
    folder = save_model(home, "planted", trees=3)
    text = _resized(change((folder / "model.txt").read_text())).encode()
    (folder / "model.txt").write_bytes(text)
    manifest = json.loads((folder / "manifest.json").read_text()) | facts
    manifest["digest"] = hashlib.sha256(text).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if signed:
        sign(folder)
    return folder


def _resized(text: str) -> str:
    """`text` with the size of its first tree as it is."""
    size = re.search(r"Tree=[1x]", text).start() - text.index("Tree=0")
    return re.sub(r"tree_sizes=\d+", f"tree_sizes={size}", text, count=1)


def admission_of(home: Path, **bounds: int) -> Admission:
    return Admission(home / "run", Keys(Path(os.environ["TOLLGATE_KEYS_FILE"])).seal("models"), **bounds)


def refused(home: Path, **named: Any) -> str:
    """Why a worker refuses the line-up; the champion before stays and scores."""

    async def run() -> str:
        room = ModelRoom(home, admission_of(home))
        await room.refresh()
        before = room.current
        assert before.champion is not None and room.error is None
        (home / "deployment.json").write_text(json.dumps({"champion": "sound"} | named))
        await room.refresh()
        assert room.current is before
        assert room.error is not None
        return room.error

    return asyncio.run(run())


SENTENCE = "M1 was: the digest in the manifest is no signature, and LightGBM follows whatever the text says"


@pytest.mark.finding("M1", "medium", SENTENCE)
@pytest.mark.parametrize("place", ["champion", "challenger", "shadow"])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: re.sub(r"split_feature=\d+", "split_feature=999999", text, count=1), "split"),
        (lambda text: re.sub(r"left_child=\S+", "left_child=999999", text, count=1), "is no tree"),
        (lambda text: re.sub(r"left_child=\S+", "left_child=0", text, count=1), "is no tree"),
        (lambda text: text.replace("Tree=1", "Tree=x", 1), "tree_sizes"),
    ],
)
def test_a_text_that_crashes_or_hangs_lightgbm_is_refused(
    store: Path, change: Any, complaint: str, place: str
) -> None:
    replant(store, change)
    assert complaint in refused(store, **{place: ["planted"] if place == "shadow" else "planted"})


@pytest.mark.finding("M1", "medium", SENTENCE)
def test_a_model_that_nobody_signed_or_somebody_else_did_is_refused(store: Path) -> None:
    folder = replant(store, lambda text: text, signed=False, metrics={"auc": 1.0})
    assert "signature is not one of this deployment's keys" in refused(store, champion="planted")
    (folder / "signature").unlink()
    (store / "deployment.json").write_text('{"champion": "sound"}')
    assert "is not signed" in refused(store, champion="planted")
    for wrong in ("", "zz", "00" * 20, "00" * 5000):
        (folder / "signature").write_text(wrong)
        (store / "deployment.json").write_text('{"champion": "sound"}')
        assert "signature is not one of this deployment's keys" in refused(store, champion="planted")
    # Another model's signature is none of this one.
    (folder / "signature").write_bytes((folder.parent / "sound" / "signature").read_bytes())
    (store / "deployment.json").write_text('{"champion": "sound"}')
    assert "signature is not one" in refused(store, champion="planted")


@pytest.mark.finding("M1", "medium", SENTENCE)
def test_a_changed_threshold_breaks_the_signature(store: Path) -> None:
    folder = replant(store, lambda text: text)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["thresholds"] = {"review": 1.0, "block": 1.0}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "signature is not one" in refused(store, champion="planted")


@pytest.mark.finding("M1", "medium", SENTENCE)
@pytest.mark.parametrize(
    "name",
    [
        "outside/same",
        "../../..",
        "..",
        ".",
        "/etc",
        "a/../sound",
        "sound\n",
        "",
        "a" * 200,
        "tollgate_fraud:../x",
    ],
)
def test_a_version_is_a_name_and_never_a_path(store: Path, name: str) -> None:
    outside = save_model(store / "outside", "same")
    assert outside.is_dir()
    assert "is no version" in refused(store, champion=name)


@pytest.mark.finding("M1", "medium", SENTENCE)
def test_what_only_the_throwaway_process_finds_out_is_a_refusal(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text check passed over: SIGSEGV and endless loops end the trial, not the worker."""
    shim = store / "shim"
    shim.mkdir()
    # The trial's interpreter gets a module search path with a check that lets everything through.
    (shim / "sitecustomize.py").write_text(
        "import stores.model_text as m\nreal = m.read_trees\nm.read_trees = lambda text, width: iter(())\n"
    )
    monkeypatch.setattr("bentos.models.admission.REPOSITORY", f"{shim}{os.pathsep}{Path.cwd()}")

    def ended(change: Any, seconds: int = 60) -> str:
        folder = replant(store, change)
        with pytest.raises(ModelError) as refusal:
            admission_of(store, seconds=seconds).admit(read_model_files(folder))
        return str(refusal.value)

    wild = ended(lambda text: re.sub(r"left_child=\S+", "left_child=99999999", text, count=1))
    assert "was ended by SIGSEGV" in wild
    looping = ended(lambda text: re.sub(r"(left|right)_child=\S+", r"\1_child=0", text, count=2), seconds=5)
    assert "took longer than 5 seconds" in looping or "SIGXCPU" in looping or "SIGKILL" in looping


@pytest.mark.finding("M1", "medium", SENTENCE)
def test_memory_without_bound_is_a_refusal(store: Path) -> None:
    folder = replant(store, lambda text: text)
    with pytest.raises(ModelError, match=r"memory|SIGABRT|SIGSEGV|status"):
        admission_of(store, megabytes=20).admit(read_model_files(folder))


@pytest.mark.finding("M1", "medium", SENTENCE)
@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ({"features": ["txn_amount"]}, "should have 1 features"),
        ({"calibration": {"x": [0.0, 1.0], "y": [-5.0, 7.0]}}, "scores from 0 to 1"),
        ({"calibration": {"a": 1e400, "b": 0}}, "finite"),
        ({"version": "another"}, "calls itself"),
        ({"thresholds": {"review": float("nan"), "block": 1}}, "thresholds"),
        ({"features": "txn_amount"}, "list of"),
        ({"features": []}, "list of"),
        ({"metrics": [[1, 2, 3]]}, "manifest.json"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(store: Path, facts: dict[str, Any], complaint: str) -> None:
    replant(store, lambda text: text, **facts)
    assert complaint in refused(store, champion="planted")


def test_files_beyond_all_measure_are_refused_unread(store: Path) -> None:
    folder = replant(store, lambda text: text)
    with (folder / "model.txt").open("r+b") as file:
        file.truncate(300_000_000)
    assert "larger than" in refused(store, champion="planted")
    (store / "deployment.json").write_text(" " * 100_000 + "{}")
    room = ModelRoom(store, admission_of(store))
    asyncio.run(room.refresh())
    assert room.error is not None and "larger than" in room.error


@pytest.mark.parametrize(
    "text", ["[" * 50_000, '{"champion":' * 20_000, '{"shadow":' + json.dumps(["a"] * 17) + "}"]
)
def test_a_deployment_of_another_kind_is_refused(store: Path, text: str) -> None:
    room = ModelRoom(store, admission_of(store))
    asyncio.run(room.refresh())
    (store / "deployment.json").write_text(text)
    asyncio.run(room.refresh())
    assert room.error is not None
    assert room.current.champion is not None


def test_many_workers_hold_one_trial_of_a_model_between_them(store: Path) -> None:
    files = read_model_files(store / "bentoml" / "models" / "tollgate_fraud" / "sound")

    async def all_at_once() -> None:
        await asyncio.gather(*[asyncio.to_thread(admission_of(store).admit, files) for _ in range(6)])

    asyncio.run(all_at_once())
    verdicts = list((store / "run").glob("*.json"))
    assert len(verdicts) == 1
    kept = verdicts[0].stat().st_mtime_ns
    admission_of(store).admit(files)
    assert verdicts[0].stat().st_mtime_ns == kept


def test_a_model_that_is_signed_later_is_taken_then(store: Path) -> None:
    folder = replant(store, lambda text: text, signed=False)
    (folder / "signature").unlink()

    async def run() -> None:
        room = ModelRoom(store, admission_of(store))
        (store / "deployment.json").write_text('{"champion": "planted"}')
        await room.refresh()
        assert room.current.champion is None and room.error is not None
        sign(folder)
        await room.refresh()
        assert room.current.champion is not None and room.error is None

    asyncio.run(run())


def test_a_trial_that_was_cut_off_is_held_again_later_and_not_at_once(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = read_model_files(store / "bentoml" / "models" / "tollgate_fraud" / "sound")
    admission = admission_of(store, seconds=5)
    monkeypatch.setattr("bentos.models.admission.python", lambda *_: ["sleep", "600"])
    with pytest.raises(ModelError, match="took longer than 5 seconds"):
        admission.admit(files)
    monkeypatch.undo()
    begun = time.monotonic()
    with pytest.raises(ModelError, match="took longer than 5 seconds"):
        admission.admit(files)
    assert begun <= time.monotonic()
    monkeypatch.setattr("bentos.models.admission.RETRY_SECONDS", 0.0)
    admission.admit(files)


def test_closing_ends_a_trial_that_runs(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentos.models.admission.python", lambda *_: ["sleep", "600"])

    async def run() -> None:
        room = ModelRoom(store, admission_of(store, seconds=500))
        room.look()
        await asyncio.sleep(0.5)
        await room.close()
        assert room.current.champion is None

    asyncio.run(run())
