"""The closed loop of the load generator: every connection sends its next request as soon as it is answered.

It shares the processors with the service that it loads, so that what it takes itself is missing in every
figure: the loop is machine code that calls the system directly. Callers are on other machines in earnest,
and do not interrupt a service in the middle of its batch; here the loop's process does not either.
"""

from __future__ import annotations

import ctypes
import os
import platform
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, cast

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.serving_load import Load, check_bounds
from bentos.wire.replies import Bytes, Ints
from machine.compiled import Function

#: An answer that is larger counts as none.
_LARGEST_ANSWER: Final = 1 << 20
#: Seconds that answers may take after the last request.
_PATIENCE: Final = 10.0
#: Answers without a status from 100 to below it are none.
_STATUSES: Final = 600


def _system(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(ctypes.CDLL(None), name)
    function.restype, function.argtypes = result, arguments
    return function


_epoll_wait = _system("epoll_wait", ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
_epoll_ctl = _system("epoll_ctl", ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_recv = _system("recv", ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_send = _system("send", ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_clock_gettime = _system("clock_gettime", ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_MONOTONIC: Final = int(time.CLOCK_MONOTONIC)
_FORGET: Final = 2  # EPOLL_CTL_DEL, which Python does not name
_NOSIGNAL: Final = int(socket.MSG_NOSIGNAL)
#: Bytes of an `epoll_event`, of which 8 are its data, at the end: packed on x86-64 only.
_EVENT: Final = 12 if platform.machine() in ("x86_64", "AMD64") else 16


def _machine_code(function: Function) -> Function:
    """Compiled anew by every process: the addresses of the system's functions are part of it."""
    return cast("Function", numba.njit(nogil=True)(function))


@contextmanager
def _unobtrusive() -> Iterator[None]:
    """Within, this process does not take a processor from what runs there when something wakes it."""
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))


def saturate(port: int, requests: Sequence[bytes], *, connections: int, seconds: float) -> Load:
    """Send `requests` over so many connections for so many seconds, or until none is left."""
    check_bounds("127.0.0.1", connections, seconds, 0)
    begins = np.cumsum([0, *map(len, requests)])
    data = np.frombuffer(b"".join(requests), np.uint8)
    statuses = np.zeros(_STATUSES, np.int64)
    latencies = np.empty(len(requests))
    with ExitStack() as opened:
        poll = opened.enter_context(select.epoll())
        handles = np.empty(connections, np.int64)
        for place in range(connections):
            one = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(one, select.EPOLLIN)
            handles[place] = one.fileno()
        with _unobtrusive():
            took = _closed_loop(poll.fileno(), handles, data, begins, statuses, latencies, seconds, _PATIENCE)
    load = Load(seconds=took)
    load.statuses.update({status: int(count) for status, count in enumerate(statuses) if status and count})
    load.unanswered = int(statuses[0])
    load.latencies = latencies[: load.statuses.total()].tolist()
    return load


@_machine_code
def _now(room: Ints) -> float:
    _clock_gettime(_MONOTONIC, room.ctypes.data)
    return float(room[0] + 1e-9 * room[1])


@_machine_code
def _lost(poll: int, handle: int, statuses: Ints) -> None:
    """Count a request without an answer, and forget its connection, which would be ready for ever."""
    _epoll_ctl(poll, _FORGET, handle, 0)
    statuses[0] += 1


@_machine_code
def _sent(poll: int, handle: int, request: Bytes, statuses: Ints) -> bool:
    """Send a request as a whole; False when its connection is lost."""
    begin = 0
    while begin < len(request):
        done = _send(handle, request[begin:].ctypes.data, len(request) - begin, _NOSIGNAL)
        if done <= 0:
            _lost(poll, handle, statuses)
            return False
        begin += done
    return True


@_machine_code
def _whole(answer: Bytes) -> bool:
    """Whether an HTTP answer is complete, by its content-length (none: no body)."""
    body, length, at = -1, 0, 0
    while at + 3 < len(answer):
        if answer[at] == 13 and answer[at + 2] == 13:
            body = at + 4
            break
        at += 1
    if body < 0:
        return False
    name = b"\ncontent-length:"
    for start in range(at - len(name)):
        place = 0
        while place < len(name) and (answer[start + place] | 32 if place else answer[start]) == name[place]:
            place += 1
        if place == len(name):
            number = start + place
            while answer[number] != 13:
                if answer[number] != 32:
                    length = 10 * length + answer[number] - 48
                number += 1
            break
    return len(answer) >= body + length


@_machine_code
def _status(answer: Bytes) -> int:
    """The status of a whole answer; 0 if it has none."""
    status = 100 * (int(answer[9]) - 48) + 10 * (int(answer[10]) - 48) + int(answer[11]) - 48
    return status if 100 <= status < _STATUSES else 0


@_machine_code
def _closed_loop(
    poll: int, handles: Ints, data: Bytes, begins: Ints, statuses: Ints, latencies: NDArray[np.float64],
    seconds: float, patience: float,
) -> float:  # fmt: skip
    """Run it; returns how many seconds it took. Answers are counted by status; requests whose connection was
    lost, or that were not answered in time, as 0."""
    number, requests = len(handles), len(begins) - 1
    places = np.zeros(handles.max() + 1, np.int64)
    answers = np.empty((number, _LARGEST_ANSWER), np.uint8)
    arrived = np.zeros(number, np.int64)
    sent_at = np.empty(number)
    events = np.zeros(number * _EVENT, np.uint8)
    clock = np.zeros(2, np.int64)
    answered = waiting = 0
    begun = now = _now(clock)
    following = min(number, requests)
    for place in range(following):
        places[handles[place]] = place
        sent_at[place] = _now(clock)
        waiting += _sent(poll, handles[place], data[begins[place] : begins[place + 1]], statuses)
    while waiting and now < begun + seconds + patience:
        ready = _epoll_wait(poll, events.ctypes.data, number, 1000)
        now = _now(clock)
        for event in range(ready):
            end = (event + 1) * _EVENT
            handle = int(events[end - 8]) + 256 * int(events[end - 7]) + 65536 * int(events[end - 6])
            place = places[handle]
            answer, size = answers[place], arrived[place]
            got = _recv(handle, answer[size:].ctypes.data, len(answer) - size, 0)
            if got <= 0:
                _lost(poll, handle, statuses)
                waiting -= 1
                continue
            arrived[place] = size = size + got
            if not _whole(answer[:size]):
                continue
            arrived[place] = 0
            now = _now(clock)
            status = _status(answer)
            if not status:
                _lost(poll, handle, statuses)
                waiting -= 1
                continue
            statuses[status] += 1
            latencies[answered] = now - sent_at[place]
            answered += 1
            if now >= begun + seconds or following == requests:
                waiting -= 1
                continue
            sent_at[place] = now
            waiting -= not _sent(poll, handle, data[begins[following] : begins[following + 1]], statuses)
            following += 1
    statuses[0] += waiting
    return now - begun
