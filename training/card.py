"""A model's card as one HTML file: no scripts, no other files, fit to print."""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import Any

from training import card_plots

_CSS = """
:root { --ink:#1d2733; --quiet:#5d6875; --line:#dfe3e8; --accent:#b3261e; --paper:#fff; }
* { box-sizing:border-box }
body { margin:0; background:#f4f5f7; color:var(--ink);
  font:15px/1.5 "Inter","Helvetica Neue",Arial,sans-serif }
main { max-width:1120px; margin:28px auto; background:var(--paper); padding:44px 56px;
  border:1px solid var(--line) }
h1 { font-size:30px; line-height:1.15; margin:0 0 4px; letter-spacing:-.01em }
h2 { font-size:18px; margin:38px 0 10px; padding-top:14px; border-top:2px solid var(--ink) }
h3 { font-size:14px; margin:16px 0 4px; color:var(--quiet); font-weight:600 }
p { margin:6px 0; max-width:76ch } .quiet { color:var(--quiet) } code { font-size:13px }
.figures { display:grid; grid-template-columns:repeat(4,1fr); gap:1px; background:var(--line);
  border:1px solid var(--line); margin:22px 0 8px }
.figures div { background:var(--paper); padding:12px 14px }
.figures b { display:block; font-size:25px; line-height:1.2; font-weight:600;
  font-variant-numeric:tabular-nums }
.figures span { color:var(--quiet); font-size:12.5px; display:block }
.plots { display:grid; grid-template-columns:repeat(2,1fr); gap:6px 26px }
figure { margin:8px 0; break-inside:avoid }
figcaption { font-weight:600; font-size:14px; margin-bottom:2px }
svg { width:100%; height:auto } svg text { font-family:inherit }
table { border-collapse:collapse; width:100%; font-size:13.5px; font-variant-numeric:tabular-nums;
  break-inside:avoid }
th { text-align:right; font-weight:600; color:var(--quiet); border-bottom:1px solid var(--ink);
  padding:4px 8px }
td { text-align:right; padding:3px 8px; border-bottom:1px solid var(--line) }
th:first-child,td:first-child { text-align:left; padding-left:0 }
td { overflow-wrap:anywhere } td:first-child { overflow-wrap:normal; white-space:nowrap }
.two { display:grid; grid-template-columns:1fr 1fr; gap:0 36px; align-items:start }
.marked { border-left:4px solid var(--accent); padding:8px 14px; background:#fdf1f0 }
@media print {
  body { background:none; font-size:11px }
  main { border:0; margin:0; padding:0; max-width:none }
  h2 { break-after:avoid }
}
@media (max-width:820px) {
  main { padding:22px }
  .plots,.two { grid-template-columns:1fr }
  .figures { grid-template-columns:1fr 1fr }
}
"""


def card_html(card: dict[str, Any]) -> str:
    """The page for the content of card.json."""
    figures = card["metrics"]
    test = card["split"]["test"]
    parts = [
        f"<h1>Fraud model {escape(card['version'])}</h1>",
        f'<p class="quiet">Built from what was known at {_time(card["trained_at_cut"])}. Judged on '
        f"{_rows(figures)} from {_time(test['start'])} to {_time(test['end'])}, "
        f"{figures['frauds']:,.0f} of them fraud ({figures['base_rate']:.2%}), which it never saw and which "
        f"start {_gap(card):.1f} days after the last transaction it learned from"
        + (
            ".</p>"
            if card["final"] == "judged"
            else "; its trees were then grown again on every known row.</p>"
        ),
        _leak(card),
        _headline(card),
        _champion(card),
        "<h2>How well it ranks</h2>",
        _plots(
            ("Precision and recall", card_plots.precision_recall(card)),
            ("ROC", card_plots.roc(card)),
            ("Gain: frauds found by looking at the riskiest", card_plots.gain(card)),
            ("Stability by week", card_plots.weeks(card)),
        ),
        "<h2>What its probabilities are worth</h2>",
        _plots(
            ("Reliability (dotted: perfect)", card_plots.reliability(card)),
            ("Cost of thresholds (dotted: approve everything)", card_plots.cost(card)),
        ),
        _decisions(card),
        "<h2>What an outage does to it</h2>",
        _patterns(card),
        "<h2>Where it is weaker</h2>",
        '<p class="quiet">At the REVIEW threshold. AUC and average precision need at least five frauds.</p>',
        _slices(card),
        "<h2>What it looks at</h2>",
        f"<figure><figcaption>SHAP values of {card['shap']['rows']:,} transactions, half of them frauds"
        f"</figcaption>{card_plots.shap_points(card)}</figure>",
        _importance(card),
        "<h2>What it is made of</h2>",
        _making(card),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Fraud model {escape(card['version'])}</title><style>{_CSS}</style></head>"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """An HTML table of already formatted cells; the cells are escaped."""
    lines = ["<table><tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join(lines) + "</table>"


def _leak(card: dict[str, Any]) -> str:
    """What a marked model was suspected for, and which features somebody left out."""
    leak, parts = card.get("leak"), []
    if leak:
        alone = ", ".join(f"{escape(name)} ({value:.4f})" for name, value in leak["strongest"].items())
        parts.append(
            f'<p class="marked"><b>Marked as leaking.</b> AUC {leak["auc"]:.4f} is above '
            f"{leak['ceiling']:g}: more than the label delay allows. Strongest alone: {alone}. Somebody "
            "chose to go on; its figures are of data that give fraud away, and say little of others.</p>"
        )
    if card.get("dropped"):
        parts.append(f'<p class="quiet">Left out by hand: {escape(", ".join(card["dropped"]))}.</p>')
    return "".join(parts)


def _patterns(card: dict[str, Any]) -> str:
    """Figures without the views of each pattern, and how calibration was chosen."""
    made = card.get("missing") or {}
    rows = [
        [
            each["name"], f"{each['ap']:.3f}", f"{each['brier']:.5f}", f"{each['mean_score']:.3%}",
            f"{each['review_rate']:.2%}", f"{each['block_rate']:.2%}",
            "-" if each["recall"] is None else f"{each['recall']:.1%}", f"{each['cost_per_day'] / 100:,.0f}",
        ]
        for each in card["patterns"]
    ]  # fmt: skip
    told = (
        f"Calibration: {escape(made['calibration'])} (log loss {made['log_loss_each']:.5f} each its own, "
        f"{made['log_loss_shared']:.5f} one for all). "
        if made
        else "It was never trained without views. "
    )
    brier = card["patterns"][0]["base_brier"]
    return (
        '<p class="quiet">The test period again, as if these views had not arrived: a view, an entity, an '
        f"engine (profiles: batch; states: stream), everything. {told}Always answering the base rate has "
        f"Brier {brier:.5f}.</p>"
        + table(["without", "AP", "Brier", "mean score", "review", "block", "recall", "cost a day"], rows)
    )


def _headline(card: dict[str, Any]) -> str:
    figures, spans = card["metrics"], card["intervals"]
    alerts = card["alerts_per_day"]
    at_70 = "precision_at_recall_70"

    def span(name: str) -> str:
        return f"95%: {spans[name][0]:.3f} to {spans[name][1]:.3f}" if name in spans else ""

    cells = [
        ("average precision", f"{figures['average_precision']:.3f}", span("average_precision")),
        ("AUC", f"{figures['auc']:.3f}", span("auc")),
        ("precision at recall .70", f"{figures[at_70]:.3f}", span(at_70)),
        ("recall at 2% false positives", f"{figures['recall_at_fpr_2']:.3f}", span("recall_at_fpr_2")),
        (f"CP@{alerts}", f"{figures[f'cp_{alerts}']:.3f}", f"{alerts} customers a day, found ones leave"),
        ("Brier", f"{figures['brier']:.5f}", f"base rate alone: {figures['brier_base_rate']:.5f}"),
        ("value-weighted recall", _share(figures["value_recall_at_review"]), "of defrauded money, at REVIEW"),
        (
            "loss prevented", f"{figures['prevented_loss_at_review'] / 100:,.0f}",
            "reference units, at REVIEW, in the test period",
        ),
    ]  # fmt: skip
    inner = "".join(
        f"<div><span>{escape(name)}</span><b>{escape(value)}</b><span>{escape(note)}</span></div>"
        for name, value, note in cells
    )
    return (
        f'<div class="figures">{inner}</div><p class="quiet">Intervals: bootstrap over whole customers.</p>'
    )


def _champion(card: dict[str, Any]) -> str:
    other = card["champion"]
    if not other:
        return '<p class="quiet">There is no other champion to compare with.</p>'
    low, high = other["interval"]
    names = ("average_precision", "auc", "precision_at_recall_70", "recall_at_fpr_2", "brier")
    rows = [
        [name.replace("_", " "), f"{card['metrics'][name]:.4f}", f"{other['metrics'][name]:.4f}",
         f"{card['metrics'][name] - other['metrics'][name]:+.4f}"]
        for name in names
    ]  # fmt: skip
    return (
        "<h2>Against the champion, on the same rows</h2>"
        + table(["", "this model", other["version"], "difference"], rows)
        + f"<p>Difference of average precision {other['average_precision_difference']:+.4f} "
        f"(95%: {low:+.4f} to {high:+.4f}).</p>"
    )


def _plots(*plots: tuple[str, str]) -> str:
    figures = "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in plots
    )
    return f'<div class="plots">{figures}</div>'


def _decisions(card: dict[str, Any]) -> str:
    limits, cost, model = card["thresholds"], card["cost"], card["cost_model"]
    rows = [
        [name, f"{entry['rows']:,}", f"{entry['frauds']:,}", _share(entry["frauds"] / max(entry["rows"], 1))]
        for name, entry in card["confusion"].items()
    ]
    return (
        f"<p>REVIEW from {limits['review']:.4f}, BLOCK from {limits['block']:.4f}: costs "
        f"{cost['at_thresholds_per_day'] / 100:,.0f} reference units a day in the test period, where "
        f"approving everything costs {cost['approve_all_per_day'] / 100:,.0f}. Cost model: a fraud loses "
        f"{model['fraud_loss']:.0%} of its amount, a review costs {model['review_cost'] / 100:g} and "
        f"stops {model['review_catch']:.0%} of the frauds it sees, a genuine decline costs "
        f"{model['insult_fixed'] / 100:g} and {model['insult_share']:.0%} of the amount, at most "
        f"{model['alerts_per_day']:g} reviews a day.</p>"
        + table(["decision", "transactions", "frauds", "share of fraud"], rows)
    )


def _slices(card: dict[str, Any]) -> str:
    blocks = []
    for name, entries in card["slices"].items():
        rows = [
            [entry["value"], f"{entry['rows']:,}", f"{entry['frauds']:,}", _share(entry["recall"]),
             _share(entry["flagged"]), _number(entry["auc"]), _number(entry["average_precision"])]
            for entry in entries
        ]  # fmt: skip
        head = [name.replace("_", " "), "rows", "frauds", "recall", "flagged", "AUC", "AP"]
        blocks.append(f"<div><h3>by {escape(name.replace('_', ' '))}</h3>{table(head, rows)}</div>")
    return f'<div class="two">{"".join(blocks)}</div>' if blocks else "<p>The rows allow no slices.</p>"


def _importance(card: dict[str, Any]) -> str:
    top = card["importance"][:24]
    half = (len(top) + 1) // 2
    tables = [
        table(
            ["feature", "gain", "splits"],
            [[e["feature"], f"{e['gain']:.1%}", str(e["splits"])] for e in part],
        )
        for part in (top[:half], top[half:])
        if part
    ]
    return (
        f"<h3>Share of split gain; {len(card['importance'])} features are used at all</h3>"
        f'<div class="two">{"".join(tables)}</div>'
    )


def _making(card: dict[str, Any]) -> str:
    speed, code = card["cost_of_scoring"], card["code"]
    rows = [
        ["trees", f"{card['trees']}"],
        ["size as text", f"{speed['bytes'] / 1e6:.2f} MB"],
        [
            "one row, one thread (p50, p99)",
            f"{speed['one_row_p50_us']:.0f} µs, {speed['one_row_p99_us']:.0f} µs",
        ],
        ["a row in a batch", f"{speed['batched_us_a_row']:.1f} µs"],
        ["code", str(code["commit"])],
        ["packages", ", ".join(f"{name} {number}" for name, number in code["packages"].items())],
    ]
    rows += [
        [f"split: {name}", f"{_time(span['start'])} to {_time(span['end'])}"]
        for name, span in card["split"].items()
    ]
    plain = {name: value for name, value in card["data"].items() if isinstance(value, (str, int, float))}
    facts = [[name.replace("_", " "), str(value)] for name, value in plain.items()]
    chosen = [
        [name, f"{value:.4g}" if isinstance(value, float) else str(value)]
        for name, value in card["settings"].items()
    ]
    return (
        f'<div class="two"><div><h3>Model and code</h3>{table(["", ""], rows)}'
        f"<h3>Data</h3>{table(['', ''], facts)}</div>"
        f"<div><h3>Settings of the trees</h3>{table(['', ''], chosen)}</div></div>"
    )


def _rows(figures: dict[str, float]) -> str:
    rows, transactions = figures["rows"], figures["transactions"]
    if transactions < rows * 1.001:
        return f"{rows:,.0f} transactions"
    return f"{rows:,.0f} transactions (thinned, standing for {transactions:,.0f})"


def _gap(card: dict[str, Any]) -> float:
    moments = (card["split"]["test"]["start"], card["split"]["validation"]["end"])
    later, earlier = (datetime.fromisoformat(moment) for moment in moments)
    return (later - earlier).total_seconds() / 86_400


def _time(text: str) -> str:
    return escape(text[:16].replace("T", " "))


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
