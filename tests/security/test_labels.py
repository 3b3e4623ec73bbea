"""What somebody who may send labels can do, and what a file in the label store can."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.api.access import Access
from bentos.base.caller import Caller
from bentos.base.problem import Problem
from bentos.log import label_files
from bentos.log.label_files import convert_labels, read_waiting
from bentos.log.labels import KeptLabel, LabelStore, Reporter, labels_folder, parse_labels, read_summary
from bentos.tools.labels import main as list_labels
from fraud.contract.transaction import ContractError
from stores.lake import read_labels
from stores.spool import frame, read_frames

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
EVENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADMIN = Reporter("admin", admin=True)


def raw(**changes: Any) -> bytes:
    body = {
        "transaction_id": "t-1",
        "event_time": "2026-03-01T12:00:00Z",
        "is_fraud": True,
        "source": "analyst",
    }
    return json.dumps(body | changes).encode()


def decided(home: Path, *rows: tuple[str, datetime], hour: str = "date=2026-03-01/hour=12") -> None:
    folder = home / "decisions" / hour
    folder.mkdir(parents=True, exist_ok=True)
    times = pa.array([row[1] for row in rows], pa.timestamp("us", "UTC"))
    table = pa.table({"transaction_id": [row[0] for row in rows], "event_timestamp": times})
    pq.write_table(table, folder / f"{len(list(folder.iterdir()))}.parquet")


def kept(home: Path, *bodies: bytes, now: datetime = NOW) -> int:
    """Take labels as the service does, and convert them; how many came into the lake."""
    store = LabelStore(home)
    for body in bodies:
        assert store.append(parse_labels(body, now, ADMIN))
    store.close()
    return convert_labels(home, now.timestamp())


IMPOSSIBLE = [
    "0001-01-01T00:00:00+23:59",
    "0001-01-01T00:00:00Z",
    "1999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-23:59",
    "2027-01-01T00:00:00Z",
]


@pytest.mark.finding(
    "H4", "high", "a label of the year 1 ended the converter for ever, and no later one came through"
)
@pytest.mark.parametrize("when", IMPOSSIBLE)
def test_a_time_that_cannot_be_is_refused_at_the_door(when: str) -> None:
    with pytest.raises(ContractError, match="event_time"):
        parse_labels(raw(event_time=when), NOW, ADMIN)
    with pytest.raises(ContractError, match="known_at"):
        parse_labels(raw(known_at=when), NOW, ADMIN)


@pytest.mark.finding(
    "H4", "high", "a label of the year 1 ended the converter for ever, and no later one came through"
)
def test_a_segment_that_holds_no_labels_goes_aside_and_stops_none_behind_it(home: Path) -> None:
    decided(home, ("t-1", EVENT))
    folder = home / "labels"
    folder.mkdir(parents=True)
    good = KeptLabel("t-1", EVENT, True, "analyst", NOW, "till")
    strange = [b"", b"\xff", b"{}", b"[" * 10_000, raw(event_time="0001-01-01T00:00:00+23:59")]
    strange += [msgspec.json.encode(msgspec.structs.replace(good, event_time=datetime(1, 1, 1, tzinfo=UTC)))]
    strange += [msgspec.json.encode(msgspec.structs.replace(good, known_at=EVENT - timedelta(1)))]
    first = folder / "labels-0-planted.ready"
    first.write_bytes(b"".join(map(frame, [*strange, msgspec.json.encode(good)])) + b"torn")
    (folder / "labels-1-empty.ready").write_bytes(b"")
    assert kept(home, raw(is_fraud=False, source="issuer")) == 2
    (aside,) = (folder / "aside").iterdir()
    assert list(read_frames(aside)) == strange
    assert read_summary(labels_folder(home)).aside == len(strange)
    assert read_labels(home / "lake").to_pylist()[0]["is_fraud"] is False
    assert list(folder.glob("*.ready")) == []


@pytest.mark.finding("M3", "medium", "an id did not need to exist")
def test_a_label_waits_for_its_decision_and_is_matched_later(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kept(home, raw(), raw(transaction_id="never")) == 0
    assert {waiting.label.transaction_id for waiting in read_waiting(home)} == {"t-1", "never"}
    assert read_summary(labels_folder(home)).waiting == 2
    assert list_labels([]) == 0
    assert "t-1  event 2026-03-01 12:00:00  fraud by analyst of admin" in capsys.readouterr().out
    decided(home, ("t-1", EVENT))
    assert convert_labels(home, NOW.timestamp() + 1) == 0  # it is not looked for again at once
    assert convert_labels(home, NOW.timestamp() + 11) == 1
    assert [row["transaction_id"] for row in read_labels(home / "lake").to_pylist()] == ["t-1"]
    later = NOW + label_files.GIVE_UP + timedelta(days=1)
    assert convert_labels(home, later.timestamp()) == 0
    assert (read_summary(labels_folder(home)).waiting, read_summary(labels_folder(home)).aside) == (0, 1)


@pytest.mark.finding("M3", "medium", "an id did not need to exist, nor to be the transaction of that time")
def test_the_transaction_is_the_one_of_that_time_or_the_only_one_of_that_id(home: Path) -> None:
    later = EVENT + timedelta(minutes=7)
    decided(home, ("twice", EVENT), ("twice", later), ("once", later))
    bodies = [raw(transaction_id=name) for name in ("twice", "once")]
    assert kept(home, *bodies, raw(transaction_id="twice", event_time="2026-03-01T12:30:00Z")) == 2
    (waiting,) = read_waiting(home)
    assert waiting.label.event_time == EVENT + timedelta(minutes=30)
    rows = {row["transaction_id"]: row["event_timestamp"] for row in read_labels(home / "lake").to_pylist()}
    assert rows == {"twice": EVENT, "once": later}


@pytest.mark.finding("M3", "medium", "no client's name was kept")
def test_the_lake_keeps_who_said_so(home: Path) -> None:
    decided(home, ("t-1", EVENT))
    assert kept(home, raw()) == 1
    (path,) = (home / "lake" / "labels").rglob("*.parquet")
    assert pq.read_table(path).column("client").to_pylist() == ["admin"]


@pytest.mark.finding("M3", "medium", "known_at could be set back to the event: training then knew it earlier")
def test_what_was_known_long_ago_takes_an_administrator() -> None:
    body = raw(known_at="2026-03-01T13:00:00Z")
    assert parse_labels(body, NOW, ADMIN)[0].known_at == EVENT + timedelta(hours=1)
    with pytest.raises(ContractError, match="takes the scope admin"):
        parse_labels(body, NOW, Reporter("till"))
    assert parse_labels(raw(known_at="2026-03-02T11:30:00Z"), NOW, Reporter("till"))


@pytest.mark.finding("M3", "medium", "any label client named any source, at any rate")
def test_a_client_names_only_its_own_sources_at_its_own_rate(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    clients = [
        {"name": "desk", "sha256": [], "scopes": ["label"], "label_sources": ["analyst"], "label_rate": 3},
        {"name": "none", "sha256": [], "scopes": ["label"]},
        {"name": "back", "sha256": ["00" * 32], "scopes": ["label", "admin"], "label_sources": ["issuer"]},
    ]
    clients[0]["sha256"], clients[1]["sha256"] = ["11" * 32], ["22" * 32]
    tokens.write_text(json.dumps({"clients": clients}))
    access = Access(tokens, 0, clock=lambda: 0.0)
    assert access.error is None
    desk = access.reporter(Caller("desk", "desk"))
    assert parse_labels(raw(), NOW, desk)[0].client == "desk"
    with pytest.raises(ContractError, match="chargeback is not a source of this client"):
        parse_labels(raw(source="chargeback"), NOW, desk)
    with pytest.raises(ContractError, match="not a source"):
        parse_labels(raw(), NOW, access.reporter(Caller("none", "none")))
    assert (desk.admin, access.reporter(Caller("back", "back")).admin) == (False, True)
    desk.spend(3)
    with pytest.raises(Problem) as refused:
        desk.spend(1)
    assert refused.value.status == 429


@given(
    body=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["transaction_id", "event_time", "is_fraud", "source", "known_at"]), inner
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_comes_is_labels_or_a_refusal(body: bytes) -> None:
    try:
        labels = parse_labels(body, NOW, ADMIN)
    except ContractError:
        return
    assert all(label.event_time <= label.known_at <= NOW for label in labels)


@given(moment=st.datetimes(timezones=st.timezones()))
def test_any_time_with_an_offset_is_a_label_or_a_refusal(moment: datetime) -> None:
    try:
        (label,) = parse_labels(raw(event_time=moment.isoformat()), NOW, ADMIN)
    except ContractError:
        return
    assert timedelta(0) <= moment - label.event_time < timedelta(milliseconds=1)  # cut off, as everywhere


@pytest.mark.finding(
    "M3", "medium", "who may send labels may relabel, backdate and crowd out those of others"
)
def test_one_clients_made_up_labels_push_out_its_own_and_not_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_files, "MOST_WAITING", 10)
    store = LabelStore(tmp_path)
    crowd = Reporter("crowd", admin=True)
    for place in range(30):
        assert store.append(parse_labels(raw(transaction_id=f"made-up-{place}"), NOW, crowd))
    assert store.append(parse_labels(raw(transaction_id="genuine"), NOW, Reporter("bank", admin=True)))
    store.close()
    convert_labels(tmp_path, NOW.timestamp())
    waiting = [one.label.transaction_id for one in read_waiting(tmp_path)]
    assert len(waiting) == 10
    assert "genuine" in waiting
