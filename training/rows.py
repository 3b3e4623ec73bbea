"""A training set in memory: the folder that `training.dataset` wrote, as arrays.

The folder holds `manifest.json` and `*.parquet`; every column named in the feature list is a
float64 with NaN for missing. Only what a model may see at the training cut is kept apart as
mature: `label_mature` rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from fraud.features.entities import ENTITIES
from training.metrics import Floats, Ints

#: Columns beside the features, used for slices, alerts and money; kept when the set has them.
DESCRIPTIVE = (
    "transaction_id", "merchant_category", "channel", "country", "amount_reference", "currency",
    *(entity.key for entity in ENTITIES),
)  # fmt: skip
REQUIRED = ("event_timestamp", "is_fraud")
#: Feature columns in Arrow's hands at a time, so that reading takes little more than the result.
COLUMNS_AT_ONCE = 24


class TrainingSetError(ValueError):
    """A folder that is no usable training set; the text says what to do."""


@dataclass(frozen=True)
class Rows:
    """Transactions in event-time order.

    `features` is (rows, len(names)) float64; `event_us` event times in microseconds UTC;
    `label` 1 for fraud; `mature` whether the label was final at the training cut; `described`
    the other columns by name, as strings or integers; `weight` how many transactions each row
    stands for, or None when the set was not thinned.
    """

    names: tuple[str, ...]
    features: NDArray[np.float64]
    event_us: Ints
    label: NDArray[np.int8]
    mature: NDArray[np.bool_]
    described: dict[str, NDArray[Any]] = field(default_factory=dict)
    weight: Floats | None = None

    def __len__(self) -> int:
        return len(self.event_us)

    def take(self, mask: NDArray[np.bool_]) -> Rows:
        """The rows where `mask` is true."""
        return replace(
            self,
            features=self.features[mask],
            event_us=self.event_us[mask],
            label=self.label[mask],
            mature=self.mature[mask],
            described={name: values[mask] for name, values in self.described.items()},
            weight=None if self.weight is None else self.weight[mask],
        )

    @property
    def amount(self) -> Floats:
        """Amounts in reference cents; ones if the set has no amounts."""
        values = self.described.get("amount_reference")
        return np.ones(len(self)) if values is None else values.astype(np.float64)

    @property
    def customer(self) -> NDArray[Any]:
        """The customer of each row; the row's own number if the set has no customers."""
        values = self.described.get("customer_id")
        return np.arange(len(self)) if values is None else values

    @property
    def day(self) -> Ints:
        """Whole days since 1970 UTC."""
        return self.event_us // 86_400_000_000


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a training set; `TrainingSetError` if there is none."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise TrainingSetError(f"{folder} holds no manifest.json; build it with `python -m training.dataset`")
    manifest: dict[str, Any] = json.loads(path.read_bytes())
    return manifest


def feature_names(manifest: dict[str, Any], available: list[str]) -> tuple[str, ...]:
    """The model's inputs in their one order: the manifest's list, else the standard ones."""
    listed = manifest.get("features")
    names = tuple(f["name"] if isinstance(f, dict) else f for f in listed) if listed else ()
    if not names:
        from fraud.features.feature_list import VECTOR

        names = tuple(VECTOR)
    missing = [name for name in names if name not in available]
    if missing:
        raise TrainingSetError(f"the set lacks {len(missing)} features such as {missing[0]}; build it again")
    return names


def read_rows(folder: Path, *, names: tuple[str, ...] | None = None) -> Rows:
    """Read the whole set, sorted by (event time, transaction id). Raises `TrainingSetError`."""
    manifest = read_manifest(folder)
    # A run under way keeps its unfinished parts in a hidden folder.
    files = sorted(
        str(path)
        for path in folder.glob("**/*.parquet")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise TrainingSetError(f"{folder} holds no parquet files; build the set again")
    source = ds.dataset(files, format="parquet")
    available = source.schema.names
    lacking = [name for name in REQUIRED if name not in available]
    if lacking:
        raise TrainingSetError(f"{folder} lacks the column {lacking[0]}; build the set again")
    chosen = names or feature_names(manifest, available)
    described = [name for name in DESCRIPTIVE if name in available]
    optional = [name for name in ("label_mature", "weight") if name in available]
    beside = source.to_table(columns=list(dict.fromkeys([*REQUIRED, *optional, *described])))
    features = np.empty((len(beside), len(chosen)), dtype=np.float64)
    order = _order(beside)
    for start in range(0, len(chosen), COLUMNS_AT_ONCE):
        part = chosen[start : start + COLUMNS_AT_ONCE]
        _fill(features[:, start : start + len(part)], source.to_table(columns=list(part)), part, order)
    return _rows(beside, order, chosen, features)


def rows_of(table: pa.Table, names: tuple[str, ...]) -> Rows:
    """`Rows` of an Arrow table with the columns of a training set."""
    features = np.empty((len(table), len(names)), dtype=np.float64)
    order = _order(table)
    _fill(features, table, names, order)
    return _rows(table, order, names, features)


def _order(table: pa.Table) -> Ints:
    """Places of the rows by event time, then transaction id if the set has one."""
    keys = [("event_timestamp", "ascending")]
    if "transaction_id" in table.column_names:
        keys.append(("transaction_id", "ascending"))
    return np.asarray(pc.sort_indices(table, sort_keys=keys).to_numpy().astype(np.int64))


def _fill(features: NDArray[np.float64], table: pa.Table, names: tuple[str, ...], order: Ints) -> None:
    for place, name in enumerate(names):
        features[:, place] = _float64(table.column(name))[order]


def _rows(table: pa.Table, order: Ints, names: tuple[str, ...], features: NDArray[np.float64]) -> Rows:
    event = table.column("event_timestamp").cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()[order]
    label = table.column("is_fraud").cast(pa.int8()).to_numpy()[order]
    mature = np.ones(len(table), dtype=bool)
    if "label_mature" in table.column_names:
        mature = table.column("label_mature").to_numpy()[order].astype(bool)
    described = {
        name: _described(table.column(name))[order] for name in DESCRIPTIVE if name in table.column_names
    }
    weight = _float64(table.column("weight"))[order] if "weight" in table.column_names else None
    return Rows(tuple(names), features, event, label, mature, described, weight)


def _float64(column: pa.ChunkedArray) -> Floats:
    """A column as float64, null as NaN."""
    filled = column.cast(pa.float64())
    if filled.null_count:
        filled = pc.fill_null(filled, float("nan"))
    return np.asarray(filled.to_numpy(), dtype=np.float64)


def _described(column: pa.ChunkedArray) -> NDArray[Any]:
    """Text as dictionary-decoded objects ("" for null), numbers as they are."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        encoded = pc.fill_null(column, "").dictionary_encode().combine_chunks()
        words = np.asarray(encoded.dictionary.to_pylist(), dtype=object)
        codes = encoded.indices.to_numpy()
        return words[codes] if len(words) else np.zeros(len(column), dtype=object)
    return np.asarray(pc.fill_null(column, 0).to_numpy())
