"""What promotion writes is what the service, the status page and the drift command read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedded.redis_server import RedisServer
from monitoring.drift.command import champion_folder
from monitoring.drift.report import DriftInputError
from monitoring.status.health import model as model_part
from stores import deployment
from stores.deployment import DeploymentError, in_service
from stores.models import model_folder, newest_version, versions
from stores.settings import load_settings, settings
from tests.bentos.running import Service, save_model, sign, start_service, transaction_json, wait_for
from training import promote

SHARE = 0.3
DECISIONS = 10_000


def judged(home: Path, version: str, **how: Any) -> None:
    """A model with the figures that promotion's gates look for."""
    folder = save_model(home, version, **how)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["metrics"] = {
        "frauds": 500,
        "brier": 0.001,
        "brier_base_rate": 0.01,
        "average_precision": 0.5,
        "auc": 0.9,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "reference.parquet").write_bytes(b"")
    sign(folder)
    card = settings().results / "models" / version
    card.mkdir(parents=True)
    (card / "card.json").write_text(json.dumps({"verdict": []}))


@pytest.fixture
def promoted(home: Path, redis_server: RedisServer) -> Iterator[Service]:
    """A service whose line-up was made by the commands of promotion alone."""
    judged(home, "one", seed=1)
    judged(home, "two", seed=2)
    for step in (["champion", "one"], ["shadow", "two"], ["canary", "two", "--share", str(SHARE)]):
        assert promote.main([*step, "--force"]) == 0
    service = start_service(
        home, f"redis://127.0.0.1:{redis_server.port}/9", TOLLGATE_FEAST_PROJECT="promoted"
    )
    yield service
    service.stop()


def status(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{service.url}/v1/status").raise_for_status().json()["models"]
    return found


def test_a_canary_decides_the_share_it_was_given(promoted: Service) -> None:
    told = status(promoted)
    assert (told["champion"], told["challenger"], told["share"]) == (
        "one",
        "two",
        SHARE,
    )
    decided: Counter[tuple[str, str]] = Counter()
    with httpx.Client(base_url=promoted.url, timeout=60) as client:
        for start in range(0, DECISIONS, 1_000):
            bodies = [
                transaction_json(transaction_id=f"share-{n}", customer_id=f"customer-{n}")
                for n in range(start, start + 1_000)
            ]
            for answer in client.post("/v1/score/batch", json=bodies).raise_for_status().json():
                decided[answer["variant"], answer["model_version"]] += 1
    assert set(decided) == {("champion", "one"), ("challenger", "two")}
    # Five standard deviations of a binomial count: wrong once in two million runs.
    away = 5 * (DECISIONS * SHARE * (1 - SHARE)) ** 0.5
    assert abs(decided["challenger", "two"] - DECISIONS * SHARE) < away

    assert promote.main(["champion", "two", "--force"]) == 0
    assert wait_for(lambda: status(promoted)["champion"] == "two", 30)
    assert status(promoted)["challenger"] is None


def test_every_reader_names_the_same_models(home: Path) -> None:
    for version in ("b", "a"):
        judged(home, version)
    assert versions(home)[0] == newest_version(home) == "a"  # saved last
    assert in_service(home) == deployment.Deployment("a")
    config = load_settings()
    assert champion_folder(home) == model_folder(home, "a")
    assert model_part(config).figure == "a"
    promote.champion("b", force=True)
    assert in_service(home) == deployment.Deployment("b")
    assert champion_folder(home) == model_folder(home, "b")
    promote.canary("a", share=0.2, force=True)
    part = model_part(config)
    assert part.figure == "b" and "challenger a decides 20%" in part.lines
    assert [change.step for change in promote.read_history()] == ["champion", "canary"]


def test_a_name_that_is_none_of_the_schema_is_refused_by_every_reader(home: Path) -> None:
    judged(home, "one")
    (home / deployment.FILE).write_text('{"champion": "one", "split": 0.3}')
    with pytest.raises(DeploymentError, match="split"):
        in_service(home)
    with pytest.raises(DriftInputError, match="split"):
        champion_folder(home)
    assert model_part(load_settings()).tone == "bad"
    assert promote.main(["status"]) == 1
