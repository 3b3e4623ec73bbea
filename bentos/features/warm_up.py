"""Has numba compile what the service runs, or read what it compiled before: a second instead of fourteen.

`python -m bentos.features.warm_up` does it before the first worker starts. numba compiles for each
kind of argument, and an array that may not be written is another kind than one that may: so the
calls are a request's own, from the bytes of replies to the model's row.
"""

from __future__ import annotations

import numpy as np

from bentos.features.online_features import OnlineFeatures, table_plan
from bentos.features.row_loops import fill_profile
from bentos.wire.replies import NO_REPLIES, new_scan, scan
from fraud.features.on_demand import packed_rows, request_rows


def warm_up() -> None:
    """Run every compiled function of the serving path once, as a request does."""
    online = OnlineFeatures(table_plan("")).rows([], [], NO_REPLIES)
    packed_rows(online.words, online.ends, request_rows([]), online.inputs)
    fill_profile(np.frombuffer(b"", np.uint8), NO_REPLIES.begins, 0, np.empty(1))
    scan(np.frombuffer(b"+OK\r\n", np.uint8), new_scan(), np.zeros(2, dtype=np.int64))


if __name__ == "__main__":
    warm_up()
