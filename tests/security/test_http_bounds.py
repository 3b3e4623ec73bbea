"""What a caller may send before anybody has looked at who it is: bytes, headers, seconds, connections."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bentos.api.bounded_http import MOST_PIPELINED, peer_of
from tests.bentos.running import Service, wait_for
from tests.security.raw_http import ask, connected, counted, read_answers, read_to_end, request, scored

h1 = pytest.mark.finding(
    "H1", "high", "One connection without a token stops a worker: headers without bound or end"
)
h9 = pytest.mark.finding("H9", "high", "An Upgrade header desynchronises the connection: request smuggling")

#: Seconds that a connection may take for its headers, in `guarded`.
HEAD_SECONDS = 1.5


@contextlib.contextmanager
def refusal(service: Service, kind: str, number: int = 1) -> Iterator[None]:
    """What runs inside is refused, and counted, `number` times."""
    before = counted(service, "tollgate_http_refused_total", kind=kind)
    yield
    assert wait_for(lambda: counted(service, "tollgate_http_refused_total", kind=kind) == before + number, 10)


def flood(connection: socket.socket, piece: bytes, most: int) -> int:
    """Send `piece` until the other side closes, at most `most` bytes; how many were taken."""
    sent = 0
    connection.settimeout(10)
    with contextlib.suppress(OSError):
        while sent < most:
            connection.sendall(piece)
            sent += len(piece)
    return sent


# -- headers ----------------------------------------------------------------------------------------


@h1
def test_a_header_line_without_end_is_cut_off(guarded: Service) -> None:
    with refusal(guarded, "head_bytes"), connected(guarded) as connection:
        connection.sendall(b"POST /v1/score HTTP/1.1\r\nhost: localhost\r\nx-long: ")
        flood(connection, b"a" * 16_384, 4_000_000)
        answers = read_to_end(connection)
        assert [answer.status for answer in answers] in ([431], [])  # a reset may overtake the answer


@h1
def test_a_head_that_is_too_long_gets_431_wherever_its_bytes_are(guarded: Service) -> None:
    for raw in (
        request("/v1/score", scored("long"), headers=f"x-long: {'a' * 9000}\r\n"),
        request("/v1/score", scored("long"), headers="".join(f"x-{n}: {'a' * 900}\r\n" for n in range(10))),
        request(f"/v1/score?{'a' * 9000}", scored("long")),
        request("/livez", headers=f"x-long: {'a' * 9000}\r\n", method="GET", kind=""),
    ):
        with refusal(guarded, "head_bytes"), connected(guarded) as connection:
            connection.sendall(raw)
            (answer,) = read_to_end(connection)
            assert (answer.status, answer.headers["connection"]) == (431, "close")


@h1
def test_a_head_that_is_too_long_in_many_pieces_gets_431(guarded: Service) -> None:
    with refusal(guarded, "head_bytes"), connected(guarded) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n")
        for number in range(20):
            with contextlib.suppress(OSError):
                connection.sendall(f"x-{number}: {'a' * 490}\r\n".encode())
            time.sleep(0.01)
        assert [answer.status for answer in read_to_end(connection)] in ([431], [])


@h1
def test_too_many_headers_get_431(guarded: Service) -> None:
    few = "".join(f"x-{number}: y\r\n" for number in range(20))
    many = "".join(f"x-{number}: y\r\n" for number in range(40))
    assert ask(guarded, request("/livez", method="GET", headers=few, kind="")).status == 200
    with refusal(guarded, "head_count", 2):
        for path in ("/v1/score", "/v1/labels"):
            assert ask(guarded, request(path, scored("many"), headers=many)).status == 431


@h1
def test_a_long_line_of_good_requests_in_one_read_is_not_taken_for_a_long_head(guarded: Service) -> None:
    """Sixteen kilobytes of requests, cut in the middle of one: each head by itself is short."""
    whole = b"".join(request("/v1/score", scored(f"line-{n}"), token="score") for n in range(40))
    cut = len(whole) - 700
    assert cut > 2 * 8192
    with connected(guarded) as connection:
        connection.sendall(whole[:cut])
        time.sleep(0.2)
        connection.sendall(whole[cut:])
        assert [answer.status for answer in read_answers(connection, 40)] == [200] * 40


@h1
def test_headers_after_a_chunked_body_are_bounded_and_nobodys(guarded: Service) -> None:
    head = request("/v1/score", headers="transfer-encoding: chunked\r\n").replace(
        b"content-length: 0\r\n", b""
    )
    body = scored("trailers")
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    # A token that comes after the body has been counted on is no token.
    with connected(guarded) as connection:
        connection.sendall(head + chunk + b"authorization: Bearer score\r\n\r\n")
        assert read_answers(connection, 1)[0].status == 401
    with refusal(guarded, "size"), connected(guarded) as connection:
        connection.sendall(
            head.replace(b"\r\n\r\n", b"\r\nauthorization: Bearer score\r\n\r\n") + chunk + b"x: "
        )
        assert flood(connection, b"a" * 65_536, 40_000_000) < 20_000_000


@h1
def test_a_chunk_extension_without_end_is_cut_off(guarded: Service) -> None:
    head = request("/v1/score", headers="transfer-encoding: chunked\r\n", token="score")
    with refusal(guarded, "size"), connected(guarded) as connection:
        connection.sendall(head.replace(b"content-length: 0\r\n", b"") + b"5;x=")
        assert flood(connection, b"a" * 65_536, 40_000_000) < 20_000_000


# -- time -------------------------------------------------------------------------------------------


@h1
@pytest.mark.parametrize(
    "start",
    [b"", b"P", b"POST /v1/score HTTP/1.1\r\n", b"POST /v1/score HTTP/1.1\r\nhost: x\r\n", b"\r\n\r\n"],
)
def test_a_connection_that_does_not_finish_its_headers_is_closed(guarded: Service, start: bytes) -> None:
    with refusal(guarded, "head_time"), connected(guarded, seconds=60) as connection:
        connection.sendall(start)
        answers = read_to_end(connection)
    asked = start.strip() != b""
    assert [answer.status for answer in answers] == ([408] if asked else [])


@h1
@pytest.mark.parametrize(("start", "drop"), [(b"GET /livez HTTP/1.1\r\nx: ", b"x"), (b"", b"\r\n")])
def test_a_byte_now_and_then_does_not_keep_a_connection_open(
    guarded: Service, start: bytes, drop: bytes
) -> None:
    with refusal(guarded, "head_time"), connected(guarded, seconds=60) as connection:
        connection.sendall(start)
        over = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(0.1):
                    connection.sendall(drop)

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            read_to_end(connection)
        finally:
            over.set()
            dripping.join()


@h1
def test_line_feeds_after_an_answer_do_not_keep_a_connection_open(guarded: Service) -> None:
    with connected(guarded, seconds=60) as connection:
        connection.sendall(request("/livez", method="GET", kind=""))
        assert read_answers(connection, 1)[0].status == 200
        over = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(0.2):
                    connection.sendall(b"\r\n")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert read_to_end(connection) == []  # 5 seconds later: keep-alive is over
        finally:
            over.set()
            dripping.join()


@h1
@pytest.mark.parametrize("path", ["/v1/score", "/v1/labels"])
@pytest.mark.parametrize("part", [b"", b"{"])
def test_a_body_that_does_not_come_is_not_waited_for(guarded: Service, path: str, part: bytes) -> None:
    token = "score" if path == "/v1/score" else "label"
    raw = request(path, b"{" + b" " * 50, token=token)
    with connected(guarded, seconds=60) as connection:
        connection.sendall(raw[:-51] + part)
        (answer,) = read_to_end(connection)
    assert (answer.status, answer.headers["connection"]) == (408, "close")


@h1
def test_a_head_in_pieces_that_is_in_time_is_served(guarded: Service) -> None:
    raw = request("/v1/score", scored("pieces"), token="score")
    with connected(guarded) as connection:
        for start in range(0, len(raw), 60):
            connection.sendall(raw[start : start + 60])
            time.sleep(0.02)
        assert read_answers(connection, 1)[0].status == 200
        # and its time has not run into the next request's
        time.sleep(HEAD_SECONDS + 0.3)
        connection.sendall(raw)
        assert read_answers(connection, 1)[0].status == 200


# -- connections ------------------------------------------------------------------------------------


@h1
def test_one_address_has_so_many_connections_and_gets_them_back(guarded: Service) -> None:
    with refusal(guarded, "peer_connections"):
        with ExitStack() as held:
            for _ in range(24):
                one = held.enter_context(connected(guarded))
                one.sendall(request("/livez", method="GET", kind=""))
                assert read_answers(one, 1)[0].status == 200
            with connected(guarded) as more:
                assert [answer.status for answer in read_to_end(more)] == [503]
        assert wait_for(lambda: ask(guarded, request("/livez", method="GET", kind="")).status == 200)


def test_a_network_of_ipv6_is_one_caller_and_an_address_of_ipv4_is_itself() -> None:
    assert peer_of("2001:db8:1:2:3:4:5:6") == peer_of("2001:db8:1:2::1") == "2001:db8:1:2::"
    assert peer_of("2001:db8:1:3::1") != peer_of("2001:db8:1:2::1")
    assert peer_of("::ffff:192.0.2.7") == peer_of("192.0.2.7") == "192.0.2.7"
    assert peer_of("::1") == "::1"


@h1
def test_of_thousands_of_requests_in_one_read_few_wait_and_the_rest_end_the_connection(
    guarded: Service,
) -> None:
    short = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
    with refusal(guarded, "pipelined"), connected(guarded) as connection:
        connection.sendall(short * 1500)
        answers = read_to_end(connection)
        assert {answer.status for answer in answers} == {200}
        assert len(answers) <= MOST_PIPELINED + 2
    with connected(guarded) as connection:
        connection.sendall(short * 40)
        assert [answer.status for answer in read_answers(connection, 40)] == [200] * 40


# -- one request, one answer ------------------------------------------------------------------------

SMUGGLED = request("/v1/status", method="GET", token="admin", kind="")


@h9
@pytest.mark.parametrize("token", ["score", None])
@pytest.mark.parametrize(
    "headers",
    [
        "upgrade: h2c\r\nconnection: upgrade\r\n", "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
        "upgrade: tollgate/9\r\n", "connection: upgrade\r\nupgrade:\r\n", "UPGRADE: TLS/1.0\r\n",
    ],
)  # fmt: skip
def test_an_upgrade_is_refused_and_what_follows_is_not_read(
    guarded: Service, headers: str, token: str | None
) -> None:
    raw = request("/v1/score", SMUGGLED, token=token, headers=headers)
    head, body = raw[: -len(SMUGGLED)], raw[-len(SMUGGLED) :]
    with refusal(guarded, "upgrade"), connected(guarded) as connection:
        connection.sendall(head)
        time.sleep(0.1)
        with contextlib.suppress(OSError):
            connection.sendall(body)
        answers = read_to_end(connection)
    assert [answer.status for answer in answers] == [400]


@h9
def test_an_upgrade_behind_other_requests_is_refused_after_their_answers(guarded: Service) -> None:
    upgrade = request("/livez", method="GET", kind="", headers="upgrade: h2c\r\nconnection: upgrade\r\n")
    with connected(guarded) as connection:
        connection.sendall(
            b"".join(request("/v1/score", scored(f"before-{n}"), token="score") for n in range(3))
            + upgrade + SMUGGLED
        )  # fmt: skip
        assert [answer.status for answer in read_to_end(connection)] == [200, 200, 200, 400]
    with connected(guarded) as connection:  # behind an answer of the other way
        connection.sendall(request("/livez", method="GET", kind="") + upgrade + SMUGGLED)
        assert read_to_end(connection)[0].status == 200


@h9
@pytest.mark.parametrize(
    "raw",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost:80\r\n\r\n" + SMUGGLED,
        b"POST /v1/score HTTP/2.0\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n",
        b"GET /livez HTTP/1.2\r\nhost: localhost\r\n\r\n",
        b"GET /livez HTTP/0.9\r\nhost: localhost\r\n\r\n",
        b"GET /livez\r\n\r\n",
        b"POST /v1/score HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/score HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST /v1/score HTTP/1.1\r\nhost: localhost\r\ncontent-length: +5\r\n\r\nabcde",
        b"POST /v1/score HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/score HTTP/1.1\r\nhost: localhost\r\nx: y\r\n folded\r\ncontent-length: 0\r\n\r\n",
        b"GET /livez HTTP/1.1\nhost: localhost\n\n",
    ],
)
def test_what_servers_and_proxies_may_read_differently_is_refused_and_closed(
    guarded: Service, raw: bytes
) -> None:
    with connected(guarded) as connection:
        connection.sendall(raw)
        answers = read_to_end(connection)
    assert [answer.status for answer in answers] in ([400], [505])
    assert answers[0].headers["connection"] == "close"


@h1
def test_the_service_is_as_it_was_after_all_that(guarded: Service) -> None:
    assert ask(guarded, request("/v1/score", scored("after-all"), token="score")).status == 200
    assert "Traceback" not in guarded.log.read_text()
