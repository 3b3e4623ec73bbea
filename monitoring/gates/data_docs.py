"""Great Expectations' context, validation and Data Docs, kept offline.

With a docs folder the context is a file context beneath it, so that every run stays in the Data
Docs. What GX stores holds counts only: no value of a row. Its pages ask for styles, scripts and a
logo from the network; `publish` replaces all of that by a style of our own.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, Final

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
.modal,.footer,.dropdown-menu,#ge-cta-footer,.ge-walkthrough,.cta,[class*=walkthrough]{display:none!important}
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
    for page in site.rglob("*.html"):
        target = docs / page.relative_to(site)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(offline(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name in ("static",):
        if (site / name).exists():
            shutil.copytree(site / name, docs / name, dirs_exist_ok=True)
    return docs / "index.html"


def offline(page: str) -> str:
    """A Data Docs page without anything fetched from the network."""
    page = _BACKGROUND.sub("", _REMOTE.sub("", page))
    page = _NEWSLETTER.sub("", page)
    return page.replace("</head>", STYLE + "</head>", 1)
