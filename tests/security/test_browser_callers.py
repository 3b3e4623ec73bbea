"""Where no tokens are: programs of this machine are served, web pages and proxies are not."""

from __future__ import annotations

import pytest

from bentos.api.local_callers import LocalCallers, listed
from bentos.base.problem import Problem
from stores.settings import SettingsError, load_settings
from tests.bentos.running import Service
from tests.security.raw_http import ask, request, scored

m5 = pytest.mark.finding(
    "M5", "medium", "Without tokens a web page or a forwarding proxy is taken for a local caller"
)
ROUTES = ("/v1/score", "/v1/labels", "/v1/explain", "/v1/score/batch")


@m5
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:3000", "localhost.evil.example", "127.0.0.1.evil.example", "203.0.113.9",
     "localhost@evil.example", "localhost:3000:80", "", "[::2]", "pay.example.evil", "127.0.0.2"],
)  # fmt: skip
def test_a_name_that_is_not_the_loopbacks_is_refused(local: Service, host: str) -> None:
    for path in ROUTES:
        assert ask(local, request(path, scored("rebound"), host=host)).status == 403
    for path in ("/v1/status", "/metrics", "/docs.json", "/"):
        assert ask(local, request(path, method="GET", host=host, kind="")).status == 403


@m5
@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:3000", "127.0.0.1:3000", "[::1]:3000", "[::1]", "pay.example:443"]
)
def test_the_loopbacks_own_names_and_those_of_the_settings_are_served(local: Service, host: str) -> None:
    assert ask(local, request("/v1/score", scored("named"), host=host)).status == 200


@m5
def test_a_request_names_its_host_exactly_once(local: Service) -> None:
    body = scored("hosts")
    twice = request("/v1/score", body, headers="host: localhost\r\n")
    none = request("/v1/score", body).replace(b"host: localhost\r\n", b"")
    assert (ask(local, twice).status, ask(local, none).status) == (403, 403)


@m5
def test_a_web_page_is_refused_unless_it_is_listed(local: Service) -> None:
    for origin, status in [
        ("http://evil.example", 403), ("null", 403), ("http://localhost:3000", 403),
        ("http://console.example:8080", 200), ("http://console.example", 403),
    ]:  # fmt: skip
        raw = request("/v1/score", scored("page"), headers=f"origin: {origin}\r\n")
        assert ask(local, raw).status == status, origin


@m5
@pytest.mark.parametrize(
    "header",
    ["x-forwarded-for: 203.0.113.9", "x-forwarded-for: 127.0.0.1", "x-forwarded-host: pay.example",
     "forwarded: for=203.0.113.9", "x-real-ip: 203.0.113.9", "via: 1.1 proxy"],
)  # fmt: skip
def test_what_a_proxy_forwards_is_not_local(local: Service, header: str) -> None:
    raw = request("/v1/score", scored("proxied"), headers=header + "\r\n")
    assert ask(local, raw).status == 401


@m5
def test_a_proxy_that_says_nothing_shows_by_the_host_that_it_forwards(local: Service) -> None:
    raw = request("/v1/labels", scored("proxied"), host="payments.example")
    assert ask(local, raw).status == 403


@m5
@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_a_body_without_the_type_of_json_is_refused_with_and_without_tokens(
    local: Service, guarded: Service, path: str, kind: str
) -> None:
    token = "label" if path == "/v1/labels" else "score"
    raw = request(path, scored("typeless"), kind=kind, token=token)
    assert (ask(local, raw).status, ask(guarded, raw).status) == (415, 415)


@m5
def test_with_tokens_the_token_decides_and_not_the_name(guarded: Service) -> None:
    raw = request("/v1/score", scored("name"), host="pay.example", token="score")
    assert ask(guarded, raw).status == 200


def test_a_name_that_was_right_once_does_not_let_others_in() -> None:
    local = LocalCallers()
    for port in range(1, 200):  # more than are remembered
        local.check([(b"host", b"localhost:%d" % port)], "127.0.0.1")
    with pytest.raises(Problem) as caught:
        local.check([(b"host", b"evil.example")], "127.0.0.1")
    assert caught.value.status == 403


def test_the_lists_of_names_are_checked_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed("a,b") == ["a", "b"]
    assert listed("") == []
    for wrong in ("a, b", ",a", "a,,b", "a b"):
        monkeypatch.setenv("TOLLGATE_SERVE_HOSTS", wrong)
        with pytest.raises(SettingsError, match="TOLLGATE_SERVE_HOSTS"):
            load_settings()
