"""One cut from the lake to online: aggregates, then Feast's materialization of the profiles.

    python -m jobs.cut --cut 2018-08-01T00:00:00Z

An operator may as well run ``feast -c feature_repo materialize-incremental``, which computes the newest cut
first where it is missing (`feature_repo.compute_engine`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow.parquet as pq

from feature_repo.aggregates.run import run_cuts
from feature_repo.aggregates.views import view_folder
from feature_repo.spark import print_progress
from feature_repo.store import open_store
from fraud.features.entities import PROFILE_TTL
from stores.declared import batch_views


class MissingCutError(RuntimeError):
    """A cut that has no aggregates yet."""


def materialize_cut(cut: datetime) -> int:
    """Put the profiles as of `cut` online, newest wins; returns how many the cut holds.

    Feast's incremental materialization goes on from where it last ended. Where that is no use
    (it never ran, ended more than one ttl ago, ran beyond this cut because an earlier period is being
    replayed, or ended just here, so that this cut is asked for again) everything from one ttl back is
    materialized. Raises `MissingCutError`
    if the aggregates of `cut` were not computed.
    """
    files = {view.name: list(view_folder(view, cut).glob("*.parquet")) for view in batch_views()}
    if not any(files.values()):
        raise MissingCutError(
            f"the cut {cut.isoformat()} has no aggregates: run feature_repo.aggregates first"
        )
    end = cut.astimezone(UTC)
    store = open_store()
    for view in [view for view in batch_views() if files[view.name]]:
        done = store.get_feature_view(view.name).most_recent_end_time
        with _quiet():
            # The incremental form counts back from today when it never ran: wrong for a replay.
            if done is not None and end - PROFILE_TTL <= done < end:
                store.materialize_incremental(end, feature_views=[view.name])
            else:
                store.materialize(end - PROFILE_TTL, end, feature_views=[view.name])
    return sum(pq.read_metadata(path).num_rows for paths in files.values() for path in paths)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Feast prints a banner and a progress bar for every view."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def main(arguments: list[str] | None = None) -> int:
    """The command line; exits with a sentence on a cut that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m jobs.cut", description=__doc__)
    parser.add_argument("--cut", type=datetime.fromisoformat, required=True, help="the cut, with its offset")
    cut = parser.parse_args(arguments).cut
    try:
        run_cuts([cut], progress=print_progress)
        started = time.monotonic()
        print(f"{materialize_cut(cut):,} profiles online in {time.monotonic() - started:.1f} s")
    except (ValueError, MissingCutError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
