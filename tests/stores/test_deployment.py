"""deployment.json: one schema, what it refuses, and the history beside it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stores.deployment import (
    FILE,
    HISTORY,
    Change,
    Deployment,
    DeploymentError,
    in_service,
    read_deployment,
    read_history,
    write_deployment,
)
from stores.models import store_folder

CHECK = {"gate": "champion", "passed": True, "reason": "no other champion"}


def refusal(home: Path, text: bytes | str) -> str:
    home.mkdir(parents=True, exist_ok=True)
    (home / FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DeploymentError) as caught:
        read_deployment(home)
    return str(caught.value)


def test_nobody_decides_where_nothing_was_ever_promoted(tmp_path: Path) -> None:
    assert read_deployment(tmp_path / "nowhere") == Deployment(None, None, 0.1, "customer_id", "default", ())
    assert read_history(tmp_path / "nowhere") == []
    assert in_service(tmp_path / "nowhere") is None


def test_a_deployment_reads_as_the_document_says_it_is_written(tmp_path: Path) -> None:
    written = {
        "champion": "v1", "challenger": "v2", "share": 0.25, "shadow": ["v3", "v4"], "key": "card_id",
        "experiment": "spring",
    }  # fmt: skip
    (tmp_path / FILE).write_text(json.dumps(written))
    assert read_deployment(tmp_path) == Deployment("v1", "v2", 0.25, "card_id", "spring", ("v3", "v4"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"champion": "v1", "split": 0.3}', "deployment.json: Object contains unknown field `split`"),
        ('{"champion": 7}', "deployment.json: Expected `str | null`, got `int` - at `$.champion`"),
        (b'{"champion": "\xff"}', "deployment.json: "),
        ("[" * 60_000, "deployment.json: "),
        ("", "deployment.json: Input data was truncated"),
    ],
)
def test_what_is_no_deployment_is_refused_by_the_name_of_the_file(
    tmp_path: Path, text: str | bytes, reason: str
) -> None:
    assert refusal(tmp_path, text).startswith(reason)


def test_the_reason_of_a_refusal_is_cut_off(tmp_path: Path) -> None:
    assert len(refusal(tmp_path, json.dumps({"x" * 1_000: 1}))) == len("deployment.json: ") + 200


def test_a_file_is_read_up_to_64_000_bytes(tmp_path: Path) -> None:
    whole = b'{"champion": "v1"}'.ljust(64_000)
    (tmp_path / FILE).write_bytes(whole)
    assert read_deployment(tmp_path).champion == "v1"
    assert refusal(tmp_path, whole + b" ") == "deployment.json: is larger than 64000 bytes"


def test_sixteen_shadows_are_taken_and_one_more_is_not(tmp_path: Path) -> None:
    names = [f"v{number}" for number in range(17)]
    (tmp_path / FILE).write_text(json.dumps({"shadow": names[:16]}))
    assert read_deployment(tmp_path).shadow == tuple(names[:16])
    assert refusal(tmp_path, json.dumps({"shadow": names})) == "deployment.json: names more than 16 shadows"


def test_a_folder_in_the_files_place_is_refused_as_well(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(DeploymentError, match=r"^deployment\.json: .*directory"):
        read_deployment(tmp_path)


def test_the_newest_model_is_in_service_until_somebody_is_promoted(tmp_path: Path) -> None:
    folder = store_folder(tmp_path) / "v5"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    assert in_service(tmp_path) == Deployment("v5")
    (tmp_path / FILE).write_text('{"champion": "v1", "share": 0.4}')
    assert in_service(tmp_path) == Deployment("v1", share=0.4)


def write(home: Path, after: Deployment, step: str = "champion", **changes: Any) -> None:
    write_deployment(home, after, **({"step": step, "version": "v1", "gates": [CHECK]} | changes))


def test_every_change_is_kept_with_what_was_before_and_what_the_gates_said(tmp_path: Path) -> None:
    home, began = tmp_path / "new" / "home", datetime.now(UTC)
    write(home, Deployment("v1"))
    failed = CHECK | {"passed": False}
    write(home, Deployment("v1", "v2", 0.3), "canary", version="v2", gates=[CHECK, failed])
    assert read_deployment(home) == Deployment("v1", "v2", 0.3)
    first, second = read_history(home)
    assert first == Change(first.at, "champion", "v1", False, [CHECK], Deployment(), Deployment("v1"))
    assert second == Change(
        second.at, "canary", "v2", True, [CHECK, failed], Deployment("v1"), Deployment("v1", "v2", 0.3)
    )
    at = datetime.fromisoformat(second.at)
    assert at.utcoffset() == timedelta(0) and at.microsecond == 0 and second.at.endswith("+00:00")
    assert at - began < timedelta(minutes=10)
    assert len((home / HISTORY).read_bytes().splitlines()) == 2


def test_a_file_is_replaced_as_a_whole_and_can_be_read_by_people(tmp_path: Path) -> None:
    write(tmp_path, Deployment("v1"))
    before = (tmp_path / FILE).stat().st_ino
    write(tmp_path, Deployment("v2"))
    assert (tmp_path / FILE).stat().st_ino != before
    assert '\n  "champion": "v2",\n' in (tmp_path / FILE).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [HISTORY, FILE]


def test_nothing_is_recorded_where_the_deployment_before_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, Deployment("v1"))
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    with pytest.raises(DeploymentError):
        write(tmp_path, Deployment("v2"))
    assert len(read_history(tmp_path)) == 1


def test_a_deployment_survives_a_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("stores.files._sync", synced.append)
    write(tmp_path, Deployment("v1"))
    assert tmp_path in synced and len(synced) == 2
