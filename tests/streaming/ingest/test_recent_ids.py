"""Which transaction ids are known: within the bound, within the horizon, and across snapshots and files."""

from __future__ import annotations

import threading
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.ingest.recent_ids import IdSegments, RecentIds
from streaming.states.disk import Disk
from streaming.states.snapshots import SnapshotError

#: As many ids as one segment holds.
SEGMENT = 8_192


@given(st.lists(st.integers(0, 40_000), max_size=400), st.integers(1, 3))
def test_recent_ids_find_every_duplicate_within_the_bound(keys: list[int], cuts: int) -> None:
    recent, known = RecentIds(8_192, 10**9), set()
    for index, key in enumerate(keys):
        assert recent.add(key, index) is (key not in known)
        known.add(key)
        if index % (cuts * 50) == 0:
            recent = RecentIds(8_192, 10**9, recent.snapshot())


def test_recent_ids_forget_the_oldest_beyond_the_bound() -> None:
    recent = RecentIds(16_384, 10**12)
    for key in range(100_000):
        recent.add(key, key)
    assert len(recent) <= 16_384 + 8_192
    assert not recent.add(99_999 - 16_000, 0)
    assert recent.add(0, 0)


def test_recent_ids_forget_what_is_older_than_the_horizon() -> None:
    recent = RecentIds(1_000_000, 1_000)
    for key in range(30_000):
        recent.add(key, key)
    assert len(recent) < 20_000
    assert recent.add(0, 30_000)


def test_full_segments_of_recent_ids_are_named_in_snapshots_and_read_from_files(tmp_path: Path) -> None:
    #  segments 0 1 2 | 3 begun     the snapshot names three files and holds the keys of the fourth
    disk = Disk()
    recent = RecentIds(40_000, 10**12, (), IdSegments(tmp_path, disk))
    for key in range(3 * 8_192 + 100):
        recent.add(key, key)
    disk.close()
    snapshot = recent.snapshot()
    assert [len(keys) for _, _, keys, _ in snapshot] == [0, 0, 0, 800]
    resumed = RecentIds(40_000, 10**12, snapshot, IdSegments(tmp_path, Disk()))
    assert not any(resumed.add(key, key) for key in range(3 * 8_192 + 100))
    assert resumed.add(10**6, 10**6)
    next(tmp_path.iterdir()).unlink()
    with pytest.raises(SnapshotError, match="every process"):
        RecentIds(40_000, 10**12, snapshot, IdSegments(tmp_path, disk))


def test_a_segment_that_is_not_on_disk_yet_is_held_by_the_snapshot(tmp_path: Path) -> None:
    disk, hold = Disk(), threading.Event()
    disk.write(tmp_path / "held", lambda: bytes(hold.wait(20)))
    recent = RecentIds(40_000, 10**12, (), IdSegments(tmp_path / "ids", disk))
    for key in range(8_192):
        recent.add(key, key)
    assert [len(keys) for _, _, keys, _ in recent.snapshot()] == [8 * 8_192]
    hold.set()
    disk.close()


def test_files_of_forgotten_ids_go_once_no_snapshot_to_resume_from_names_them(tmp_path: Path) -> None:
    disk = Disk()
    recent = RecentIds(8_192, 10**12, (), IdSegments(tmp_path, disk))
    for key in range(3 * 8_192):
        recent.add(key, key)
    disk.close()
    assert len(list(tmp_path.iterdir())) == 3
    for _ in range(4):
        recent.snapshot()
    assert [path.name for path in tmp_path.iterdir()] == ["000000000002.ids"]


@pytest.mark.parametrize(("later_ms", "left"), [(1_000, 2), (1_001, 1)])
def test_ids_are_forgotten_once_they_are_older_than_the_horizon(later_ms: int, left: int) -> None:
    #  event time   0 .......... 1000 | 1001
    #  8,192 ids    x                              forgotten when the newest is more than 1000 later
    recent = RecentIds(1_000_000, 1_000)
    for key in range(8_192):
        recent.add(key, 0)
    for key in range(8_192, 2 * 8_192):
        recent.add(key, later_ms)
    assert len(recent) == left * 8_192
    assert recent.add(5, later_ms) == (left == 1)


def filled(recent: RecentIds, first: int, segments: int, event_ms: int = 1) -> None:
    """Add `segments` whole segments of keys from `first` on, all of one event time."""
    for key in range(first, first + segments * SEGMENT):
        assert recent.add(key, event_ms)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("limit", "kept"),
    [(0, 1), (1, 1), (SEGMENT, 1), (2 * SEGMENT - 1, 1), (2 * SEGMENT, 2), (5 * SEGMENT, 5)],
)
def test_whole_segments_are_kept_as_many_as_the_limit_holds_and_one_at_least(limit: int, kept: int) -> None:
    recent = RecentIds(limit, 10**12)
    filled(recent, 0, kept + 2)
    assert len(recent) == kept * SEGMENT
    assert recent.add(2 * SEGMENT - 1, 1)  # the last of the two segments that went
    assert not recent.add(2 * SEGMENT, 1)  # the first of those that stayed


def test_a_key_is_known_from_the_first_to_the_last_of_its_segment() -> None:
    recent = RecentIds(SEGMENT, 10**12)
    filled(recent, 0, 1)
    recent.add(-1, 1)
    assert [recent.add(key, 1) for key in (0, SEGMENT - 1, -1)] == [False] * 3
    assert len(recent) == SEGMENT + 1


def test_the_newest_segment_is_never_too_old() -> None:
    recent = RecentIds(10**6, 0)
    filled(recent, 0, 1, event_ms=5)
    assert len(recent) == SEGMENT
    filled(recent, SEGMENT, 1, event_ms=6)
    assert len(recent) == SEGMENT and not recent.add(SEGMENT, 6)


def test_a_late_event_does_not_turn_the_clock_back() -> None:
    #  ids:  one segment at 0   |  one at 1001, its last at 500: the newest of all is 1001, so 0 is too old
    recent = RecentIds(10**6, 1_000)
    filled(recent, 0, 1, event_ms=0)
    for key in range(SEGMENT, 2 * SEGMENT - 1):
        recent.add(key, 1_001)
    recent.add(2 * SEGMENT - 1, 500)
    assert len(recent) == SEGMENT


def test_a_snapshot_names_segments_by_number_and_newest_event_time() -> None:
    recent = RecentIds(10**6, 10**12)
    assert recent.snapshot() == ()
    filled(recent, 0, 1, event_ms=70)
    filled(recent, SEGMENT, 1, event_ms=60)
    recent.add(-9, 80)
    first, second, last = recent.snapshot()
    assert first == (0, 70, array("q", range(SEGMENT)).tobytes(), b"")
    assert second == (1, 70, array("q", range(SEGMENT, 2 * SEGMENT)).tobytes(), b"")
    assert last == (2, 80, array("q", [-9]).tobytes(), b"")


def test_whoever_resumes_goes_on_where_the_snapshot_ended() -> None:
    first = RecentIds(10**6, 1_000)
    filled(first, 0, 1, event_ms=2_000)
    first.add(-1, 2_500)
    resumed = RecentIds(10**6, 1_000, first.snapshot())
    assert len(resumed) == SEGMENT + 1 and resumed.snapshot() == first.snapshot()
    for recent in (first, resumed):
        for key in range(SEGMENT, 2 * SEGMENT - 1):
            recent.add(key, 2_999)
    assert resumed.snapshot() == first.snapshot()
    assert [(number, newest) for number, newest, *_ in resumed.snapshot()] == [(0, 2_000), (1, 2_999)]
    filled(resumed, 2 * SEGMENT - 1, 1, event_ms=3_001)  # the first segment is 1,001 older
    assert [number for number, *_ in resumed.snapshot()] == [1, 2]


def test_a_resumed_run_takes_the_number_after_the_last_full_segment(tmp_path: Path) -> None:
    disk = Disk()
    recent = RecentIds(10**6, 10**12, (), IdSegments(tmp_path, disk))
    filled(recent, 0, 2)
    disk.close()
    more = Disk()
    resumed = RecentIds(10**6, 10**12, recent.snapshot(), IdSegments(tmp_path, more))
    assert [segment[0] for segment in resumed.snapshot()] == [0, 1]
    assert [len(keys) for _, _, keys, _ in resumed.snapshot()] == [0, 0]
    filled(resumed, 2 * SEGMENT, 1)
    more.close()
    assert names(tmp_path) == ["000000000000.ids", "000000000001.ids", "000000000002.ids"]
    assert (tmp_path / "000000000002.ids").read_bytes() == array(
        "q", range(2 * SEGMENT, 3 * SEGMENT)
    ).tobytes()


def test_a_resumed_run_deletes_what_a_crash_left_of_forgotten_segments(tmp_path: Path) -> None:
    disk = Disk()
    recent = RecentIds(2 * SEGMENT, 10**12, (), IdSegments(tmp_path, disk))
    filled(recent, 0, 4)
    disk.close()
    assert len(names(tmp_path)) == 4
    (tmp_path / "notes.txt").write_text("not ours")
    RecentIds(2 * SEGMENT, 10**12, recent.snapshot(), IdSegments(tmp_path, Disk()))
    assert names(tmp_path) == ["000000000002.ids", "000000000003.ids", "notes.txt"]


def test_files_of_others_are_left_where_a_snapshot_names_none(tmp_path: Path) -> None:
    (tmp_path / "000000000007.ids").write_bytes(b"kept")
    RecentIds(SEGMENT, 10**12, ((9, 1, array("q", [5]).tobytes(), b""),), IdSegments(tmp_path, Disk()))
    assert names(tmp_path) == ["000000000007.ids"]


def test_forgotten_files_are_kept_for_three_snapshots_and_gone_with_the_fourth(tmp_path: Path) -> None:
    disk = Disk()
    recent = RecentIds(SEGMENT, 10**12, (), IdSegments(tmp_path, disk))
    filled(recent, 0, 2)
    recent.snapshot()
    filled(recent, 2 * SEGMENT, 1)  # segment 1 is forgotten one snapshot after segment 0
    disk.close()
    left = []
    for _ in range(4):
        recent.snapshot()
        left.append([int(name[:12]) for name in names(tmp_path)])
    assert left == [[0, 1, 2], [0, 1, 2], [1, 2], [2]]


def test_forgetting_needs_no_files() -> None:
    recent = RecentIds(SEGMENT, 10**12)
    filled(recent, 0, 3)
    for _ in range(5):
        assert [number for number, *_ in recent.snapshot()] == [2]


def test_a_file_that_is_gone_already_is_no_error(tmp_path: Path) -> None:
    disk = Disk()
    recent = RecentIds(SEGMENT, 10**12, (), IdSegments(tmp_path, disk))
    filled(recent, 0, 2)
    disk.close()
    (tmp_path / "000000000000.ids").unlink()
    for _ in range(4):
        recent.snapshot()
    assert names(tmp_path) == ["000000000001.ids"]


def test_a_file_cut_short_is_named_with_its_folder(tmp_path: Path) -> None:
    disk = Disk()
    recent = RecentIds(10**6, 10**12, (), IdSegments(tmp_path, disk))
    filled(recent, 0, 1)
    disk.close()
    snapshot = recent.snapshot()
    path = tmp_path / "000000000000.ids"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(SnapshotError, match=rf"^000000000000\.ids, .* is not whole in {tmp_path}:"):
        RecentIds(10**6, 10**12, snapshot, IdSegments(tmp_path, Disk()))


def test_a_snapshot_that_names_files_is_refused_where_none_are_kept() -> None:
    with pytest.raises(
        SnapshotError, match=r"^the recovery snapshot names a file of transaction ids; none are kept here$"
    ):
        RecentIds(10**6, 10**12, ((0, 1, b"", bytes(16)),))


def test_a_segment_that_could_not_be_written_says_so_at_the_next_snapshot(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    disk = Disk()
    recent = RecentIds(10**6, 10**12, (), IdSegments(tmp_path / "file", disk))
    filled(recent, 0, 1)
    disk.close()
    with pytest.raises(FileExistsError):
        recent.snapshot()
