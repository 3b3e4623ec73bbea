"""Tokens, scopes and rates."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from bentos.api.access import Access
from bentos.base.problem import Problem


def bearer(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"authorization", f"Bearer {token}".encode())]


def tokens(path: Path, *, version: int = 1, **clients: tuple[list[str], list[str], int | None]) -> Path:
    path.write_text(
        json.dumps(
            {
                "clients": [
                    {"name": name, "sha256": [hashlib.sha256(t.encode()).hexdigest() for t in known],
                     "scopes": scopes, "rate": rate}
                    for name, (known, scopes, rate) in clients.items()
                ]
            }
        )
    )  # fmt: skip
    os.utime(path, ns=(version, version))
    return path


def status(
    access: Access, headers: list[tuple[bytes, bytes]], needed: str = "score", peer: str = "10.0.0.9"
) -> int:
    try:
        access.client(headers, peer, needed)  # type: ignore[arg-type]
    except Problem as problem:
        return problem.status
    return 200


def test_without_a_file_only_the_loopback_interface_is_served() -> None:
    access = Access(None, 0)
    local = [(b"host", b"localhost:3000")]
    assert status(access, local, peer="127.0.0.1") == 200
    assert status(access, local, peer="10.0.0.9") == 401


def test_a_token_opens_what_its_scopes_say(tmp_path: Path) -> None:
    access = Access(tokens(tmp_path / "t.json", shop=(["one", "two"], ["score"], None)), 0)
    assert access.client(bearer("one"), "10.0.0.9", "score").name == "shop"
    assert status(access, bearer("two")) == 200
    assert status(access, bearer("one"), "label") == 403
    assert status(access, bearer("three")) == 401
    assert status(access, [], peer="127.0.0.1") == 401
    assert status(access, [(b"authorization", b"Basic b25l")]) == 401
    assert status(access, [*bearer("two"), *bearer("one")]) == 401


def test_tokens_rotate_without_a_restart_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    path = tokens(tmp_path / "t.json", shop=(["old"], ["score"], None))
    access = Access(path, 0)
    tokens(path, version=2, shop=(["old", "new"], ["score"], None))
    access.refresh()
    assert (status(access, bearer("old")), status(access, bearer("new"))) == (200, 200)
    path.write_text("{")
    os.utime(path, ns=(3, 3))
    access.refresh()
    assert access.error is not None
    assert status(access, bearer("new")) == 200
    path.unlink()
    access.refresh()
    assert access.error == "t.json: FileNotFoundError"
    assert status(access, bearer("new")) == 200
    tokens(path, version=4, shop=(["new"], ["score"], None))
    access.refresh()
    assert (status(access, bearer("old")), status(access, bearer("new"))) == (401, 200)


def test_a_tokens_file_that_comes_back_unchanged_is_no_longer_refused(tmp_path: Path) -> None:
    path = tokens(tmp_path / "t.json", shop=(["old"], ["score"], None))
    access = Access(path, 0)
    path.rename(tmp_path / "away.json")
    access.refresh()
    assert access.error is not None
    (tmp_path / "away.json").rename(path)
    access.refresh()
    assert access.error is None


def test_a_scope_opens_its_own_routes_and_admin_reads_metrics_too(tmp_path: Path) -> None:
    access = Access(
        tokens(tmp_path / "t.json", scraper=(["s"], ["metrics"], None), root=(["r"], ["admin"], None)), 0
    )
    assert (status(access, bearer("s"), "metrics"), status(access, bearer("r"), "metrics")) == (200, 200)
    assert (status(access, bearer("s"), "admin"), status(access, bearer("s"), "any")) == (403, 200)
    assert (status(access, bearer("r"), "score"), status(access, bearer("x"), "any")) == (403, 401)


def test_a_client_is_held_to_its_rate(tmp_path: Path) -> None:
    now = [0.0]
    path = tokens(tmp_path / "t.json", shop=(["a"], ["score"], 10), bank=(["b"], ["score"], None))
    access = Access(path, 0, clock=lambda: now[0])
    for _ in range(10):
        access.spend("shop")
    with pytest.raises(Problem) as caught:
        access.spend("shop")
    assert (caught.value.status, caught.value.retry_after) == (429, 1)
    for _ in range(100):
        access.spend("bank")
    now[0] = 0.5
    access.spend("shop", 5)
    with pytest.raises(Problem):
        access.spend("shop")


def test_a_bulk_above_the_rate_passes_once_the_bucket_is_full(tmp_path: Path) -> None:
    now = [0.0]
    access = Access(tokens(tmp_path / "t.json", shop=(["a"], ["score"], 10)), 0, clock=lambda: now[0])
    access.spend("shop", 64)
    now[0] = 5.0
    with pytest.raises(Problem):
        access.spend("shop")
    now[0] = 7.0
    access.spend("shop")
