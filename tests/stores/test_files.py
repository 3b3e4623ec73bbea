"""Files that appear whole or not at all, and names that no two writers share."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from stores.files import mark, new_series, write_whole, written_whole
from stores.lake_files import files_of_date, parquet_files, write_parquet


def test_a_writer_that_fails_leaves_the_file_before_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_whole(path, "before")
    with pytest.raises(ZeroDivisionError), written_whole(path) as unfinished:
        unfinished.write_text("half of w")
        raise ZeroDivisionError
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("durable", [False, True])
def test_readers_see_one_content_or_the_other(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    contents = [letter.encode() * 50_000 for letter in "ab"]
    write_whole(path, contents[0], durable=durable)
    stopping = threading.Event()

    def write() -> None:
        turn = 0
        while not stopping.is_set():
            turn += 1
            write_whole(path, contents[turn % 2], durable=durable)

    writers = [threading.Thread(target=write) for _ in range(2)]  # of one process: they share a pid
    for writer in writers:
        writer.start()
    try:
        assert {path.read_bytes() in contents for _ in range(300)} == {True}
    finally:
        stopping.set()
        for writer in writers:
            writer.join()
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_what_is_unfinished_is_no_file_of_the_lake(tmp_path: Path) -> None:
    table = pa.table({"a": [1]})
    write_parquet(table, tmp_path / "date=2018-08-10" / "one.parquet")
    (tmp_path / "_scratch" / "deep").mkdir(parents=True)
    write_parquet(table, tmp_path / "_scratch" / "deep" / "two.parquet")
    with written_whole(tmp_path / "date=2018-08-10" / "three.parquet") as unfinished:
        unfinished.write_bytes(b"PAR1")
        assert [path.name for path in parquet_files(tmp_path)] == ["one.parquet"]
        assert [path.name for path in files_of_date(tmp_path / "date=2018-08-10")] == ["one.parquet"]
    assert parquet_files(tmp_path / "date=2018-08-10" / "one.parquet") == [
        tmp_path / "date=2018-08-10" / "one.parquet"
    ]
    assert parquet_files(tmp_path / "nowhere") == []


def test_a_file_that_was_replaced_is_marked_as_another(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert mark(path) is None
    write_whole(path, "same size")
    first = mark(path)
    assert mark(path) == first
    write_whole(path, "size same")
    assert mark(path) != first


def test_series_are_told_apart_and_sort_by_when_they_began() -> None:
    names = [new_series() for _ in range(100)]
    assert len(set(names)) == 100
    assert all(name.split("-")[1] == str(os.getpid()) for name in names)
    assert [name[:15] for name in names] == sorted(name[:15] for name in names)
