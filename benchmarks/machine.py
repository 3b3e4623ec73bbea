"""`make bench-machine`: what each part of `machine/` is worth alone -> results/bench/machine.json.

Each part is switched on and off in turn, everything else as it is, in this run and on this machine; each pair
of turns stands beside the next in time, every other one the other way round. A `ratio` is how much better it
is with the part than without, in the part's own measure: the median of the pairs, with the smallest and the
largest beside it. Pairs are added until they agree or the part's share of the time is over.

The verdict is `keeps` for a median above 1.02 with four pairs in five above 1, else `gone`: a part that
cannot show here what it is worth has no business being there. Run it on a quiet machine: the file says how
busy it was.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.serving_bench import PROJECT, Bench, Saturation, say
from benchmarks.serving_data import build_model, fill_store
from benchmarks.streaming_flow import Run, run_flow
from embedded.processes import stop_on_sigterm
from embedded.redis_server import start_redis
from machine.linux import processors
from stores.settings import REPOSITORY, settings
from streaming.log.load import Load, events

#: Measures one turn with these variables set: a figure, the larger the better.
Turn = Callable[[Mapping[str, str]], float]
#: From here on a median counts as more than noise; and so many of the pairs must say the same.
_EARNED: Final = 1.02
_AGREED: Final = 0.8
#: Pairs before which nothing is decided, and after which nothing more is tried.
_FEWEST: Final = 5
_MOST: Final = 15
#: Features of 32 transactions, again and again for a second: rows a second.
_ROWS: Final = """
import time
import numpy as np
from fraud.features.feature_list import PROFILE_INPUTS
from fraud.features.on_demand import packed_rows
from fraud.features.request import REQUEST_FIELDS
from fraud.state.windows import joined
words, ends = joined([None] * 6 * 32)
requests = np.ones((32, len(REQUEST_FIELDS)), dtype=np.int64)
profiles = np.ones((32, len(PROFILE_INPUTS)))
packed_rows(words, ends, requests, profiles)
rows, began = 0, time.perf_counter()
while time.perf_counter() - began < 1.0:
    packed_rows(words, ends, requests, profiles)
    rows += 32
print(rows / (time.perf_counter() - began))
"""


def compare(
    name: str,
    switch: str,
    measure: str,
    turn: Turn,
    seconds: float,
    off: str = "false",
    fewest: int = _FEWEST,
) -> dict[str, Any]:
    """Pairs of one turn with the part and one without, until the verdict is clear or `seconds` are over."""
    found: dict[bool, list[float]] = {True: [], False: []}
    until = time.monotonic() + seconds
    ratios: list[float] = []
    while len(ratios) < _MOST and (len(ratios) < fewest or time.monotonic() < until):
        for on in (True, False) if len(ratios) % 2 == 0 else (False, True):
            found[on].append(turn({} if on else {switch: off}))
        ratios.append(found[True][-1] / found[False][-1])
        say(f"{name}, pair {len(ratios)}: {ratios[-1]:.3f} ({found[True][-1]:.4g} {measure} with it)")
        agreed = sum(ratio > 1 for ratio in ratios) / len(ratios)
        if len(ratios) >= fewest and agreed in (0.0, 1.0) and not 0.99 < statistics.median(ratios) < 1.05:
            break  # more pairs would not change what is said
    median = statistics.median(ratios)
    return {
        "switch": f"{switch}={off}",
        "measure": measure,
        "ratio": round(median, 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "pairs": len(ratios),
        "pairs_above_1": round(agreed, 2),
        "verdict": "keeps" if median > _EARNED and agreed >= _AGREED else "gone",
        "with": [round(each, 4) for each in found[True]],
        "without": [round(each, 4) for each in found[False]],
    }


@contextmanager
def _variables(chosen: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(chosen)
    settings.cache_clear()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        settings.cache_clear()


def _answers(bench: Bench, part: str, workers: int) -> Turn:
    """Answers a second of so many workers at saturation, four batches of connections for each."""

    def turn(chosen: Mapping[str, str]) -> float:
        label = "-".join([part, *chosen])
        running = bench.service("tollgate", label, TOLLGATE_SERVE_WORKERS=str(workers), **chosen)
        return Saturation().turn(running, bench.seconds, 64 * workers)

    return turn


def _promptness(bench: Bench, part: str, workers: int, rate: float) -> Turn:
    """One through the 99th percentile of latency at `rate` requests a second, in milliseconds."""

    def turn(chosen: Mapping[str, str]) -> float:
        label = "-".join([part, *chosen])
        running = bench.service("tollgate", label, TOLLGATE_SERVE_WORKERS=str(workers), **chosen)
        latency = bench.at(running, rate, 2 * bench.seconds).milliseconds(99)
        running.settle()
        return 1 / latency

    return turn


def _taken_in(count: int) -> Turn:
    """Events that a second of the flow's processor takes in, of a backlog of so many."""
    load = list(events(Load(count, customers=5_000, merchants=2_000, step_ms=20), 2))

    def turn(chosen: Mapping[str, str]) -> float:
        with _variables(chosen):
            run: Run = run_flow(load, 1)
        return 1e6 / run.flow_us

    return turn


def _started(folder: Path) -> Turn:
    """One through the seconds until a process has the loops of a request, kept from before or not."""

    def turn(chosen: Mapping[str, str]) -> float:
        kept = folder / ("kept" if not chosen else f"new-{time.time_ns()}")
        variables = os.environ | {"TOLLGATE_MACHINE_CODE_FOLDER": str(kept)}
        command = [sys.executable, "-m", "bentos.features.warm_up"]
        if not chosen:
            subprocess.run(command, cwd=REPOSITORY, env=variables, check=True)
        else:  # nothing is brought there from beside the modules either
            command = [sys.executable, "-c", _WITHOUT_KEPT]
        began = time.perf_counter()
        subprocess.run(command, cwd=REPOSITORY, env=variables, check=True)
        return 1 / (time.perf_counter() - began)

    return turn


_WITHOUT_KEPT: Final = """
from machine import code_folder
code_folder._usable = lambda folder: False
from bentos.features.warm_up import warm_up
warm_up()
"""


def _rows(chosen: Mapping[str, str]) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _ROWS], cwd=REPOSITORY, env=os.environ | chosen, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return float(done.stdout)


#: By part: its switch, the value that turns it off, the measure, its share of the time, and the fewest pairs.
PARTS: Final = {
    "compiled": ("NUMBA_DISABLE_JIT", "1", "rows/s", 1, 3),
    "code_folder": ("TOLLGATE_MACHINE_CODE_FOLDER", "nowhere", "1/s to start", 2, 2),
    "pin": ("TOLLGATE_MACHINE_PIN", "false", "answers/s", 4, _FEWEST),
    "behind": ("TOLLGATE_MACHINE_BEHIND", "false", "1/ms (p99)", 4, _FEWEST),
    "spare_time": ("TOLLGATE_MACHINE_SPARE_TIME", "false", "1/ms (p99)", 4, _FEWEST),
    "garbage_service": ("TOLLGATE_MACHINE_GARBAGE", "false", "1/ms (p99)", 4, _FEWEST),
    "garbage_flow": ("TOLLGATE_MACHINE_GARBAGE", "false", "events/s of a processor", 3, _FEWEST),
    "timers": ("TOLLGATE_MACHINE_TIMERS", "false", "events/s of a processor", 3, _FEWEST),
}
#: Requests a second of the latency measures: most that two workers can take beside the generator, or one.
_RATE: Final = 4_000


def measure(
    parts: list[str], *, minutes: float, seconds: float, backlog: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each of `parts` with what it is worth."""
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as scratch:
        root = Path(scratch)
        server = start_redis(root / "redis")
        bench = Bench(root, server.url, _FEWEST, seconds)
        cores = max(2, len(processors()))
        turn_of: dict[str, Callable[[], Turn]] = {
            "compiled": lambda: _rows,
            "code_folder": lambda: _started(root / "code"),
            "pin": lambda: _answers(bench, "pin", cores),
            "behind": lambda: _promptness(bench, "behind", cores, _RATE),
            "spare_time": lambda: _promptness(bench, "spare_time", cores, _RATE),
            "garbage_service": lambda: _promptness(bench, "garbage_service", 1, _RATE),
            "garbage_flow": lambda: _taken_in(backlog),
            "timers": lambda: _taken_in(backlog),
        }
        try:
            build_model(root / "model")
            fill_store(server.url, PROJECT)
            for name in parts:
                switch, off, unit, share, fewest = PARTS[name]
                say(name)
                given = minutes * 60 * share / sum(part[3] for part in PARTS.values())
                yield name, compare(name, switch, unit, turn_of[name](), given, off, fewest)
                bench.stop(*list(bench.running))
        finally:
            bench.stop(*list(bench.running))
            server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.machine", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to measure; others stay"
    )
    parser.add_argument("--minutes", type=float, default=5, help="about how long all parts take together")
    parser.add_argument("--quick", action="store_true", help="short turns, for a look while developing")
    options = parser.parse_args()
    stop_on_sigterm()
    path = settings().results / "bench" / "machine.json"
    result = json.loads(path.read_text()) if path.exists() and set(options.only) != set(PARTS) else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    result["machine"] = {
        "processors": len(processors()) or os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }
    minutes, seconds, backlog = (1.0, 0.5, 15_000) if options.quick else (options.minutes, 1.5, 60_000)
    for name, figures in measure(options.only, minutes=minutes, seconds=seconds, backlog=backlog):
        result.setdefault("parts", {})[name] = figures
        path.write_text(json.dumps(result, indent=2) + "\n")
    for name, figures in result["parts"].items():
        spread = f"{figures['lowest']} to {figures['highest']}, {figures['pairs']} pairs"
        print(f"{name:16} {figures['ratio']:8.3f}  ({spread})  {figures['verdict']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
