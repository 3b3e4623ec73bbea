"""Profiles and states back into an online store that lost them: `python -m jobs.restore`.

The newest cut is materialized again from one ttl back, and the running stream is asked to write every state that
it holds once more. The newest wins: what is there and newer stays, and running it twice changes nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime

from feature_repo.aggregates.run import cut_folder
from fraud.features.entities import ENTITIES
from jobs.cut import materialize_cut
from stores.keys import open_keys
from stores.settings import Settings, settings
from streaming.ingest.control import encode_rewrite
from streaming.log.publish import open_writer


def newest_cut_here() -> datetime | None:
    """The newest cut in the lake."""
    root = cut_folder(ENTITIES[0], datetime(2000, 1, 1, tzinfo=UTC)).parent.parent
    names = [path.name.removeprefix("cut=") for path in root.glob("*/cut=*")]
    if not names:
        return None
    return datetime.strptime(max(names), "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def ask_for_states(configured: Settings) -> None:
    """Ask the running stream to write its states again: one partition tells every shard."""
    seal = open_keys(configured).seal("control")
    with open_writer(configured) as writer:
        writer.publish_raw(0, encode_rewrite(seal, f"restore-{time.time_ns()}"))
        writer.flush()


def main(arguments: list[str] | None = None) -> int:
    """Bring profiles and states back; 1 where there is no cut to bring back."""
    parser = argparse.ArgumentParser(prog="python -m jobs.restore", description=__doc__)
    parser.add_argument("--states-only", action="store_true", help="leave the profiles alone")
    chosen = parser.parse_args(arguments)
    configured = settings()
    ask_for_states(configured)
    print("the stream is asked to write all its states; start it if it is not running")
    if chosen.states_only:
        return 0
    cut = newest_cut_here()
    if cut is None:
        print("there is no cut to bring profiles back from: run `tollgate materialize`", file=sys.stderr)
        return 1
    print(f"{materialize_cut(cut):,} profiles are online as of {cut.isoformat()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
