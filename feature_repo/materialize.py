"""One cut into the online store: `python -m feature_repo.materialize --cut T`."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime

import pyarrow.parquet as pq

from feature_repo.aggregates.run import cut_folder, run_cuts
from feature_repo.store import open_store
from fraud.entities import ENTITIES


class MissingCutError(RuntimeError):
    """A cut that has no aggregates yet."""


def materialize_cut(cut: datetime) -> int:
    """`feast materialize-incremental` of the profile views up to `cut`; rows that the cut holds.

    Rows stamped after the last materialized cut go online, newest wins. Raises
    `MissingCutError` if the aggregates of `cut` were not computed.
    """
    files = [path for entity in ENTITIES for path in cut_folder(entity, cut).glob("*.parquet")]
    if not files:
        raise MissingCutError(f"the cut {cut.isoformat()} has no aggregates: run feature_repo.aggregates first")
    store = open_store()
    store.materialize_incremental(end_date=cut, feature_views=[entity.profile_view for entity in ENTITIES])
    return sum(pq.read_metadata(path).num_rows for path in files)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m feature_repo.materialize", description=__doc__)
    parser.add_argument("--cut", type=datetime.fromisoformat, required=True, help="the cut, with its offset")
    chosen = parser.parse_args(arguments)
    run_cuts([chosen.cut])
    print(f"{materialize_cut(chosen.cut):,} profiles of the cut {chosen.cut.isoformat()} are online")
    return 0


if __name__ == "__main__":
    sys.exit(main())
