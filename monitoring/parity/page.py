"""The parity report as a page."""

from __future__ import annotations

from html import escape

from monitoring import page
from monitoring.parity.comparison import MEANING, ParityReport

MOST_FEATURES = 60


def page_of(report: ParityReport) -> str:
    """One self-contained page: the verdict, the causes, the features and a few values."""
    unexplained = report.causes.get("unexplained", 0)
    if not report.mismatched_rows and not report.unmatched:
        tone, headline = "good", "Serving and training see the same"
        text = f"All {report.rows:,} served vectors equal the point-in-time rebuild in all {report.features} features."
    elif unexplained or report.unmatched:
        tone, headline = "bad", "Serving and training differ without a known cause"
        text = f"{unexplained:,} rows are unexplained and {report.unmatched:,} are unknown to the rebuild. Do not train until they are understood."
    else:
        tone, headline = "watch", "Serving and training differ, for known causes"
        text = f"{report.mismatched_rows:,} of {report.rows:,} rows ({page.percent(report.mismatched_share, 3)}) differ; every one has a named cause."
    values = report.values_exact + report.values_noise + report.values_different
    parts = [
        "<h1>Parity of serving and training</h1>",
        '<p class="muted">The vector that each decision used, against what a point-in-time join rebuilds for it.</p>',
        page.verdict(tone, headline, text),  # type: ignore[arg-type]
        page.definitions(
            [
                ("Values compared", f"{values:,} ({report.rows:,} rows × {report.features} features)"),
                ("Exact", f"{report.values_exact:,}"),
                ("Within float noise", f"{report.values_noise:,} <small>(1e-9 relative)</small>"),
                ("Different", f"{report.values_different:,}"),
                ("Largest difference", page.number(report.max_abs_diff)),
                ("Worst feature", escape(report.worst_feature or "–")),
            ]
        ),
    ]
    if report.causes:
        rows = [[escape(name), f"{count:,}", escape(MEANING[name])] for name, count in report.causes.items()]
        parts += ["<h2>Causes</h2>", page.table(["Cause", "Rows", "Meaning"], rows, numeric=(1,))]
    touched = sorted(
        (f for f in report.by_feature if f.different + f.noise), key=lambda f: (-f.different, -f.noise)
    )
    if touched:
        rows = [
            [
                escape(f.feature),
                f"{f.exact:,}",
                f"{f.noise:,}",
                f"{f.different:,}",
                page.number(f.max_abs_diff),
            ]
            for f in touched[:MOST_FEATURES]
        ]
        parts += [
            "<h2>Features that are not exact everywhere</h2>",
            page.table(
                ["Feature", "Exact", "Noise", "Different", "Largest difference"], rows, numeric=(1, 2, 3, 4)
            ),
        ]
    if report.examples:
        rows = [
            [str(e["row"]), escape(str(e["feature"])), escape(str(e["served"])), escape(str(e["rebuilt"])),
             str(e["different_features"]), escape(str(e["cause"]))]
            for e in report.examples
        ]  # fmt: skip
        head = ["Row", "First feature", "Served", "Rebuilt", "Features that differ", "Cause"]
        parts += ["<h2>Some of them</h2>", page.table(head, rows, numeric=(0, 2, 3, 4))]
    return page.document("Parity of serving and training", "".join(parts))
