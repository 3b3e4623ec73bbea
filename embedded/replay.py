"""Replay: history scored in event order against the live service.

Each transaction is sent as a client would send it; the service scores it and puts it on the
event log, the stream counts it and writes new states to Redis. Before a transaction is sent,
the updates of every earlier one that shares an entity with it must be visible in Redis, as
they would have been in life, where minutes lie between them. An independent reader watches
Redis for that, which is also how freshness is measured.

At each aggregate cut the replay pauses: everything sent so far must have reached the lake,
then the caller's `on_cut` computes and materializes the cut.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from fraud.contract.transaction import Transaction, encode_transaction
from fraud.features.entities import CUT_INTERVAL, ENTITIES
from stores.redis_clients import connect_async
from stores.redis_layout import decode_timestamp, entity_key, ts_field

_POLL_SECONDS = 0.002
_CUT_MS = int(CUT_INTERVAL.total_seconds() * 1000)


class ReplayError(RuntimeError):
    """The replay cannot go on; the text says at which transaction and why."""


@dataclass(slots=True)
class ReplayResult:
    """What a replay measured. Latencies and freshness in milliseconds, in event order."""

    sent: int = 0
    errors: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    freshness_ms: list[float] = field(default_factory=list)
    decisions: dict[str, int] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    outcome: dict[str, str] = field(default_factory=dict)
    degraded: int = 0
    first_errors: list[str] = field(default_factory=list)
    scoring_seconds: float = 0.0


@dataclass(slots=True)
class _Pending:
    """One entity value whose newest update is not visible yet."""

    key: bytes
    view_field: bytes
    version: int
    since: float
    visible: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """Where to replay to. `cut_lag_ms` is the event time from a cut to its visibility."""

    url: str
    redis_url: str
    project: str
    cut_lag_ms: int
    concurrency: int = 32
    visible_seconds: float = 30.0
    token: str | None = None


class Replay:
    """One replay run; `run` returns what it measured."""

    def __init__(
        self, settings: ReplaySettings, on_cut: Callable[[int], None], progress: Callable[[int], None]
    ) -> None:
        self._settings = settings
        self._on_cut = on_cut
        self._progress = progress
        self._pending: dict[tuple[int, str], _Pending] = {}
        self._versions: dict[tuple[int, str], int] = {}
        self._result = ReplayResult()
        self._failure: ReplayError | None = None

    @property
    def sent(self) -> int:
        """How many transactions were sent so far."""
        return self._result.sent

    def run(self, transactions: Iterable[Transaction], first_cut_ms: int) -> ReplayResult:
        """Replay `transactions`, which must be in event order.

        `first_cut_ms` is the first aggregate cut (milliseconds UTC) that is not materialized
        yet. Raises `ReplayError` if an update does not become visible in time.
        """
        return asyncio.run(self._run(transactions, first_cut_ms))

    async def _run(self, transactions: Iterable[Transaction], next_cut: int) -> ReplayResult:
        settings = self._settings
        slots = asyncio.Semaphore(settings.concurrency)
        tasks: set[asyncio.Task[None]] = set()
        headers = {"Content-Type": "application/json"}
        if settings.token:
            headers["Authorization"] = f"Bearer {settings.token}"
        connector = aiohttp.TCPConnector(limit=settings.concurrency)
        async with (
            aiohttp.ClientSession(
                connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(total=15)
            ) as session,
            connect_async(settings.redis_url) as reader,
        ):
            watcher = asyncio.create_task(self._watch(reader))
            started = time.monotonic()
            try:
                for transaction in transactions:
                    while transaction.event_ms >= next_cut + settings.cut_lag_ms:
                        await self._settle(tasks)
                        self._result.scoring_seconds += time.monotonic() - started
                        await asyncio.to_thread(self._on_cut, next_cut)
                        started = time.monotonic()
                        next_cut += _CUT_MS
                    keys = self._keys(transaction)
                    for key in keys:
                        while key in self._pending:
                            await self._pending[key].visible
                    await slots.acquire()
                    if self._failure:
                        raise self._failure
                    self._expect(transaction, keys)
                    task = asyncio.create_task(self._score(session, transaction, keys, slots))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                await self._settle(tasks)
                self._result.scoring_seconds += time.monotonic() - started
            finally:
                watcher.cancel()
        return self._result

    def _keys(self, transaction: Transaction) -> list[tuple[int, str]]:
        values = [getattr(transaction, entity.key) for entity in ENTITIES]
        return [(place, value) for place, value in enumerate(values) if value is not None]

    def _expect(self, transaction: Transaction, keys: list[tuple[int, str]]) -> None:
        """Note, for each entity, the version that this transaction's update will have."""
        loop = asyncio.get_running_loop()
        for place, value in keys:
            entity = ENTITIES[place]
            version = max(transaction.event_ms * 1000, self._versions.get((place, value), 0)) + 1
            self._versions[place, value] = version
            self._pending[place, value] = _Pending(
                entity_key(self._settings.project, entity.key, value),
                ts_field(entity.velocity_view), version, 0.0, loop.create_future(),
            )  # fmt: skip

    async def _score(
        self,
        session: aiohttp.ClientSession,
        transaction: Transaction,
        keys: list[tuple[int, str]],
        slots: asyncio.Semaphore,
    ) -> None:
        result = self._result
        started = time.perf_counter()
        failed = ""
        try:
            async with session.post(self._settings.url, data=encode_transaction(transaction)) as response:
                body = await response.read()
                if response.status != 200:
                    failed = f"{response.status}: {body[:200].decode(errors='replace')}"
        except (aiohttp.ClientError, TimeoutError) as error:
            failed = f"{type(error).__name__}: {error}"
        finally:
            slots.release()
        now = time.perf_counter()
        result.sent += 1
        if failed:
            result.errors += 1
            if len(result.first_errors) < 5:
                result.first_errors.append(f"{transaction.transaction_id}: {failed}")
            for key in keys:
                self._pending.pop(key).visible.set_result(None)
            return
        answer = msgspec.json.decode(body)
        result.latencies_ms.append((now - started) * 1000)
        result.decisions[answer["decision"]] = result.decisions.get(answer["decision"], 0) + 1
        result.outcome[transaction.transaction_id] = answer["decision"]
        if answer["fraud_score"] is not None:
            result.scores[transaction.transaction_id] = answer["fraud_score"]
        result.degraded += bool(answer["degraded"])
        for key in keys:
            self._pending[key].since = now
        if result.sent % 500 == 0:
            self._progress(result.sent)

    async def _watch(self, reader: Any) -> None:
        """Look in Redis for the pending updates, and let go of those that are there."""
        while True:
            waiting = [(key, pending) for key, pending in self._pending.items() if pending.since]
            if waiting:
                async with reader.pipeline(transaction=False) as pipeline:
                    for _, pending in waiting:
                        pipeline.execute_command("HGET", pending.key, pending.view_field)
                    stored = await pipeline.execute()
                now = time.perf_counter()
                for (key, pending), value in zip(waiting, stored, strict=True):
                    if value is not None and decode_timestamp(value) >= pending.version:
                        self._result.freshness_ms.append((now - pending.since) * 1000)
                        del self._pending[key]
                        pending.visible.set_result(None)
                    elif now - pending.since > self._settings.visible_seconds:
                        self._fail(key, pending)
            await asyncio.sleep(_POLL_SECONDS)

    def _fail(self, key: tuple[int, str], pending: _Pending) -> None:
        self._failure = ReplayError(
            f"an update of {ENTITIES[key[0]].name} was not visible in Redis after "
            f"{self._settings.visible_seconds:.0f} s: is the stream running?"
        )
        pending.visible.set_exception(self._failure)

    async def _settle(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait until every answer is in and every update is visible."""
        if tasks:
            await asyncio.gather(*tasks)
        for pending in list(self._pending.values()):
            await pending.visible
        if self._failure:
            raise self._failure
