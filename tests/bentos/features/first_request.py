"""A worker in a process of its own: prints for how many kinds of arguments there was code before and after
its first requests, as JSON. `python -m tests.bentos.features.first_request HOME URL [nowhere]`.

With `nowhere` no code is kept, as on a file system that cannot be written.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import redis

from machine import code_folder
from tests.bentos.running import CALLER, store_features, transaction, transaction_json


async def first_requests(home: Path, url: str) -> dict[str, dict[str, int]]:
    from machine.compiled import signatures  # after `nowhere` took effect
    from tests.bentos.one_worker import worker

    client = redis.Redis.from_url(url)
    async with worker(home, url) as (_, post), worker(home, url) as (other, _):
        before = signatures()
        decided = [await post(transaction_id=f"new-{number}") for number in range(2)]
        # Nothing is known of a first one; then profiles side by side; then as another program writes them.
        for name, side_by_side in (("known", True), ("foreign", False)):
            store_features(client, "tollgate", transaction(customer_id=name), side_by_side=side_by_side)
            decided.append(await post(transaction_id=name, customer_id=name))
        decided.append(await post(transaction_id="few", terminal_id=None, device_id=None, ip=None))
        # The other worker decided one of this batch: the rows of the rest are taken out.
        names = {"known": "known", "bulk-1": "known", "bulk-2": "foreign"}
        bulk = [
            (json.dumps(transaction_json(transaction_id=name, customer_id=who)).encode(), CALLER)
            for name, who in names.items()
        ]
        results = await other.score_many(bulk)
        assert all(b"decision" in each for each in results), results
        assert all(each.status_code == 200 for each in decided), [each.text for each in decided]
        client.connection_pool.disconnect()
        return {"before": before, "after": signatures()}


if __name__ == "__main__":
    if "nowhere" in sys.argv:
        code_folder._usable = lambda folder: False  # type: ignore[assignment]
    print(json.dumps(asyncio.run(first_requests(Path(sys.argv[1]), sys.argv[2]))))
