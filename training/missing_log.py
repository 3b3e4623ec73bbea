"""How often views were lost in production, from the decision log: what training masks rows by."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from fraud.features.entities import ENTITIES
from stores.decisions import decisions_folder
from stores.lake_files import parquet_files
from stores.patterns import smallest, views

#: Decisions looked at, the newest first, in whole files.
MOST_DECISIONS = 2_000_000


def logged_rates(home: Path, most: int = MOST_DECISIONS) -> dict[str, float]:
    """Share of logged decisions by pattern of lost views; empty without a log."""
    folder = decisions_folder(home)
    files = [str(path) for path in parquet_files(folder)] if folder.is_dir() else []
    counted: Counter[str] = Counter()
    rows = 0
    for path in reversed(files):
        table = ds.dataset(path, format="parquet").to_table(columns=["feature_status", *_keys()])
        counted += count_patterns(table)
        rows += table.num_rows
        if rows >= most:
            break
    return {name: count / rows for name, count in counted.items()} if rows else {}


def count_patterns(table: pa.Table) -> Counter[str]:
    """Decisions by pattern; those that lack nothing are not counted."""
    of = views()
    patterns, keys = of.patterns(), _keys()
    cases = Counter(
        zip(
            map(tuple, table.column("feature_status").to_pylist()),
            zip(*[table.column(key).is_valid().to_pylist() for key in keys], strict=True),
            strict=True,
        )
    )
    found: Counter[str] = Counter()
    for (status, named), count in cases.items():
        named_keys = {key for key, is_named in zip(keys, named, strict=True) if is_named}
        pattern = smallest(patterns, of.lost(dict(status), named_keys.__contains__))
        if pattern is not None:
            found[pattern.name] += count
    return found


def _keys() -> list[str]:
    """The keys of entities that a decision names."""
    return [entity.key for entity in ENTITIES]
