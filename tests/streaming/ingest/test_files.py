"""The arrival log, dead letters and compaction: files that a replay or a crash cannot double."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stores.lake import parquet_history, read_transactions
from stores.settings import Settings
from streaming.ingest import arrival_log
from streaming.ingest.arrival_log import ArrivalLog, arrival_table, parsed_texts
from streaming.ingest.compact import compact, finish_interrupted
from streaming.ingest.dead_letters import LetterBox, letters_folder, main, read_letters
from streaming.ingest.ingest import Ingest, Ingested
from streaming.log.batch import Batch
from streaming.log.load import Load, events
from streaming.log.publish import open_writer
from streaming.log.source import reader_opener
from streaming.states.disk import Disk


@pytest.fixture
def disk() -> Iterator[Disk]:
    started = Disk()
    yield started
    started.close()


def ingested(count: int, *, broken: float = 0.0, size: int = 10) -> list[Ingested]:
    payloads = [event.payload for event in events(Load(count, broken=broken, step_ms=60_000), 1)]
    ingest = Ingest(0, 10_000, 10**9)
    return [
        ingest.take(
            Batch(payloads[at : at + size], [f"{at + index}-0" for index in range(size)], [at + 1] * size)
        )
        if len(payloads[at : at + size]) == size
        else Ingested([], ingest.take(Batch([], [], [])).arrivals, [], [])
        for at in range(0, count, size)
    ]


_name = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), min_size=1, max_size=12)
_degrees = st.one_of(st.floats(-90, 90), st.integers(-90, 90))


@given(
    st.lists(
        st.fixed_dictionaries(
            {"transaction_id": _name, "customer_id": _name, "card_id": _name, "merchant_id": _name},
            optional={"device_id": st.none() | _name, "ip": _name, "merchant_category": _name}
            | {"country": st.sampled_from(["DE", "FR", None])},
        ),
        min_size=1,
        max_size=4,
    ),
    st.none() | st.tuples(_degrees, _degrees),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_arrow_reads_an_event_as_the_contract_does(
    named: list[dict[str, object]],
    place: tuple[float, float] | None,
    indent: int | None,
    escaped: bool,
) -> None:
    where = {} if place is None else {"latitude": place[0], "longitude": place[1]}
    common = {
        "event_time": "2026-03-01T12:00:00.250+01:00",
        "amount": 12.5,
        "currency": "EUR",
        "channel": "pos",
    }
    payloads = [
        json.dumps(common | where | fields, indent=indent, ensure_ascii=escaped).encode() for fields in named
    ]
    batch = Batch(payloads, [f"{at}-0" for at in range(len(payloads))], [1] * len(payloads))
    arrivals = Ingest(0, 10_000, 10**9).take(batch).arrivals
    assume(arrivals.payloads)  # blanks alone are no name
    expected = parsed_texts(arrivals.payloads)
    assert arrival_table(arrivals).select(expected.column_names).equals(expected)


def test_an_event_spelt_otherwise_is_kept_in_the_contracts_form(tmp_path: Path, disk: Disk) -> None:
    payload = next(iter(events(Load(1), 1))).payload
    fields = json.loads(payload) | {
        "card_id": " Zoe\u0308", "ip": "::ffff:203.0.113.7", "merchant_category": 5411, "device_id": "",
        "latitude": 0, "longitude": 0,
    }  # fmt: skip
    log = ArrivalLog(tmp_path, 0, disk)
    log.add(Ingest(0, 10_000, 10**9).take(Batch([json.dumps(fields).encode()], ["1-0"], [1])).arrivals)
    log.flush()
    (row,) = read_transactions(tmp_path).to_pylist()
    assert (row["card_id"], row["ip"], row["merchant_category"]) == ("Zo\u00eb", "203.0.113.7", "5411")
    assert (row["device_id"], row["latitude"], row["longitude"]) == (None, None, None)


def test_an_event_with_a_field_given_twice_becomes_a_dead_letter() -> None:
    payload = next(iter(events(Load(1), 1))).payload
    twice = payload[:-1] + b',"card_id":"the-last"}'
    ingested = Ingest(0, 10_000, 10**9).take(Batch([twice], ["1-0"], [1]))
    assert not ingested.arrivals.payloads
    assert [(letter.field, letter.reason) for letter in ingested.letters] == [("card_id", "is given twice")]


@pytest.mark.finding("H3", "high", "a number of 4,301 digits beside a field that is null ended the flow")
def test_an_event_with_a_number_that_python_does_not_convert_stops_nobody_behind_it() -> None:
    first, last = (event.payload for event in events(Load(2), 1))
    fields = json.loads(first) | {"transaction_id": "long", "amount": 0, "ip": None}
    long = json.dumps(fields).encode().replace(b'"amount": 0', b'"amount": 1' + b"0" * 4_300)
    ingested = Ingest(0, 10_000, 10**9).take(
        Batch([first, long, last], ["1-0", "1-1", "1-2"], [1, 1, 1]),
    )
    assert ingested.arrivals.payloads == [first, last]
    assert [(letter.position, letter.field) for letter in ingested.letters] == [("1-1", "amount")]


def test_rows_written_beyond_the_snapshot_are_replaced_by_the_replay(tmp_path: Path, disk: Disk) -> None:
    batches = ingested(60)
    crashed = ArrivalLog(tmp_path, 0, disk)
    for batch in batches[:5]:  # flushed after 0-1, 2-3, 4; the last snapshot that was stored is after 0-1
        crashed.add(batch.arrivals)
        if batch in (batches[1], batches[3], batches[4]):
            crashed.flush()
    resumed = ArrivalLog(tmp_path, 0, disk)
    for batch in batches[2:]:
        resumed.add(batch.arrivals)
    resumed.flush()
    rows = read_transactions(tmp_path)
    assert rows.num_rows == 60
    assert len(set(rows.column("transaction_id").to_pylist())) == 60


def test_rows_become_files_between_snapshots_and_the_replay_replaces_these(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    #  rows   0..9 in a snapshot | 10..59 in files of their own when the flow crashed
    monkeypatch.setattr(arrival_log, "_ROLL_S", 0.0)
    batches = ingested(60)
    crashed = ArrivalLog(tmp_path, 0, disk)
    for batch in batches:
        crashed.add(batch.arrivals)
    crashed.flush()
    assert len(list(tmp_path.glob("**/arrival-*.parquet"))) == 6
    resumed = ArrivalLog(tmp_path, 0, disk)
    for batch in batches[1:]:
        resumed.add(batch.arrivals)
    resumed.flush()
    assert sorted(read_transactions(tmp_path).column("ingest_seq").to_pylist()) == [
        sequence for batch in batches for sequence in batch.arrivals.sequences
    ]


def test_what_the_disk_had_not_taken_is_written_by_the_run_that_resumes(tmp_path: Path, disk: Disk) -> None:
    #  rows   0..19 in a snapshot | 20..  replayed; the file of 0..19 never came to the disk
    batches = ingested(60)
    crashed = ArrivalLog(tmp_path / "lost", 0, disk)
    for batch in batches[:2]:
        crashed.add(batch.arrivals)
    hold = threading.Event()
    held = disk.write(tmp_path / "held", lambda: bytes(hold.wait(20)))
    snapshot = crashed.roll()
    assert len(snapshot) == 1
    hold.set()
    held.result()
    resumed = ArrivalLog(tmp_path, 0, disk, snapshot)
    for batch in batches[2:]:
        resumed.add(batch.arrivals)
    resumed.flush()
    assert resumed.roll() == ()
    rows = read_transactions(tmp_path)
    assert sorted(rows.column("ingest_seq").to_pylist()) == [
        sequence for batch in batches for sequence in batch.arrivals.sequences
    ]


def test_events_of_two_days_become_a_file_each_in_arrival_order(tmp_path: Path, disk: Disk) -> None:
    log = ArrivalLog(tmp_path, 0, disk)
    for batch in ingested(2_000):  # a minute apart
        log.add(batch.arrivals)
    log.flush()
    assert parquet_history(tmp_path) == {date(2026, 3, 1): 1_440, date(2026, 3, 2): 560}
    for path in tmp_path.rglob("*.parquet"):
        sequences = pq.read_table(path, partitioning=None).column("ingest_seq").to_pylist()
        assert sequences == sorted(sequences)


def test_a_disk_that_refuses_ends_the_flow(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "transactions").write_text("a file where a folder should be")
    log = ArrivalLog(tmp_path, 0, disk)
    log.add(ingested(10)[0].arrivals)
    with pytest.raises(OSError, match="transactions"):
        log.flush()


def test_another_partitions_files_are_left_alone(tmp_path: Path, disk: Disk) -> None:
    other = ArrivalLog(tmp_path, 7, disk)
    other.add(ingested(10)[0].arrivals)
    other.flush()
    log = ArrivalLog(tmp_path, 0, disk)
    log.add(ingested(10)[0].arrivals)
    log.flush()
    assert read_transactions(tmp_path).num_rows == 20


def test_compaction_keeps_every_row_and_leaves_recent_files_alone(tmp_path: Path, disk: Disk) -> None:
    log = ArrivalLog(tmp_path, 0, disk)
    for batch in ingested(200):
        log.add(batch.arrivals)
        log.flush()
    before = read_transactions(tmp_path)
    assert compact(tmp_path) == (0, 0)
    merged, written = compact(tmp_path, older_than_s=-10)
    assert merged == 20
    assert written == 1
    assert read_transactions(tmp_path).equals(before)
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def test_a_compaction_that_was_cut_short_is_finished_by_the_next(tmp_path: Path, disk: Disk) -> None:
    log = ArrivalLog(tmp_path, 0, disk)
    for batch in ingested(100):
        log.add(batch.arrivals)
        log.flush()
    before = read_transactions(tmp_path)
    folder = next((tmp_path / "transactions").iterdir())
    sources = sorted(path.name for path in folder.glob("*.parquet"))
    pq.write_table(before, folder / "arrivals-00.parquet")
    (folder / "_compact-00.json").write_text(
        json.dumps({"target": "arrivals-00.parquet", "sources": sources})
    )
    finish_interrupted(folder)
    assert read_transactions(tmp_path).equals(before)
    assert not list(folder.glob("_compact*"))


@pytest.mark.parametrize("moment", ["planned", "merged", "half deleted", "deleted", "done"])
def test_a_reader_sees_each_row_once_at_every_moment_of_a_compaction(
    tmp_path: Path, disk: Disk, moment: str
) -> None:
    log = ArrivalLog(tmp_path, 0, disk)
    for batch in ingested(100):
        log.add(batch.arrivals)
        log.flush()
    before = read_transactions(tmp_path)
    folder = next((tmp_path / "transactions").iterdir())
    sources = sorted(folder.glob("*.parquet"))
    plan = folder / "_compact-00.json"
    plan.write_text(json.dumps({"target": "arrivals-00.parquet", "sources": [path.name for path in sources]}))
    if moment != "planned":
        pq.write_table(before, folder / "arrivals-00.parquet")
    for path in {"half deleted": sources[:5], "deleted": sources, "done": sources}.get(moment, []):
        path.unlink()
    if moment == "done":
        plan.unlink()
    assert read_transactions(tmp_path).equals(before)
    assert parquet_history(tmp_path).popitem()[1] == before.num_rows


def test_a_letter_written_twice_by_a_replay_is_one_letter(tmp_path: Path) -> None:
    letters = [letter for batch in ingested(200, broken=0.3) for letter in batch.letters]
    for kept in (letters[:3], letters[1:]):
        box = LetterBox(tmp_path / "000")
        box.add(kept)
        box.flush()
    assert [letter for _, letter in read_letters(tmp_path)] == letters


def test_replayed_letters_are_published_once_more_and_no_longer_listed(
    configured: Settings, capsys: object
) -> None:
    with open_writer(configured) as writer:
        for event in events(Load(100, broken=0.2), 1):
            writer.publish_raw(0, event.payload)
    reader = reader_opener(configured)(0, None)
    box = LetterBox(letters_folder(configured) / "000")
    box.add(Ingest(0, 10_000, 10**9).take(reader.read()).letters)
    box.flush()
    count = len(list(read_letters(letters_folder(configured))))
    assert count > 5
    assert main(["replay"]) == 0
    assert len(reader.read().payloads) == count
    assert not list(read_letters(letters_folder(configured)))
    assert main(["list"]) == 0
    reader.close()
