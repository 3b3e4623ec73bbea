"""Has numba compile what the service runs, or read what it compiled before: a second instead of ten.

`python -m bentos.features.warm_up` does it before the first worker starts.
"""

from __future__ import annotations

import numpy as np

from bentos.features.online_features import OnlineFeatures, table_plan
from bentos.features.row_loops import fill_profile
from bentos.wire.replies import NO_REPLIES, new_scan, scan
from fraud.features.on_demand import warm_up as warm_up_features


def warm_up() -> None:
    """Run every compiled function of the serving path once."""
    warm_up_features()
    OnlineFeatures(table_plan("")).rows([], [], NO_REPLIES)
    fill_profile(np.frombuffer(b"", np.uint8), NO_REPLIES.begins, 0, np.empty(1))
    scan(np.frombuffer(b"+OK\r\n", np.uint8), new_scan(), np.zeros(2, dtype=np.int64))


if __name__ == "__main__":
    warm_up()
