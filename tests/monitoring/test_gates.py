"""Every kind of corrupted batch is stopped by its own name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fraud.contract.money import reference_cents
from fraud.features.entities import ENTITY_BY_NAME
from fraud.features.profiles import PROFILE_FEATURES
from fraud.state.layout import LEAST_BYTES, STATE_VERSION
from monitoring.gates.__main__ import main
from monitoring.gates.checks import GateBlockedError, GateResult
from monitoring.gates.facts import History
from monitoring.gates.run import run_gate
from stores.lake import LABEL_SCHEMA, TRANSACTION_SCHEMA
from tests.monitoring.made_days import DAY, rows, write

AS_OF = datetime(2018, 9, 1, tzinfo=UTC)
Corrupt = Callable[[dict[str, list[object]]], None]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Five quiet days that passed."""
    root = tmp_path_factory.mktemp("quiet")
    kept = History(root / "history.json")
    for back in range(5, 0, -1):
        day = DAY - timedelta(days=back)
        result = run_gate("raw", write(root, rows(day, seed=back), day), as_of=AS_OF, history=kept)
        assert not result.blocked, result.text()
    return kept


def faults(result: GateResult, severity: str = "block") -> set[str]:
    return {failure.fault for failure in result.failures if failure.severity == severity}


def nulls(columns: dict[str, list[object]]) -> None:
    columns["customer_id"][100:130] = [None] * 30


def duplicates(columns: dict[str, list[object]]) -> None:
    for values in columns.values():
        values.extend(values[:40])


def shifted_units(columns: dict[str, list[object]]) -> None:
    columns["amount_minor"] = [int(value) * 100 for value in columns["amount_minor"]]  # type: ignore[call-overload]
    columns["amount_reference"] = [reference_cents(value, "EUR") for value in columns["amount_minor"]]  # type: ignore[arg-type]


def wrong_time_zone(columns: dict[str, list[object]]) -> None:
    for name in ("event_timestamp", "created_timestamp"):
        # local time written as UTC: the day's rhythm moves by seven hours, within the same date
        columns[name] = [DAY + ((t - DAY) + timedelta(hours=7)) % timedelta(days=1) for t in columns[name]]  # type: ignore[operator]


def missing_hours(columns: dict[str, list[object]]) -> None:
    keep = [place for place, t in enumerate(columns["event_timestamp"]) if not 12 <= t.hour < 14]  # type: ignore[attr-defined]
    for name, values in columns.items():
        columns[name] = [values[place] for place in keep]


def future_events(columns: dict[str, list[object]]) -> None:
    for place in range(20):
        columns["created_timestamp"][place] = AS_OF + timedelta(days=30)


def card_numbers(columns: dict[str, list[object]]) -> None:
    columns["card_id"][7] = "4" + "1" * 15


def half_the_rows(columns: dict[str, list[object]]) -> None:
    for name, values in columns.items():
        columns[name] = values[::8]


def wrong_currency(columns: dict[str, list[object]]) -> None:
    columns["currency"][3] = "XXX"


def reference_of_another_currency(columns: dict[str, list[object]]) -> None:
    columns["currency"] = ["JPY"] * len(columns["currency"])


CORRUPTIONS: list[tuple[Corrupt, str]] = [
    (nulls, "nulls"),
    (duplicates, "duplicates"),
    (shifted_units, "shifted units"),
    (wrong_time_zone, "wrong time zone"),
    (missing_hours, "missing hours"),
    (future_events, "future events"),
    (card_numbers, "card numbers"),
    (half_the_rows, "row count"),
    (wrong_currency, "impossible values"),
    (reference_of_another_currency, "shifted units"),
]


def test_a_quiet_day_passes(history: History, tmp_path: Path) -> None:
    result = run_gate("raw", write(tmp_path, rows()), as_of=AS_OF, history=history)
    assert faults(result) == set(), result.text()
    result.raise_if_blocked()


@pytest.mark.parametrize(("corrupt", "fault"), CORRUPTIONS, ids=[c.__name__ for c, _ in CORRUPTIONS])
def test_a_corrupted_batch_is_stopped_by_name(
    corrupt: Corrupt, fault: str, history: History, tmp_path: Path
) -> None:
    columns = rows(seed=9)
    corrupt(columns)
    before = history.past("raw")
    result = run_gate("raw", write(tmp_path, columns), as_of=AS_OF, history=history)
    assert fault in faults(result), result.text()
    assert history.past("raw") == before, "a blocked batch must not become what is usual"
    with pytest.raises(GateBlockedError, match=fault):
        result.raise_if_blocked()
    assert "to do: " in result.text()


@pytest.mark.slow
def test_spark_finds_what_pandas_finds_whatever_the_folder(history: History, tmp_path: Path) -> None:
    columns = rows(count=3_000, seed=9)
    for corrupt in (nulls, duplicates, shifted_units, future_events):
        corrupt(columns)
    file = write(tmp_path, columns) / "part.parquet"
    lone = file.rename(tmp_path / "lone.parquet")
    both = [run_gate("raw", lone, engine=name, as_of=AS_OF, history=history) for name in ("pandas", "spark")]
    found = [{(failure.fault, failure.severity, failure.rows) for failure in one.failures} for one in both]
    assert found[0] == found[1]
    assert {"nulls", "duplicates", "shifted units", "future events"} <= faults(both[1])


def test_a_truncated_file_is_stopped_before_any_row_is_read(tmp_path: Path) -> None:
    file = write(tmp_path, rows()) / "part.parquet"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    result = run_gate("raw", file.parent, as_of=AS_OF)
    assert faults(result) == {"truncated file"}
    assert "part.parquet" in result.text()


def test_times_without_a_zone_are_stopped_as_a_wrong_time_zone(tmp_path: Path) -> None:
    table = pa.table(rows(), schema=TRANSACTION_SCHEMA)
    place = table.column_names.index("event_timestamp")
    bare = table.set_column(place, "event_timestamp", table["event_timestamp"].cast(pa.timestamp("us")))
    pq.write_table(bare, tmp_path / "part.parquet")
    assert faults(run_gate("raw", tmp_path, as_of=AS_OF)) == {"wrong time zone"}


def test_a_missing_column_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    pq.write_table(
        pa.table(rows(), schema=TRANSACTION_SCHEMA).drop_columns(["amount_minor"]), tmp_path / "p.parquet"
    )
    assert faults(run_gate("raw", tmp_path, as_of=AS_OF)) == {"wrong columns"}
    assert faults(run_gate("raw", tmp_path / "nowhere", as_of=AS_OF)) == {"no data"}


def test_a_row_in_the_folder_of_another_day_is_stopped(tmp_path: Path) -> None:
    folder = write(tmp_path, rows(), DAY + timedelta(days=1))
    assert "wrong partition" in faults(run_gate("raw", folder, as_of=AS_OF))


def test_examples_show_places_and_hashes_but_no_identifier(tmp_path: Path) -> None:
    columns = rows()
    duplicates(columns)
    text = run_gate("raw", write(tmp_path, columns), as_of=AS_OF).text()
    assert "row 0" in text and "#" in text
    assert "0810-0" not in text


def labels(**changes: object) -> dict[str, object]:
    return {
        "transaction_id": ["a", "b"],
        "event_timestamp": [DAY, DAY],
        "created_timestamp": [DAY + timedelta(days=2)] * 2,
        "is_fraud": [True, True],
        "source": ["chargeback", "analyst"],
        **changes,
    }


def test_a_label_known_before_its_transaction_is_a_leak(tmp_path: Path) -> None:
    pq.write_table(pa.table(labels(), schema=LABEL_SCHEMA), tmp_path / "good.parquet")
    assert faults(run_gate("labels", tmp_path, as_of=AS_OF)) == set()
    early = labels(created_timestamp=[DAY - timedelta(hours=1)] * 2, transaction_id=["c", "d"])
    pq.write_table(pa.table(early, schema=LABEL_SCHEMA), tmp_path / "bad.parquet")
    assert faults(run_gate("labels", tmp_path, as_of=AS_OF)) == {"leak"}


def profiles(count: int = 200, *, of: str = "merchant", **changes: object) -> pa.Table:
    entity = ENTITY_BY_NAME[of]
    columns: dict[str, object] = {
        entity.key: [f"m{place}" for place in range(count)],
        "event_timestamp": pa.array([DAY] * count, pa.timestamp("us", "UTC")),
        "created_timestamp": pa.array([DAY + timedelta(minutes=15)] * count, pa.timestamp("us", "UTC")),
    }
    for place, feature in enumerate(PROFILE_FEATURES[of]):
        rate = any(word in feature.name for word in ("_rate_", "_share_", "_risk_"))
        columns[feature.name] = [0.5] * count if rate else [float(place)] * count
    return pa.table({**columns, **changes})


def test_a_profile_that_shrinks_with_its_window_or_loses_half_its_entities_is_stopped(tmp_path: Path) -> None:
    kept = History(tmp_path / "history.json")
    folder = tmp_path / "profiles" / "merchant" / "cut=20180810T000000"
    folder.mkdir(parents=True)
    pq.write_table(profiles(), folder / "part.parquet")
    assert faults(run_gate("profiles", folder, history=kept)) == set()
    pq.write_table(profiles(merchant_txn_count_30d=[-1.0] * 200), folder / "part.parquet")
    assert "impossible values" in faults(run_gate("profiles", folder, history=kept))
    pq.write_table(profiles(20), folder / "part.parquet")
    assert "row count" in faults(run_gate("profiles", folder, history=kept))


@pytest.mark.parametrize(
    ("latitude", "longitude", "found"),
    [
        (-33.9, -70.6, set()),
        (0.0, 180.0, set()),
        (-90.5, 13.4, {"impossible values"}),
        (52.5, 181.0, {"impossible values"}),
    ],
)
def test_a_customer_may_live_south_and_west_but_on_this_planet(
    tmp_path: Path, latitude: float, longitude: float, found: set[str]
) -> None:
    folder = tmp_path / "profiles" / "customer" / "cut=20180810T000000"
    folder.mkdir(parents=True)
    place = {
        "customer_usual_latitude_30d": [latitude] * 200,
        "customer_usual_longitude_30d": [longitude] * 200,
    }
    pq.write_table(profiles(of="customer", **place), folder / "part.parquet")
    assert faults(run_gate("profiles", folder, history=History(tmp_path / "history.json"))) == found


def test_an_unreadable_velocity_state_is_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "velocity" / "customer"
    folder.mkdir(parents=True)

    def log(state: bytes) -> pa.Table:
        at = pa.array([DAY], pa.timestamp("us", "UTC"))
        return pa.table(
            {"customer_id": ["c"], "event_timestamp": at, "created_timestamp": at, "transaction_timestamp": at,
             "customer_state": pa.array([state], pa.binary())}
        )  # fmt: skip

    rest = bytes(LEAST_BYTES - 1)
    pq.write_table(log(bytes([STATE_VERSION]) + rest), folder / "part.parquet")
    assert faults(run_gate("velocity", folder)) == set()
    for bad in (bytes([STATE_VERSION]) + rest[:-8], bytes([STATE_VERSION - 1]) + rest, bytes([99]) + rest):
        pq.write_table(log(bad), folder / "part.parquet")
        assert faults(run_gate("velocity", folder)) == {"unreadable state"}


def test_the_command_builds_data_docs_without_values_and_exits_with_the_verdict(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = rows()
    nulls(columns)
    duplicates(columns)
    assert main(["raw", str(write(tmp_path, columns)), "--as-of", "2018-09-01"]) == 1
    out = capsys.readouterr().out
    assert "BLOCKED: nulls: customer_id is missing in 30 rows" in out
    docs = tmp_path / "results" / "gates"
    pages = list((docs / "validations").rglob("*.html"))
    assert len(pages) == 2
    for page in [docs / "index.html", *pages]:
        text = page.read_text()
        assert "http://" not in text.replace("http://www.w3.org", "") or 'src="http' not in text
        assert "0810-1" not in text
