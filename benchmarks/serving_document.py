"""Writes docs/serving.md and its plots from what the benchmarks of serving left in results/bench.

python -m benchmarks.serving_document
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from stores.settings import REPOSITORY, settings
from training.card_plots import draw

_IMAGES: Final = REPOSITORY / "docs" / "images"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _targets(bench: Mapping[str, Any]) -> str:
    single, rate, read = bench["single"], bench["rate_1000"], bench["read"]
    same_rate = bench["same_rate"]["p99_ratio_to_fastapi_onnx"]
    rows = [
        ("single requests at saturation, of the floor", "at least 0.85", single["ratio_to_floor"]),
        ("the same, of `fastapi_onnx`", "at least 4", single["ratio_to_fastapi_onnx"]),
        ("p99 at the same rate, of `fastapi_onnx`", "at most 0.5", same_rate),
        ("single requests at saturation, of `feast_sdk`", "at least 10", single["ratio_to_feast_sdk"]),
        ("a lone request's p50, of the floor's", "at most 1.3", bench["lone"]["p50_ratio_to_floor"]),
        ("bulk of 64, transactions/s of the floor", "at least 0.7", bench["bulk_64"]["ratio_to_floor"]),
        ("1,000 requests/s for 60 s: p50", "under 3 ms", rate["p50_ms"]),
        ("p95", "under 8 ms", rate["p95_ms"]),
        ("p99", "under 15 ms", rate["p99_ms"]),
        ("that p99, of the floor's at the same rate", "", rate["p99_ratio_to_floor"]),
        ("errors", "0", rate["errors"]),
        ("two workers, of one, 64 connections each", "at least 1.3", bench["workers_2"]["ratio_to_one"]),
        ("the same, 64 connections in all", "", bench["workers_2"]["same_connections_ratio_to_one"]),
        ("two plain loops at once, of one", "", bench["workers_2"]["two_loops_ratio_to_one"]),
        *(
            (f"online read of {size} rows, of raw HMGET and protobuf", "at most 1.0", read[f"rows_{size}"])
            for size in (1, 16, 64)
        ),
    ]  # fmt: skip
    return table(("figure", "target", "measured"), rows)


def _stage_table(stages: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    batches = stages["batches"]
    old = {batch["rows"]: batch for batch in before["batches"]} if before else {}
    head = ["stage, us a transaction", *(f"batch of {batch['rows']}" for batch in batches)]
    rows = []
    for name in batches[0]["stages_us"]:
        cells = []
        for batch in batches:
            cell = f"{batch['stages_us'][name]:.1f}"
            if batch["rows"] in old:
                cell += f" ({old[batch['rows']]['stages_us'][name]:.1f})"
            cells.append(cell)
        rows.append([name, *cells])
    for name, key in (("**all, wall time**", "wall_us"), ("**all, CPU time**", "cpu_us")):
        cells = [
            f"{batch[key]:.0f}" + (f" ({old[batch['rows']][key]:.0f})" if batch["rows"] in old else "")
            for batch in batches
        ]
        rows.append([name, *cells])
    return table(head, rows)


def _stages_plot(stages: Mapping[str, Any]) -> str:
    batches = stages["batches"]

    def plot(axes: Axes) -> None:
        names = [f"batch of {batch['rows']}" for batch in batches]
        left = [0.0] * len(batches)
        for place, stage in enumerate(batches[0]["stages_us"]):
            values = [batch["stages_us"][stage] for batch in batches]
            axes.barh(names, values, left=left, color=colormaps["tab20"](place), label=stage)
            left = [a + b for a, b in zip(left, values, strict=True)]
        axes.invert_yaxis()
        axes.set_xlabel("microseconds a transaction")
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))

    return draw(plot, width=8, height=3.2)


def _rates_plot(rows: Sequence[Mapping[str, Any]]) -> str:
    def plot(axes: Axes) -> None:
        rates = [row["rate"] for row in rows]
        for name, colour, label in (
            ("micro_batcher", "tab:blue", "/v1/score, the micro-batcher"),
            ("bentoml_batchable", "tab:orange", "BentoML's batchable API"),
        ):
            for key, style in (("p50_ms", "-"), ("p99_ms", "--")):
                axes.plot(
                    rates, [row[name][key] for row in rows], style, color=colour, marker="o", ms=3,
                    label=f"{label}, {key[:3]}",
                )  # fmt: skip
        axes.set(xlabel="arrivals a second", ylabel="latency, ms", yscale="log")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
        for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            set_formatter("{x:g}")  # milliseconds, not powers of ten
        # Above the lines: there is no corner that they leave free in every run.
        axes.legend(fontsize=7, handlelength=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return draw(plot, width=7, height=3.4)


def _spread(two: Sequence[float], one: Sequence[float]) -> dict[str, str]:
    """How many neighbouring turns of two workers and one there are, and the quartiles of their ratios."""
    quarter, _, three_quarters = quantiles([above / below for above, below in zip(two, one, strict=True)])
    return {
        "worker_turns": str(len(one)),
        "worker_quarter": f"{quarter:.2f}",
        "worker_three_quarters": f"{three_quarters:.2f}",
    }


def _rate_table(rows: Sequence[Mapping[str, Any]]) -> str:
    def cells(one: Mapping[str, Any]) -> list[object]:
        return [one["p50_ms"], one["p99_ms"], one["errors"]]

    head = (
        "arrivals/s", "micro-batcher p50, ms", "p99", "errors", "BentoML batchable p50, ms", "p99", "errors",
    )  # fmt: skip
    return table(
        head, [(row["rate"], *cells(row["micro_batcher"]), *cells(row["bentoml_batchable"])) for row in rows]
    )


def document(folder: Path) -> str:
    """The text; draws the plots on the way. `folder` is results/bench."""

    def load(name: str) -> Any:
        path = folder / name
        return json.loads(path.read_text()) if path.exists() else None

    bench, stages = load("serving.json"), load("serving_stages.json")
    before, built = load("serving_stages_before.json"), load("serving_built.json")
    _IMAGES.mkdir(parents=True, exist_ok=True)
    (_IMAGES / "serving_stages.svg").write_text(_stages_plot(stages))
    (_IMAGES / "serving_rates.svg").write_text(_rates_plot(bench["by_rate"]))
    single = bench["single"]
    cpu = single["service_cpu_us"]["tollgate"]
    engine = next(batch for batch in stages["batches"] if batch["rows"] == 16)["cpu_us"]
    cache = stages["cache_best_case"]
    workers = bench["workers_2"]
    slots, store = bench["in_flight"], bench["redis_store"]
    text = (Path(__file__).with_name("serving_document.md")).read_text()
    parts = {
        "targets": _targets(bench),
        "rates_single": table(
            ("service", "requests/s", "CPU us a request", "generator busy"),
            [
                (f"`{name}`", rate, single["service_cpu_us"][name], single["generator_busy"][name])
                for name, rate in single["requests_per_second"].items()
            ],
        ),
        "conditions": table(
            ("part", "load before", "seconds"),
            [(name, one["load_before"], one["seconds"]) for name, one in bench["conditions"].items()],
        ),
        "stages": _stage_table(stages, before),
        "cpu_service": f"{cpu:.0f}",
        "cpu_engine": f"{engine:.0f}",
        "cpu_http": f"{cpu - engine:.0f}",
        "by_rate": _rate_table(bench["by_rate"]),
        "in_flight": table(
            ("micro-batches under way", "requests/s at saturation", "p50 at 1,000/s, ms", "p99, ms"),
            [(one["batches"], one["requests_per_second"], one["p50_ms"], one["p99_ms"]) for one in slots],
        ),
        "cache": table(
            ("rows", "whole read, us a row", "states only, us a row"),
            [(one["rows"], one["read_us"], one["states_only_us"]) for one in cache],
        ),
        "cache_saves": f"{next(o['read_us'] - o['states_only_us'] for o in cache if o['rows'] == 16):.0f}",
        "workers": table(
            ("workers", "requests/s", "of one"),
            [
                ("one", workers["requests_per_second"]["one"], ""),
                ("two", workers["requests_per_second"]["two"], workers["ratio_to_one"]),
                *(
                    (what, workers["requests_per_second"][name], workers[f"{name}_ratio_to_one"])
                    for what, name in (
                        ("two, 64 connections together", "same_connections"),
                        ("two, `TOLLGATE_MACHINE_PIN=false`", "anywhere"),
                    )
                ),
            ],
        ),
        **_spread(workers["turns"]["two"], workers["turns"]["one"]),
        "impatient": table(
            ("connections", "decisions/s", "turned away/s"),
            [tuple(row.values()) for row in bench["impatient"]],
        ),
        "store": table(
            ("an entity: profile and state", "as the embedded server is started", "with its own settings"),
            [
                (what, store[name], store[f"{name}_with_redis_defaults"])
                for what, name in (("bytes", "entity_bytes"), ("us of Redis for a read", "read_us"))
            ],
        ),
        "answer_bytes": str(store["answer_bytes"]),
        "answers_day": f"{store['answer_bytes'] * 86_400_000 / 1e9:.0f}",
        "built_transactions": str(built["transactions"]),
        "built_different": str(built["different"]),
    }  # fmt: skip
    for name, value in parts.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def main() -> int:
    path = REPOSITORY / "docs" / "serving.md"
    path.write_text(document(settings().results / "bench"))
    print(path.relative_to(REPOSITORY))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
