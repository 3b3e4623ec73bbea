"""`make bench-keyed`: what signing costs, in microseconds -> results/bench/keyed.json.

Each path that signs or verifies runs as it is and with a seal that computes nothing, in alternating turns
of this run; a figure is the fastest turn of each, over objects made beforehand. `us` is the path, `plain_us`
the same without codes, `keyed_us` what they add. `decision` is what one decided payment pays: its claim,
its remembered answer and its row of the log. The path of a log row ends before the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final, cast

import msgspec
import numpy as np

from benchmarks.serving_data import transactions
from bentos.base.work import Work
from bentos.log.decision_log import DecisionLog, log_row
from bentos.once.claims import answer_key, answer_value, claim_command, claim_value, read_value
from fraud.contract.answer import Answer
from fraud.features.entities import ENTITY_BY_NAME
from fraud.features.feature_list import VECTOR
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState
from stores.key_file import make_ring
from stores.keys import CODE_BYTES, SIGNATURE_BYTES, Keys, Seal
from stores.settings import settings
from stores.spool import SpoolFile
from streaming.ingest.control import encode_seed, read_seed
from streaming.sealed_pickles import open_pickle, seal_pickle

PROJECT: Final = "bench"
_TURNS: Final = 25
_NUMBER: Final = 2_000
#: To read a seed merges it on trial, which takes a hundred times as long as anything else here.
_SEEDS: Final = 100
#: Events in a seeded state, and updates in what a snapshot keeps: usual ones.
_EVENTS: Final = 40
_PIECE_BYTES: Final = 4_096


class Unsigned:
    """A seal's calls without its computations: what they cost beside it is the path's own."""

    key_id = bytes(4)
    _SIGNATURE: Final = bytes(SIGNATURE_BYTES)
    _CODE: Final = bytes(CODE_BYTES)

    def sign(self, data: bytes) -> bytes:
        return self._SIGNATURE

    def code(self, data: bytes) -> bytes:
        return self._CODE

    def verifies(self, data: bytes, signature: bytes) -> bool:
        return True


class _NoDisk:
    """A file of the log that takes every frame and writes none."""

    held = 0
    full = False
    written = 0

    def append(self, records: Sequence[bytes]) -> bool:
        return True


def paths(folder: Path, seals: tuple[Seal, Unsigned]) -> dict[str, tuple[Callable[[Any], Any], int]]:
    """What one turn under a seal is, and how many objects it goes through, by path."""
    works = [Work(one, cast(Any, None), 0.0) for one in transactions(_NUMBER, "keyed")]
    answers = [_answer(work) for work in works]
    for work in works:
        work.key = answer_key(PROJECT, work.transaction.transaction_id)
    encoded = [msgspec.json.encode(answer) for answer in answers]
    vector = np.arange(len(VECTOR), dtype=np.float64)
    now_us = time.time_ns() // 1000
    rows = [
        log_row(work, vector, answer, {"card_profile": now_us}, {}, "rules", now_us)
        for work, answer in zip(works, answers, strict=True)
    ]
    state = _state()
    nonce = bytes(8)
    now_ms = now_us // 1000
    stored, seeds, sealed = {}, {}, {}
    for seal in cast(Any, seals):
        stored[seal] = [
            answer_value(seal, work.key, work.digest, text) for work, text in zip(works, encoded, strict=True)
        ]
        seeds[seal] = [encode_seed(seal, "card", f"card-{number}", state) for number in range(_SEEDS)]
        sealed[seal] = seal_pickle(seal, bytes(_PIECE_BYTES))

    def claim(seal: Any) -> None:
        for work in works:
            claim_command(work.key, claim_value(seal, work.key, work.digest, nonce))

    def answer(seal: Any) -> None:
        for work, text in zip(works, encoded, strict=True):
            answer_value(seal, work.key, work.digest, text)

    def read_answer(seal: Any) -> None:
        for work, value in zip(works, stored[seal], strict=True):
            assert read_value(seal, work.key, value) is not None

    def log_rows(seal: Any) -> None:
        log = DecisionLog(folder, seal)
        log._file.close(remove=True)
        log._file = cast(SpoolFile, _NoDisk())
        for row in rows:
            log.append([row])

    def seed(seal: Any) -> None:
        for number in range(_NUMBER):
            encode_seed(seal, "card", f"card-{number}", state)

    def read_seeds(seal: Any) -> None:
        for payload in seeds[seal]:
            read_seed(seal, payload, now_ms)

    def snapshot(seal: Any) -> None:
        data = bytes(_PIECE_BYTES)
        for _ in range(_NUMBER):
            seal_pickle(seal, data)

    def read_snapshot(seal: Any) -> None:
        for _ in range(_NUMBER):
            open_pickle(seal, sealed[seal])

    return {
        name: (turn, _SEEDS if name == "seed_read" else _NUMBER)
        for name, turn in {
            "claim": claim, "answer": answer, "answer_read": read_answer, "log_row": log_rows,
            "seed": seed, "seed_read": read_seeds, "snapshot_4k": snapshot, "snapshot_4k_read": read_snapshot,
        }.items()
    }  # fmt: skip


def _answer(work: Work) -> Answer:
    return Answer(
        work.transaction.transaction_id, 0.0123, "APPROVE", ["amount", "velocity", "country"], [], "bench",
        "champion", {"card_profile": "fresh", "customer_profile": "fresh"}, [], 0.75,
    )  # fmt: skip


def _state() -> bytes:
    """A card's packed state of `_EVENTS` payments."""
    made = VelocityState(ENTITY_BY_NAME["card"])
    for one in transactions(_EVENTS, "seed"):
        made.add(observe(msgspec.structs.replace(one, card_id="card-1")), 1)
    return made.pack()


def measured(turn: Callable[[Any], Any], number: int, seals: tuple[Seal, Unsigned]) -> dict[str, float]:
    """Microseconds for each object: of the path, of the path without codes, and what they add."""
    best = [float("inf"), float("inf")]
    for place in range(_TURNS):
        for which in (0, 1) if place % 2 else (1, 0):
            began = perf_counter()
            turn(seals[which])
            best[which] = min(best[which], (perf_counter() - began) / number * 1e6)
    keyed, plain = best
    return {"us": round(keyed, 3), "plain_us": round(plain, 3), "keyed_us": round(keyed - plain, 3)}


def identities(number: int = 20_000) -> dict[str, float]:
    """The hash of a transaction id under the deployment's secret, and without one."""
    names = [f"tx-{place:08d}".encode() for place in range(number)]
    secret = bytes(range(32))

    def turn(key: bytes) -> None:
        for name in names:
            blake2b(name, digest_size=8, key=key).digest()

    return measured(turn, number, cast(Any, (secret, b"")))


def main() -> None:
    """Write the figures."""
    argparse.ArgumentParser(prog="python -m benchmarks.keyed", description=main.__doc__).parse_args()
    figures: dict[str, Any] = {}
    with TemporaryDirectory(prefix="tollgate-keyed-") as made:
        ring = Path(made) / "keys" / "keys.json"
        make_ring(ring)
        seals = (Keys(ring).seal("answers"), Unsigned())
        asyncio.set_event_loop(asyncio.new_event_loop())
        for name, (turn, number) in paths(Path(made) / "home", seals).items():
            figures[name] = measured(turn, number, seals)
    figures["identity"] = identities()
    parts = [figures[name] for name in ("claim", "answer", "log_row")]
    figures["decision"] = {
        name: round(sum(part[name] for part in parts), 3) for name in ("us", "plain_us", "keyed_us")
    }
    for name, found in figures.items():
        print(f"{name:17} {found['us']:8.3f} us, {found['plain_us']:8.3f} without codes")
    out = settings().results / "bench" / "keyed.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
