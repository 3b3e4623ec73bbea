"""A worker in this process, and what it leaves behind."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import redis

from bentos.api.access import open_access
from bentos.log.decision_log import read_entries
from bentos.scoring.engine import Engine
from bentos.service import open_edge, open_engine
from stores.decisions import RECORD, journal_folder
from stores.settings import load_settings
from tests.bentos.running import transaction_json

Post = Callable[..., Awaitable[httpx.Response]]
numbers = itertools.count()


@asynccontextmanager
async def worker_client(
    home: Path, url: str, **settings: Any
) -> AsyncIterator[tuple[Engine, httpx.AsyncClient]]:
    """A worker and a client of its outermost layer, without the process that converts its log."""
    # A deadline that a busy machine keeps, too.
    changes = {
        "home": home, "run": home / "run", "redis_url": url, "topic": "worker", "partitions": 1,
        "feature_deadline_ms": 1000, "serve_replay": True,
    } | settings  # fmt: skip
    chosen = load_settings().changed(**changes)
    access = open_access(chosen)
    engine = open_engine(chosen, (access.look,))
    engine._convert = lambda: None  # type: ignore[method-assign]
    await engine.start()

    async def beyond(*_: object) -> None:
        raise AssertionError("the hot routes are answered before BentoML")

    transport = httpx.ASGITransport(app=open_edge(beyond, lambda: engine, access, chosen))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield engine, client
    finally:
        await engine.stop()


@asynccontextmanager
async def worker(home: Path, url: str, **settings: Any) -> AsyncIterator[tuple[Engine, Post]]:
    """A worker, and what posts a transaction to it."""
    async with worker_client(home, url, **settings) as (engine, client):

        async def post(
            path: str = "/v1/score", *, token: str | None = None, **changes: Any
        ) -> httpx.Response:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            return await client.post(path, json=transaction_json(**changes), headers=headers)

        yield engine, post


def events(url: str) -> list[str]:
    entries = redis.Redis.from_url(url).xrange("tollgate:worker:0")
    return [json.loads(fields[b"v"])["transaction_id"] for _, fields in entries]


def logged(home: Path) -> list[dict[str, Any]]:
    """The journal's decisions, oldest series first."""
    return [
        dict(zip(RECORD, msgspec.msgpack.decode(record), strict=True))
        for path in sorted(journal_folder(home).glob("*-*"))
        for record, _ in read_entries(path)
    ]


def copied(store: Path, folder: Path) -> Path:
    """A home of one's own with the models of `store`."""
    home = folder / "home"
    home.mkdir()
    (home / "bentoml").symlink_to(store / "bentoml")
    (home / "deployment.json").write_bytes((store / "deployment.json").read_bytes())
    return home
