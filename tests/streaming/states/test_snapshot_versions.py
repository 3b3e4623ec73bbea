"""A snapshot of another version is refused, with a sentence that says what to do."""

from __future__ import annotations

import pytest

from streaming.states.snapshots import SNAPSHOT_VERSION, SnapshotError, check_version
from tests.streaming.one_shard import Start, history, updates


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("version", [2, 99])
def test_a_shards_snapshot_of_another_version_is_refused(start: Start, place: int, version: int) -> None:
    shard = start()
    shard.on_batch([updates(history(5))])
    snapshot = list(shard.snapshot())
    snapshot[place] = version
    with pytest.raises(
        SnapshotError, match=rf"version {version}, this program reads\s+version \d.*streaming\.states\.seed"
    ):
        start(tuple(snapshot))


@pytest.mark.parametrize("version", [SNAPSHOT_VERSION - 1, SNAPSHOT_VERSION + 1, None, "6"])
def test_every_step_refuses_another_version_and_names_itself(version: object) -> None:
    with pytest.raises(SnapshotError, match=r"the source snapshot has version .*move the stream/ folder"):
        check_version("source", version)
    check_version("source", SNAPSHOT_VERSION)
