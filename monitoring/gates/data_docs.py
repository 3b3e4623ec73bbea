"""Great Expectations' context, validation and Data Docs, kept offline.

With a docs folder the context is a file context beneath it, so that every run stays in the Data
Docs. What GX stores holds counts only: no value of a row. Its pages ask for styles, scripts and a
logo from the network; `publish` replaces all of that by a style of our own.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any, Final

from monitoring import page

_PROJECT: Final = "gx"
_SITE: Final = Path("uncommitted/data_docs/local_site")
_NO_VALUES: Final = {"result_format": "SUMMARY", "partial_unexpected_count": 0}
_REMOTE: Final = re.compile(
    r"<script[^>]*src=[\"']https?:[^>]*>\s*</script>|<link[^>]*href=[\"']https?:[^>]*/?>|<img[^>]*src=[\"']https?:[^>]*>",
    re.IGNORECASE,
)
_BACKGROUND: Final = re.compile(r"background[^;{}]*url\([\"']?https?:[^;{}]*;?", re.IGNORECASE)
_NEWSLETTER: Final = re.compile(
    r"<a[^>]*href=[\"']https?://(?:www\.)?greatexpectations\.io[^>]*>.*?</a>", re.DOTALL
)
STYLE: Final = """<style>
body{font:15px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif;color:#1b2330;margin:0 auto;max-width:1180px;padding:20px 28px}
a{color:#2457d6}h1,h2,h3,h4,h5{line-height:1.3;margin:.9em 0 .4em}
table{border-collapse:collapse;width:100%;font-size:14px;margin:8px 0}
th,td{border-bottom:1px solid #dde2ea;padding:6px 9px;text-align:left;vertical-align:top;overflow-wrap:anywhere}
.alert{border-left:5px solid #5d6878;background:#f5f7fa;padding:10px 14px;margin:10px 0}
.badge{border-radius:9px;padding:1px 8px;background:#e9edf3;font-size:12px}
.fas.fa-check-circle,.text-success{color:#1d7a52}.fas.fa-times,.text-danger{color:#b42a22}
.fas.fa-check-circle::before{content:"✔"}.fas.fa-times::before{content:"✘"}.fas.fa-exclamation-triangle::before{content:"!"}
.navbar,.breadcrumb,.nav,.list-group{list-style:none;padding:0;margin:0 0 8px}.breadcrumb li,.nav li{display:inline;margin-right:12px}
.modal,.footer,body>footer,.dropdown-menu,#ge-cta-footer,.ge-walkthrough,.cta,[class*=walkthrough]{display:none!important}
.collapse,.tab-pane{display:block!important;opacity:1!important}
</style>"""


def context(gx: Any, docs: Path | None) -> Any:
    """A context: in memory, or on disk under `docs`."""
    if docs is None:
        made = gx.get_context(mode="ephemeral")
    else:
        docs.mkdir(parents=True, exist_ok=True)
        made = gx.get_context(mode="file", project_root_dir=str(docs / ".store"))
    made.variables.progress_bars = {"globally": False}
    return made


def definition(gx: Any, made: Any, name: str, kind: str, expectations: Any) -> Any:
    """A validation definition over a dataframe that is handed in at run time."""
    sources = made.data_sources
    source = sources.add_or_update_spark(name) if kind == "spark" else sources.add_or_update_pandas(name)
    batch = source.add_dataframe_asset(name="batch").add_batch_definition_whole_dataframe("whole")
    suite = made.suites.add_or_update(expectations)
    return made.validation_definitions.add_or_update(
        gx.ValidationDefinition(name=name, data=batch, suite=suite)
    )


def validate(gx: Any, made: Any, chosen: Any, data: Any, docs: Path | None) -> Any:
    """Run one definition; with `docs` its result is kept for the Data Docs."""
    parameters = {"dataframe": data}
    if docs is None:
        return chosen.run(batch_parameters=parameters, result_format=_NO_VALUES)
    checkpoint = made.checkpoints.add_or_update(
        gx.Checkpoint(name=chosen.name, validation_definitions=[chosen], result_format=_NO_VALUES)
    )
    outcome = checkpoint.run(batch_parameters=parameters)
    return next(iter(outcome.run_results.values()))


def publish(made: Any, docs: Path) -> Path:
    """Build the Data Docs into `docs`, free of anything remote; return their index."""
    made.build_data_docs()
    site = docs / ".store" / _PROJECT / _SITE
    for file in site.rglob("*.html"):
        if file.name != "index.html":
            page.write(docs / file.relative_to(site), offline(file.read_text(encoding="utf-8")))
    return page.write(docs / "index.html", _index(docs))


def _index(docs: Path) -> str:
    """The list of runs. GX's own list is drawn by scripts from the network, so it would be empty here."""
    rows = []
    for file in sorted(
        (docs / "validations").rglob("*.html"), key=lambda path: path.parent.name, reverse=True
    ):
        suite, moment = file.relative_to(docs / "validations").parts[0], file.parent.name
        failed = (
            "Failed" in file.read_text(encoding="utf-8").partition("Statistics")[0].partition("Status")[2]
        )
        link = f'<a href="{escape(file.relative_to(docs).as_posix())}">{escape(suite)}</a>'
        when = f"{moment[:4]}-{moment[4:6]}-{moment[6:8]} {moment[9:11]}:{moment[11:13]}:{moment[13:15]} UTC"
        rows.append([link, when, page.tag("bad", "failed") if failed else page.tag("good", "passed")])
    suites = sorted((docs / "expectations").glob("*.html"))
    listed = ", ".join(
        f'<a href="expectations/{escape(path.name)}">{escape(path.stem)}</a>' for path in suites
    )
    body = (
        "<h1>Gates</h1><p class='muted'>Every run of a gate as Great Expectations' Data Docs, the newest first. "
        "Rows are checks of single rows, facts are checks of a batch as a whole.</p>"
        + page.table(["Run", "When", "Result"], rows)
        + f"<h2>Suites</h2><p>{listed}</p>"
    )
    return page.document("Gates", body)


def offline(html: str) -> str:
    """A Data Docs page without anything fetched from the network."""
    html = _NEWSLETTER.sub("", _BACKGROUND.sub("", _REMOTE.sub("", html)))
    return html.replace("</head>", STYLE + "</head>", 1)
