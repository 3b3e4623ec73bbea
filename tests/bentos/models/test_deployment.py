"""Models in service: swap, experiment, shadows, and what a broken line-up does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bentos.models.admission import Admission
from bentos.models.deployment import ModelRoom, line_up
from stores.deployment import in_service
from stores.keys import Keys
from stores.models import ModelError
from tests.bentos.running import save_model, sign


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models")
    for seed, version in enumerate(("one", "two", "three")):
        save_model(home, version, seed=seed, trees=3)
    return home


def admission(home: Path) -> Admission:
    keys = Keys(Path(os.environ["TOLLGATE_KEYS_FILE"]))
    return Admission(home / "run", keys.seal("models"))


def room_of(home: Path) -> ModelRoom:
    return ModelRoom(home, admission(home))


def deploy(home: Path, **content: Any) -> None:
    (home / "deployment.json").write_text(json.dumps(content))


def test_without_a_deployment_the_newest_model_serves(store: Path) -> None:
    (store / "deployment.json").unlink(missing_ok=True)
    room = room_of(store)
    asyncio.run(room.refresh())
    assert room.current.champion is not None
    assert room.current.champion.version == "three"
    assert room.current.challenger is None


def test_an_empty_store_is_no_error(tmp_path: Path) -> None:
    room = room_of(tmp_path)
    asyncio.run(room.refresh())
    assert room.current.champion is None
    assert room.error is None


def test_what_training_promotes_is_what_serves(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(store, champion="one", challenger="two", share=0.25, shadow=["three"])
    lineup = line_up(store, in_service(store), admission(store))  # type: ignore[arg-type]
    assert lineup.champion is not None
    assert lineup.challenger is not None
    assert (lineup.champion.version, lineup.challenger.version) == ("one", "two")
    assert [shadow.version for shadow in lineup.shadows] == ["three"]
    assert (lineup.experiment.share, lineup.experiment.key) == (0.25, "customer_id")


@pytest.mark.parametrize(
    "broken",
    [
        {"champion": "unknown"},
        {"champion": "one", "share": 7},
        {"champion": "one", "split": 0.25},  # no name of the schema: nobody would hear of it
        {"champion": "one", "key": "amount"},
        {"champion": "one", "challenger": "tampered"},
        {"champion": 3},
    ],
)
def test_a_line_up_that_cannot_be_loaded_changes_nothing(store: Path, broken: dict[str, Any]) -> None:
    tampered = save_model(store, "tampered", trees=2)
    (tampered / "model.txt").write_text("tree\n")
    (store / "bentoml" / "models" / "tollgate_fraud" / "latest").write_text("three")
    deploy(store, champion="one")
    room = room_of(store)
    asyncio.run(room.refresh())
    before = room.current
    deploy(store, **broken)
    asyncio.run(room.refresh())
    assert room.current is before
    assert room.error is not None
    deploy(store, champion="two")
    asyncio.run(room.refresh())
    assert room.error is None
    assert room.current.champion is not None
    assert room.current.champion.version == "two"


@pytest.mark.parametrize("text", ["", "tree\nnothing\n", "tree\nversion=v4\nTree=0\nnum_leaves=x\n"])
def test_nonsense_under_the_right_digest_is_refused(tmp_path: Path, text: str) -> None:
    folder = save_model(tmp_path, "nonsense", trees=2)
    (folder / "model.txt").write_text(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["digest"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    sign(folder)
    deploy(tmp_path, champion="nonsense")
    room = room_of(tmp_path)
    asyncio.run(room.refresh())
    assert room.error is not None
    assert room.current.champion is None


def test_a_model_that_wants_features_nobody_serves_is_refused(store: Path) -> None:
    folder = save_model(store, "strange", trees=2)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["features"][0] = "shoe_size"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    sign(folder)
    deploy(store, champion="strange")
    with pytest.raises(ModelError, match="shoe_size"):
        line_up(store, in_service(store), admission(store))  # type: ignore[arg-type]
