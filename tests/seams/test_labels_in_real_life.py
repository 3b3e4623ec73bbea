"""Labels as they come: disputes won later, unknown ids, local dates, codes, and a CSV of chargebacks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bentos.log.label_files import convert_labels, read_waiting
from bentos.log.labels import LabelStore, Reporter, parse_labels
from fraud.contract.transaction import ContractError
from jobs.report_files import main as chargebacks
from stores.lake import read_labels
from stores.settings import settings

NOW = datetime.now(UTC).replace(microsecond=0)
EVENT = (NOW - timedelta(days=20)).replace(hour=1, minute=30, second=0)
ISSUER = Reporter("issuer", admin=True)


@pytest.fixture
def decided(home: Path) -> Path:
    folder = home / "decisions" / f"date={EVENT:%Y-%m-%d}" / f"hour={EVENT:%H}"
    folder.mkdir(parents=True)
    times = pa.array([EVENT] * 3, pa.timestamp("us", "UTC"))
    pq.write_table(
        pa.table({"transaction_id": ["t-1", "t-2", "t-3"], "event_timestamp": times}), folder / "a.parquet"
    )
    return home


def label(**changes: object) -> dict[str, object]:
    return {
        "transaction_id": "t-1",
        "event_time": EVENT.isoformat(),
        "is_fraud": True,
        "source": "issuer",
    } | changes


def test_the_newest_verdict_counts_wrong_dates_are_found_by_id_and_codes_are_kept(decided: Path) -> None:
    bodies = [
        label(source="chargeback", reason="10.4", known_at=(NOW - timedelta(days=9)).isoformat()),
        label(source="chargeback", is_fraud=False, known_at=(NOW - timedelta(days=2)).isoformat()),  # won
        # The issuer's local date: the day before, at midnight.
        label(transaction_id="t-2", event_time=(EVENT - timedelta(hours=25)).isoformat(), reason="UA02"),
        label(transaction_id="nobody"),
    ]
    store = LabelStore(decided)
    store.append(parse_labels(json.dumps(bodies).encode(), NOW, ISSUER))
    store.close()
    assert convert_labels(decided) == 3
    verdicts = {row["transaction_id"]: row for row in read_labels(decided / "lake").to_pylist()}
    assert (verdicts["t-1"]["is_fraud"], verdicts["t-2"]["is_fraud"]) == (False, True)
    assert verdicts["t-2"]["event_timestamp"] == EVENT
    kept = ds.dataset(decided / "lake" / "labels", format="parquet").to_table(["transaction_id", "reason"])
    assert {"10.4", "UA02"} <= set(kept.column("reason").to_pylist())
    assert [waiting.label.transaction_id for waiting in read_waiting(decided)] == ["nobody"]
    with pytest.raises(ContractError, match="known_at"):
        parse_labels(json.dumps(label(known_at=(NOW + timedelta(days=1)).isoformat())).encode(), NOW, ISSUER)


def test_a_file_of_chargebacks_has_a_command(
    decided: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "chargebacks.csv"
    path.write_text(
        "transaction_id,event_time,reason,known_at\n"
        f"t-3,{EVENT - timedelta(days=1):%Y-%m-%d},4837,{NOW - timedelta(days=3):%Y-%m-%d}\n"
        "t-1,yesterday,4837,\n"
    )
    assert settings().home == decided
    assert chargebacks([str(path)]) == 1
    said = capsys.readouterr()
    assert "line 3: event_time" in said.err
    assert "1 labels taken, 1 rows refused" in said.out
    assert convert_labels(decided) == 1
    (row,) = read_labels(decided / "lake").to_pylist()
    assert (row["transaction_id"], row["is_fraud"], row["source"]) == ("t-3", True, "chargeback")
