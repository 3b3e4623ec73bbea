"""The status page: `python -m monitoring.status` writes results/status.html, one self-contained page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

from monitoring import page
from monitoring.status.health import Part, parts
from stores.job_states import CRON, overdue, read_states
from stores.settings import Settings, settings

_COLOURS: Final = {"good": "#1d7a52", "watch": "#a86508", "bad": "#b42a22", "quiet": "#8791a1"}
_WORDS: Final = {"good": "well", "watch": "look", "bad": "broken", "quiet": "idle"}
#: Where each part stands in the drawing: column and row.
_PLACES: Final = {
    "Lake": (0, 1), "Profiles": (1, 1), "Redis": (2, 1), "Event log": (2, 0), "Stream": (1, 0),
    "Service": (3, 1), "Model": (2, 2), "Decision log": (3, 0),
}  # fmt: skip
_FLOWS: Final = (
    ("Lake", "Profiles"), ("Profiles", "Redis"), ("Stream", "Redis"), ("Redis", "Service"), ("Model", "Service"),
    ("Service", "Decision log"), ("Service", "Event log"), ("Event log", "Stream"), ("Stream", "Lake"),
)  # fmt: skip
_BOX: Final = (190, 64)
_STEP: Final = (270, 104)


def drawing(found: Sequence[Part]) -> str:
    """The pipeline as boxes and arrows, each box in the colour of its health."""
    tones = {part.name: part for part in found}
    width, height = _STEP[0] * 3 + _BOX[0] + 20, _STEP[1] * 2 + _BOX[1] + 20
    parts_of = ['<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
                '<path d="M0,0L8,4L0,8Z" fill="#8791a1"/></marker></defs>']  # fmt: skip
    for start, end in _FLOWS:
        a, b = _PLACES[start], _PLACES[end]
        x1, y1, x2, y2 = *_corner(a), *_corner(b)
        if a[0] != b[0]:
            forward = b[0] > a[0]
            x1, x2 = (x1 + _BOX[0], x2) if forward else (x1, x2 + _BOX[0])
            y1, y2 = y1 + _BOX[1] / 2, y2 + _BOX[1] / 2
        else:
            down = b[1] > a[1]
            y1, y2 = (y1 + _BOX[1], y2) if down else (y1, y2 + _BOX[1])
            x1, x2 = x1 + _BOX[0] / 2, x2 + _BOX[0] / 2
        parts_of.append(
            f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" stroke="#8791a1" stroke-width="1.5" marker-end="url(#tip)"/>'
        )
    for name, place in _PLACES.items():
        part = tones.get(name)
        if part is None:
            continue
        x, y = _corner(place)
        colour = _COLOURS[part.tone]
        parts_of.append(
            f'<rect x="{x}" y="{y}" width="{_BOX[0]}" height="{_BOX[1]}" rx="7" fill="white" stroke="{colour}" stroke-width="2"/>'
            f'<rect x="{x}" y="{y}" width="7" height="{_BOX[1]}" rx="3" fill="{colour}"/>'
            f'<text x="{x + 18}" y="{y + 26}" style="font-size:14px;font-weight:600;fill:#1b2330">{escape(name)}</text>'
            f'<text x="{x + 18}" y="{y + 47}" style="font-size:12.5px">{escape(part.figure[:26])}</text>'
        )
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="pipeline">{"".join(parts_of)}</svg>'


def _corner(place: tuple[int, int]) -> tuple[float, float]:
    return 10 + place[0] * _STEP[0], 10 + place[1] * _STEP[1]


def runs(config: Settings) -> list[list[str]]:
    """One row for each scheduled run."""
    states = read_states(config.home)
    now = datetime.now(UTC)
    rows = []
    for name, cron in CRON.items():
        state = states.get(name)
        when = " ".join(f"{key.replace('_', ' ')} {value}" for key, value in cron.items())
        if state is None:
            rows.append([name, when, "never", "–", page.tag("quiet", "not yet")])
            continue
        last = (
            f"{datetime.fromtimestamp(state.last_success, UTC):%Y-%m-%d %H:%M} UTC"
            if state.last_success
            else "never"
        )
        late = overdue(cron, state, now)
        tag = (
            page.tag("bad", f"code {state.last_code}")
            if state.last_code
            else page.tag("watch", "overdue")
            if late
            else page.tag("good", "done")
        )
        rows.append([name, escape(when), last, f"{state.last_seconds:.0f} s", tag])
    return rows


def links(results: Path) -> list[list[str]]:
    """Reports under `results`, the newest of each kind, as links relative to it."""
    kinds = [
        ("Drift report", "drift/*/drift.html"), ("Drift by week", "drift/trend.html"), ("Parity", "parity/parity.html"),
        ("Gates (Data Docs)", "gates/index.html"), ("Model card", "models/*/card.html"), ("Known-drift exam", "bench/drift.html"),
        ("Last demo", "summary.json"),
    ]  # fmt: skip
    rows = []
    for name, pattern in kinds:
        found = sorted(results.glob(pattern), key=lambda path: path.stat().st_mtime)
        if found:
            path = found[-1]
            changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            relative = path.relative_to(results).as_posix()
            rows.append(
                [
                    name,
                    f'<a href="{escape(relative)}">{escape(relative)}</a>',
                    f"{changed:%Y-%m-%d %H:%M} UTC",
                ]
            )
    return rows


def drift_words(results: Path) -> str:
    """What the newest drift report says, in a sentence, or nothing."""
    found = sorted(results.glob("drift/*/drift.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        return ""
    content = json.loads(found[-1].read_text())
    changed = content["verdict"]["changed"]
    return (
        f"<p>Drift, {escape(content['week'])}: <b>{escape(content['action'])}</b>. {escape(changed[0])}.</p>"
        if changed
        else ""
    )


def status_page(config: Settings) -> str:
    """The whole page."""
    found = parts(config)
    broken = [part for part in found if part.tone == "bad"]
    look = [part for part in found if part.tone == "watch"]
    if broken:
        head = page.verdict(
            "bad",
            f"{', '.join(part.name for part in broken)} {'needs' if len(broken) == 1 else 'need'} somebody",
            "; ".join(f"{p.name}: {p.todo}" for p in broken),
        )
    elif look:
        head = page.verdict(
            "watch",
            f"Running; look at {', '.join(part.name for part in look)}",
            "; ".join(f"{p.name}: {p.todo}" for p in look),
        )
    else:
        head = page.verdict(
            "good", "Everything that runs is well", "Parts that are idle have nothing to do yet."
        )
    cards = "".join(
        f'<div class="card {part.tone}"><b>{escape(part.name)} {page.tag(part.tone, _WORDS[part.tone])}</b>'
        f'<div class="figure">{escape(part.figure)}</div>'
        + "".join(f"<div><small>{escape(line)}</small></div>" for line in part.lines if line)
        + (f"<div>→ {page.prose(part.todo)}</div>" if part.todo else "")
        + "</div>"
        for part in found
    )
    reports = links(config.results)
    body = [
        "<h1>Tollgate</h1>",
        f'<p class="muted">State of the platform at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC</p>',
        head, drift_words(config.results), "<h2>Pipeline</h2>", drawing(found), "<h2>Parts</h2>", f'<div class="cards">{cards}</div>',
        "<h2>Runs</h2>", page.table(["Run", "When (UTC)", "Last success", "Took", ""], runs(config), numeric=(3,)),
        "<h2>Reports</h2>", page.table(["Report", "File", "Written"], reports) if reports else "<p class='muted'>None yet.</p>",
    ]  # fmt: skip
    return page.document("Tollgate status", "".join(body))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and print where it is."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.status", description="write the status page")
    parser.add_argument("--out", type=Path, help="the page (default: results/status.html)")
    chosen = parser.parse_args(arguments)
    out = chosen.out or settings().results / "status.html"
    page.write(out, status_page(settings()))
    print(out)
    return 0
