"""An exact list of paths is let in, by exact methods, and nothing else reaches BentoML's application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
from bentoml.exceptions import BentoMLException

from bentos.api.access import Access
from bentos.api.admitted import admitted, require_admitted
from bentos.api.edge import Edge
from bentos.service import FraudScorer
from embedded.redis_server import RedisServer
from tests.bentos.running import CALLER, Service, save_model, transaction_json
from tests.security.raw_http import ask, counted, metrics, request, scored

c1 = pytest.mark.finding("C1", "critical", "Every check of a caller is passed by adding %0a to the path")
h2 = pytest.mark.finding(
    "H2", "high", "Unknown paths become metric series for ever, and a scrape stalls decisions"
)

POSTED = ("/v1/score", "/v1/score/batch", "/v1/labels", "/v1/outcomes", "/v1/explain")
READ = ("/v1/status", "/metrics", "/docs.json", "/schema.json")
HEALTH = ("/healthz", "/livez", "/readyz")
LABEL = {
    "transaction_id": "stolen", "event_time": "2026-03-01T12:00:00Z", "is_fraud": True, "source": "chargeback",
}  # fmt: skip
#: How a path is written so that one program takes it for another one than the next program does.
DISGUISES = {
    "line feed": "{0}%0a", "line feed in capitals": "{0}%0A", "carriage return": "{0}%0d", "nul": "{0}%00",
    "trailing slash": "{0}/", "two slashes": "/{0}", "two slashes within": "/v1/{1}", "dot": "/.{0}", "dots": "/x/..{0}",
    "dots encoded": "/x/%2e%2e{0}", "slash encoded": "/v1%2f{1}", "slash encoded twice": "/v1%252f{1}",
    "letter encoded": "/v1/%73{2}", "capitals": "{3}", "parameter": "{0};a=b", "empty parameter": "{0};",
    "space encoded": "{0}%20", "tab encoded": "{0}%09", "backslash": "/v1\\{1}", "trailing dot": "{0}.",
    "extension": "{0}.json", "line separator": "{0}%e2%80%a8", "next line": "{0}%c2%85",
    "absolute": "http://localhost{0}", "absolute of another": "http://evil.example{0}", "scheme alone": "http:{0}",
    "authority": "//localhost{0}", "without a slash": "v1/{1}", "star": "*",
}  # fmt: skip


def disguised(path: str, how: str) -> str:
    last = path.rsplit("/", 1)[-1]
    return how.format(path, path.removeprefix("/v1/").lstrip("/"), last[1:], path.upper())


def body_of(path: str) -> bytes:
    if path == "/v1/outcomes":
        return b'{"transaction_id": "stolen", "kind": "declined"}'
    if path == "/v1/labels":
        return json.dumps(LABEL).encode()
    return b"[" + scored("stolen") + b"]" if path == "/v1/score/batch" else scored("stolen")


@c1
@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("path", POSTED)
def test_no_way_of_writing_a_path_passes_the_check_of_the_caller(
    guarded: Service, path: str, disguise: str
) -> None:
    answer = ask(guarded, request(disguised(path, DISGUISES[disguise]), body_of(path)))
    assert answer.status in (400, 401, 404)
    assert set(json.loads(answer.body)["error"]) == {"field", "reason"}


@c1
@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("path", POSTED)
def test_and_none_by_the_other_way_without_the_lane(local: Service, path: str, disguise: str) -> None:
    """Without tokens a caller behind a proxy is a stranger, whatever the path looks like."""
    raw = request(
        disguised(path, DISGUISES[disguise]), body_of(path), headers="x-forwarded-for: 203.0.113.9\r\n"
    )
    assert ask(local, raw).status in (400, 401, 404)


@c1
@pytest.mark.parametrize("path", READ)
@pytest.mark.parametrize("disguise", DISGUISES)
def test_what_is_read_is_behind_a_token_too(guarded: Service, path: str, disguise: str) -> None:
    target = disguised(path, DISGUISES[disguise])
    assert ask(guarded, request(target, method="GET", kind="")).status in (400, 401, 404)


@c1
def test_a_disguised_path_is_unknown_to_a_caller_with_a_token_too(guarded: Service) -> None:
    for disguise in ("%0a", "/", ";", "%20"):
        answer = ask(guarded, request(f"/v1/score{disguise}", scored("disguised"), token="score"))
        assert answer.status == 404


@c1
def test_the_plain_paths_are_served_to_whom_they_are_for(guarded: Service) -> None:
    asked = [
        ("/v1/score", scored("plain"), "score", 200), ("/v1/explain", scored("plain"), "score", 200),
        ("/v1/score/batch", b"[" + scored("plain") + b"]", "score", 200),
        ("/v1/labels", json.dumps(LABEL).encode(), "label", 202),
        ("/v1/outcomes", body_of("/v1/outcomes"), "outcome", 202),
        ("/v1/outcomes", body_of("/v1/outcomes"), "label", 403),
        ("/v1/labels", json.dumps(LABEL).encode(), "score", 403), ("/v1/score", scored("plain"), "label", 403),
    ]  # fmt: skip
    for path, body, token, status in asked:
        assert ask(guarded, request(path, body, token=token)).status == status


@c1
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "QUERY"])
@pytest.mark.parametrize("path", POSTED)
def test_a_route_has_the_methods_of_its_entry_and_no_other(guarded: Service, path: str, method: str) -> None:
    explains = path == "/v1/explain"  # a decision that was made is read, one that was not is posted
    answer = httpx.request(method, guarded.url + path, headers={"authorization": "Bearer score"})
    if explains and method == "GET":
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, "transaction_id")
        return
    if method == "QUERY" and answer.status_code == 400:
        return  # a method that the parser does not know
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST" if explains else "POST")


@c1
@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("path", [*READ, *HEALTH, "/"])
def test_what_is_read_is_not_written(guarded: Service, path: str, method: str) -> None:
    answer = httpx.request(method, guarded.url + path, headers={"authorization": "Bearer admin"})
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]


@c1
def test_tuning_oracles_and_documents_need_a_token(guarded: Service) -> None:
    for path in (*READ, "/", "/static_content/swagger-ui.css"):
        assert httpx.get(guarded.url + path).status_code == 401
    for path, token, status in [
        ("/metrics", "metrics", 200), ("/metrics", "admin", 200), ("/metrics", "score", 403),
        ("/docs.json", "label", 200), ("/schema.json", "score", 200), ("/", "score", 200),
        ("/v1/status", "admin", 200), ("/v1/status", "metrics", 403),
    ]:  # fmt: skip
        answer = httpx.get(guarded.url + path, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == status, path


@c1
def test_health_is_everybodys(guarded: Service) -> None:
    for path in HEALTH:
        assert httpx.get(guarded.url + path).status_code == 200
        assert httpx.head(guarded.url + path).status_code == 200


@c1
def test_a_refused_body_is_not_read(guarded: Service) -> None:
    """60 MB are declared and none are sent: who waits for them gets no answer."""
    for path in ("/v1/labels%0a", "/unknown", "/v1/score/batch", "/docs.json", "/livez"):
        raw = request(path, headers="x: y\r\n").replace(b"content-length: 0", b"content-length: 60000000")
        answer = ask(guarded, raw if path in POSTED or "%" in path else raw.replace(b"POST", b"GET"))
        assert answer.status in (401, 404, 413)
        assert answer.headers["connection"] == "close"


@c1
def test_the_page_of_the_api_asks_no_other_server_for_scripts(guarded: Service) -> None:
    answer = httpx.get(guarded.url + "/", headers={"authorization": "Bearer score"})
    assert "default-src 'self'" in answer.headers["content-security-policy"]


@c1
def test_a_typed_client_with_a_token_is_served(guarded: Service) -> None:
    with bentoml.SyncHTTPClient(guarded.url, token="score") as client:
        answer = client.score(transaction_json(transaction_id="typed"))
        bulk = client.score_batch([transaction_json(transaction_id="typed-bulk")])
    assert answer["transaction_id"] == "typed"
    assert bulk[0]["transaction_id"] == "typed-bulk"


# -- the second line: BentoML's own application, as if the edge let everything through ---------------


@c1
def test_typed_methods_refuse_what_the_edge_has_not_let_in(
    home: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLGATE_REDIS_URL", f"redis://127.0.0.1:{redis_server.port}/13")
    save_model(home, "first")

    async def run() -> dict[tuple[str, bool], int]:
        app = bentoml.Service.to_asgi(FraudScorer, is_main=True)
        seen = {}
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                for path in POSTED:
                    for mark in (False, True):
                        with admitted(CALLER if mark else None):
                            answer = await client.post(
                                path, content=body_of(path), headers={"content-type": "application/json"}
                            )
                        seen[path, mark] = answer.status_code
        return seen

    assert asyncio.run(run()) == {
        (path, mark): 200 if mark else 403 for path in POSTED for mark in (False, True)
    }


@c1
def test_the_mark_of_an_earlier_request_on_the_connection_is_not_a_later_ones() -> None:
    seen: list[bool] = []

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        try:
            require_admitted()
            seen.append(True)
        except BentoMLException:
            seen.append(False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> None:
        edge = Edge(app, lambda: None, Access(None, 0))
        transport = httpx.ASGITransport(app=edge)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            with admitted(CALLER):  # the context that a connection inherited
                await client.get("/livez")

    asyncio.run(run())
    assert seen == [False]


# -- metric series -----------------------------------------------------------------------------------


@h2
def test_unknown_paths_make_no_series_and_leave_no_trace_of_what_they_were(guarded: Service) -> None:
    httpx.get(guarded.url + "/livez")
    before = metrics(guarded).count("\n")
    refused = counted(guarded, "tollgate_http_refused_total", kind="path")
    with httpx.Client() as client:
        for number in range(60):
            assert (
                client.get(f"{guarded.url}/leak/{number}/4111111111111111/cust-Jane Doe").status_code == 404
            )
    text = metrics(guarded)
    assert "4111111111111111" not in text
    assert "Jane" not in text
    assert text.count("\n") - before <= 1  # the kind itself, when it is the first of its kind
    assert counted(guarded, "tollgate_http_refused_total", kind="path") == refused + 60


@h2
def test_the_metrics_port_answers_for_metrics_and_for_nothing_else(guarded: Service) -> None:
    url = f"http://127.0.0.1:{guarded.environment['TOLLGATE_SERVE_METRICS_PORT']}"
    assert "tollgate_http_refused_total" in httpx.get(url + "/metrics").text
    for path in ("/", "/v1/score", "/metrics/", "/metrics%0a", "/readyz", "/docs.json"):
        assert httpx.get(url + path).status_code == 404
    assert httpx.post(url + "/metrics").status_code == 404
