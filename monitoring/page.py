"""Self-contained pages: one style, a skeleton, tables and small charts drawn as SVG.

No script, no font and no picture is fetched. Every rule is scoped to ``.tollgate``, so a page can
stand inside another document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from stores.files import write_whole

Floats = np.ndarray[Any, np.dtype[np.float64]]
Tone = Literal["good", "watch", "bad", "quiet"]

STYLE: Final = """
.tollgate{--ink:#1b2330;--muted:#5d6878;--line:#dde2ea;--paper:#fff;--good:#1d7a52;--watch:#a86508;
--bad:#b42a22;--quiet:#5d6878;--now:#2457d6;--then:#a9b2c0;font:15px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"DejaVu Sans",sans-serif;color:var(--ink);background:var(--paper);max-width:1120px;
margin:0 auto;padding:28px 32px 40px;box-sizing:border-box}
.tollgate *{box-sizing:border-box}
.tollgate h1{font-size:25px;line-height:1.25;margin:0 0 4px;letter-spacing:-.01em}
.tollgate h2{font-size:17px;margin:30px 0 8px;padding-top:14px;border-top:1px solid var(--line)}
.tollgate p{margin:6px 0}.tollgate .muted{color:var(--muted)}.tollgate small{color:var(--muted);font-size:13px}
.tollgate .verdict{border-left:6px solid var(--tone);background:color-mix(in srgb,var(--tone) 7%,white);
padding:14px 18px;margin:16px 0 20px;border-radius:0 6px 6px 0}
.tollgate .verdict b{font-size:19px;color:var(--tone)}
.tollgate .good{--tone:var(--good)}.tollgate .watch{--tone:var(--watch)}
.tollgate .bad{--tone:var(--bad)}.tollgate .quiet{--tone:var(--quiet)}
.tollgate .tag{display:inline-block;border:1px solid var(--tone);color:var(--tone);border-radius:10px;
font-size:12px;line-height:18px;padding:0 8px;white-space:nowrap}
.tollgate dl{display:grid;grid-template-columns:150px 1fr;gap:6px 18px;margin:12px 0}
.tollgate dt{color:var(--muted)}.tollgate dd{margin:0}
.tollgate ul{margin:4px 0;padding-left:20px}
.tollgate table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
.tollgate th{text-align:left;font-weight:600;color:var(--muted);border-bottom:1px solid var(--ink);
padding:5px 8px;vertical-align:bottom}
.tollgate td{border-bottom:1px solid var(--line);padding:5px 8px;vertical-align:middle;overflow-wrap:anywhere}
.tollgate td.n,.tollgate th.n{text-align:right;white-space:nowrap;overflow-wrap:normal}
.tollgate .wide{overflow-x:auto}
.tollgate .cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(230px,1fr));gap:14px;margin:12px 0}
.tollgate .card{border:1px solid var(--line);border-top:4px solid var(--tone,var(--line));border-radius:6px;padding:12px 14px}
.tollgate .card b{display:block;font-size:15px}.tollgate .card .figure{font-size:22px;font-weight:600}
.tollgate svg{display:block;max-width:100%}.tollgate svg text{font:11px system-ui,"DejaVu Sans",sans-serif;fill:#5d6878}
.tollgate .charts{display:grid;grid-template-columns:1fr 1fr;gap:24px}
.tollgate figure{margin:0}.tollgate figcaption{font-size:13px;color:var(--muted);margin-bottom:4px}
.tollgate a{color:var(--now)}
.tollgate code{font:13px ui-monospace,"DejaVu Sans Mono",monospace;background:#f1f3f7;padding:1px 5px;border-radius:4px}
@media (max-width:760px){.tollgate .charts,.tollgate dl{grid-template-columns:1fr}}
@media print{.tollgate{max-width:none;padding:0}.tollgate h2{break-after:avoid}.tollgate figure,.tollgate .card{break-inside:avoid}}
"""
NOW: Final = "#2457d6"
THEN: Final = "#a9b2c0"
BAD: Final = "#b42a22"


def document(title: str, body: str, *, lang: str = "en") -> str:
    """A whole page."""
    return (
        f'<!doctype html>\n<html lang="{lang}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>body{{margin:0}}{STYLE}</style></head>\n"
        f'<body><main class="tollgate">{body}</main></body></html>\n'
    )


def write(path: Path, content: str) -> Path:
    """Write a page so that it appears whole or not at all."""
    write_whole(path, content)
    return path


def prose(text: str) -> str:
    """Text as HTML; what stands between backticks is code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text))


def verdict(tone: Tone, headline: str, text: str) -> str:
    return f'<div class="verdict {tone}"><b>{escape(headline)}</b><p>{prose(text)}</p></div>'


def tag(tone: Tone, text: str) -> str:
    return f'<span class="tag {tone}">{escape(text)}</span>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Iterable[int] = ()) -> str:
    """A table of cells that are HTML already; columns in `numeric` are set to the right."""
    right = set(numeric)
    style = [' class="n"' if place in right else "" for place in range(len(header))]
    head = "".join(f"<th{s}>{escape(text)}</th>" for s, text in zip(style, header, strict=True))
    lines = ["".join(f"<td{s}>{cell}</td>" for s, cell in zip(style, row, strict=True)) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of terms with values that are HTML already."""
    return "<dl>" + "".join(f"<dt>{escape(term)}</dt><dd>{value}</dd>" for term, value in pairs) + "</dl>"


def figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def number(value: float | None, digits: int = 3) -> str:
    """A figure for people: significant digits, thousands apart, a dash for none."""
    if value is None or not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}%"


def histogram(
    reference: Sequence[float], current: Sequence[float], labels: tuple[str, str], *, width: int = 500, height: int = 170,
    logarithmic: bool = False,
) -> str:  # fmt: skip
    """Two share-per-bin outlines over one axis; `labels` name its ends. Equal numbers of bins."""
    r, c = _shares(reference), _shares(current)
    if logarithmic:
        r, c = np.log10(1 + 1e4 * r), np.log10(1 + 1e4 * c)
    top = max(float(r.max(initial=0)), float(c.max(initial=0)), 1e-12)
    left, base, step = 6, height - 20, (width - 12) / len(r)

    def outline(shares: Floats) -> str:
        points = [f"M{left},{base}"]
        for place, share in enumerate(shares):
            y = base - (base - 8) * float(share) / top
            points.append(f"L{left + place * step:.1f},{y:.1f}L{left + (place + 1) * step:.1f},{y:.1f}")
        return "".join(points) + f"L{left + len(shares) * step:.1f},{base}Z"

    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img">'
        f'<path d="{outline(r)}" fill="{THEN}" fill-opacity=".55"/>'
        f'<path d="{outline(c)}" fill="{NOW}" fill-opacity=".12" stroke="{NOW}" stroke-width="1.6"/>'
        f'<line x1="{left}" y1="{base}" x2="{width - 6}" y2="{base}" stroke="#8791a1"/>'
        f'<text x="{left}" y="{height - 5}">{escape(labels[0])}</text>'
        f'<text x="{width - 6}" y="{height - 5}" text-anchor="end">{escape(labels[1])}</text></svg>'
    )


def _shares(counts: Sequence[float]) -> Floats:
    values = np.asarray(counts, dtype=np.float64)
    total = values.sum()
    return values / total if total else values


def pairs_of_bars(rows: Sequence[tuple[str, float, float]], *, width: int = 500) -> str:
    """Shares then (grey) and now (blue), one named row each."""
    top = max((max(then, now) for _, then, now in rows), default=1.0) or 1.0
    line, label, room = 34, 90, width - 90 - 115
    parts = []
    for place, (name, then, now) in enumerate(rows):
        y = place * line
        parts.append(
            f'<text x="{label - 8}" y="{y + 20}" text-anchor="end">{escape(name[:18])}</text>'
            f'<rect x="{label}" y="{y + 5}" width="{max(room * then / top, 1):.1f}" height="10" fill="{THEN}"/>'
            f'<rect x="{label}" y="{y + 17}" width="{max(room * now / top, 1):.1f}" height="10" fill="{NOW}"/>'
            f'<text x="{label + room * max(then, now) / top + 6:.1f}" y="{y + 20}">{percent(then)} → {percent(now)}</text>'
        )
    return (
        f'<svg viewBox="0 0 {width} {line * len(rows) + 4}" width="{width}" role="img">{"".join(parts)}</svg>'
    )


def days_against_limit(values: Sequence[float], limit: float, *, width: int = 130, height: int = 30) -> str:
    """One small bar a day; those at or over the limit are red, the limit is a line."""
    top = max([*values, limit * 1.2])
    step = width / max(len(values), 1)
    bars = "".join(
        f'<rect x="{place * step + 1:.1f}" y="{height - height * value / top:.1f}" width="{max(step - 2, 1):.1f}" '
        f'height="{height * value / top:.1f}" fill="{BAD if value >= limit else THEN}"/>'
        for place, value in enumerate(values)
    )
    y = height - height * limit / top
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{bars}'
        f'<line x1="0" y1="{y:.1f}" x2="{width}" y2="{y:.1f}" stroke="#1b2330" stroke-dasharray="3 2"/></svg>'
    )


def line_chart(
    names: Sequence[str], series: Sequence[tuple[str, Sequence[float | None], str]], *, limit: float | None = None,
    width: int = 520, height: int = 190,
) -> str:  # fmt: skip
    """Lines over named points; a None leaves a gap."""
    values = [value for _, line, _ in series for value in line if value is not None]
    if limit is not None:
        values.append(limit)
    top = max(values, default=1.0) * 1.1 or 1.0
    left, base, right = 44, height - 36, width - 10
    step = (right - left) / max(len(names) - 1, 1)

    def y(value: float) -> float:
        return base - (base - 10) * value / top

    parts = [f'<line x1="{left}" y1="{base}" x2="{right}" y2="{base}" stroke="#8791a1"/>']
    for share in (0.0, 0.5, 1.0):
        tick = top / 1.1 * share
        parts.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{number(tick, 2)}</text>')
    if limit is not None:
        parts.append(
            f'<line x1="{left}" x2="{right}" y1="{y(limit):.1f}" y2="{y(limit):.1f}" stroke="{BAD}" stroke-dasharray="4 3"/>'
        )
    for place, (label, line, colour) in enumerate(series):
        path, pen = "", "M"
        for spot, value in enumerate(line):
            if value is None:
                pen = "M"
                continue
            path += f"{pen}{left + spot * step:.1f},{y(value):.1f}"
            pen = "L"
            parts.append(
                f'<circle cx="{left + spot * step:.1f}" cy="{y(value):.1f}" r="2.5" fill="{colour}"/>'
            )
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        parts.append(
            f'<text x="{left + 4 + 150 * place}" y="{height - 4}" style="fill:{colour}">{escape(label)}</text>'
        )
    every = max(len(names) // 8, 1)
    parts += [
        f'<text x="{left + spot * step:.1f}" y="{base + 15}" text-anchor="middle">{escape(name)}</text>'
        for spot, name in enumerate(names)
        if spot % every == 0
    ]
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img">{"".join(parts)}</svg>'
