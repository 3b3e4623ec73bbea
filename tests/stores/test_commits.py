"""Files by URI and commits without rename: in a folder, and in a real object store over S3's protocol."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import msgspec
import pytest

from stores.commits import Collection, Commit, CommitError
from stores.places import Place, PlaceAway, PlaceError, checked_place, open_place
from tests.object_store import ObjectStore


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place of each kind."""
    if request.param == "folder":
        return open_place(f"file://{tmp_path / 'place'}")
    server: ObjectStore = request.getfixturevalue("object_store")
    return open_place(server.url(tmp_path.name))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("/a/folder", "should start with"),
        ("ftp://host/a", "should start with"),
        ("file://host/a", "absolute path"),
        ("s3:///a", "name a bucket"),
        ("s3://key:secret@bucket/a", "hold no credentials"),
        ("s3://bucket/a?endpoint=x", "knows no option 'endpoint'"),
    ],
)
def test_an_address_that_cannot_be_used_says_what_it_should_be(url: str, says: str) -> None:
    with pytest.raises(PlaceError, match=says) as refused:
        checked_place(url)
    assert "secret" not in str(refused.value)


def test_what_was_put_is_read_back_listed_replaced_and_deleted(place: Place, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * 40_000)  # more than one part of a multipart upload
    place.write("a/b=1/small.txt", b"one")
    place.write("a/large.bin", large)
    place.write("a/b=1/small.txt", b"two")
    assert [(found.name, found.size) for found in place.names("a")] == [
        ("a/b=1/small.txt", 3),
        ("a/large.bin", 10_240_000),
    ]
    assert place.read("a/b=1/small.txt") == b"two"
    place.fetch("a/large.bin", tmp_path / "copy", digest=hashlib.sha256(large.read_bytes()).hexdigest())
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()
    place.delete("a/large.bin")
    place.delete("a/large.bin")
    with pytest.raises(FileNotFoundError):
        place.read("a/large.bin")
    assert place.names("nowhere") == []


def test_no_name_leads_out_of_a_place(place: Place) -> None:
    for name in ("../other", "/etc/passwd", "", "a/../../b"):
        with pytest.raises(PlaceError):
            place.read(name)


def test_a_reader_sees_all_of_a_commit_or_nothing(place: Place, tmp_path: Path) -> None:
    """
    writer   put model.txt   put manifest.json   put the commit
    reader        nothing          nothing             both
    """
    seen: list[set[str]] = []
    reader = Collection(place, "reader")

    class Watched(Place):
        def write(self, name: str, content: bytes | Path) -> None:
            place.write(name, content)
            seen.append(set(reader.files()))

    watched = place.below("x")
    watched.__class__ = Watched
    watched.names = place.names  # type: ignore[method-assign]
    Collection(watched, "writer").commit({"v1/model.txt": b"trees", "v1/manifest.json": b"{}"})
    assert seen == [set(), set(), {"v1/model.txt", "v1/manifest.json"}]
    file = reader.files()["v1/model.txt"]
    reader.fetch(file, tmp_path / "model.txt")
    assert (tmp_path / "model.txt").read_bytes() == b"trees"


def test_writers_at_once_lose_nothing_of_one_another(place: Place) -> None:
    def write(number: int) -> None:
        own = Collection(place, f"writer-{number}")
        for turn in range(5):
            own.commit({f"{number}/{turn}.bin": f"{number} {turn}".encode()})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = Collection(place, "reader").files()
    assert {name: place.read(f"data/{file.data}") for name, file in files.items()} == {
        f"{number}/{turn}.bin": f"{number} {turn}".encode() for number in range(4) for turn in range(5)
    }


def test_a_compaction_exchanges_files_at_one_moment_and_a_later_name_wins(place: Place) -> None:
    writer, reader = Collection(place, "writer"), Collection(place, "reader")
    writer.commit({"date=1/a.bin": b"a"})
    writer.commit({"date=1/b.bin": b"b"})
    writer.commit({"date=1/ab.bin": b"ab"}, remove=["date=1/a.bin", "date=1/b.bin"])
    assert list(reader.files()) == ["date=1/ab.bin"]
    writer.commit({"date=1/ab.bin": b"AB"})
    assert place.read(f"data/{reader.files()['date=1/ab.bin'].data}") == b"AB"


def test_a_checkpoint_changes_nothing_that_is_seen_and_lets_old_commits_go(place: Place) -> None:
    writer, reader, keeper = (Collection(place, name) for name in ("writer", "reader", "keeper"))
    for turn in range(6):
        writer.commit({f"{turn}.bin": bytes([turn])}, remove=[f"{turn - 2}.bin"])
    before = reader.files()
    assert sorted(before) == ["4.bin", "5.bin"]
    assert keeper.checkpoint() == 0  # a reader may have listed them a moment ago
    assert reader.files() == before
    assert keeper.checkpoint(now=4e9) == 6
    assert reader.files() == before == Collection(place, "another").files()
    # A writer whose clock is behind takes away what the checkpoint holds.
    late = Commit("late", 1, (), (before["4.bin"].data,))
    place.write("commits/00000000000000000001-late-1.json", msgspec.json.encode(late))
    writer.commit({"6.bin": b"6"})
    assert sorted(reader.files()) == ["5.bin", "6.bin"]


def test_what_storage_holds_leads_nowhere_and_is_told_from_what_was_committed(
    place: Place, tmp_path: Path
) -> None:
    writer = Collection(place, "writer")
    (file,) = writer.commit({"a.bin": b"one"})
    place.write(f"data/{file.data}", b"other")
    with pytest.raises(CommitError, match="does not have the digest"):
        writer.fetch(file, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    for name in ("../a", "a//b", ".hidden", "a/" * 9 + "b"):
        with pytest.raises(CommitError, match="is no name"):
            writer.commit({name: b""})
    place.write("commits/00000000000000000000-x-1.json", b'{"writer":"x","at":1,"add":[')
    with pytest.raises(CommitError, match="00000000000000000000-x-1"):
        Collection(place, "reader").files()


def test_a_store_that_does_not_answer_is_said_to_be_away(tmp_path: Path) -> None:
    gone = open_place("s3://tollgate/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1")
    with pytest.raises(PlaceAway, match="s3://tollgate/x"):
        gone.read("a")
    with pytest.raises(PlaceAway):
        gone.write("a", b"b")
