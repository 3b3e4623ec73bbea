"""Small values that become Grafana's dashboard JSON (schema version 39, Grafana 10 and later)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

#: The data source is a variable of each dashboard, so the files fit any Grafana.
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
Kind = Literal["timeseries", "stat", "heatmap", "bargauge"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: a title, queries by legend, a unit, and what to read from it.

    `width` is in Grafana's columns, of which a row has 24. `limits` colour a value from amber
    and from red on.
    """

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    kind: Kind = "timeseries"
    about: str = ""
    width: int = 8
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard: rows of panels, from top to bottom."""

    uid: str
    title: str
    about: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    tags: tuple[str, ...] = field(default=("tollgate",))

    @property
    def queries(self) -> list[str]:
        """Every query of the dashboard."""
        return [query for _, panels in self.rows for panel in panels for query in panel.queries.values()]


def _panel(panel: Panel, number: int, x: int, y: int, height: int) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limits is not None:
        amber, red = panel.limits
        steps += [{"color": "orange", "value": amber}, {"color": "red", "value": red}]
    targets = [
        {
            "datasource": SOURCE, "expr": query, "legendFormat": legend, "refId": chr(65 + place),
            "format": "heatmap" if panel.kind == "heatmap" else "time_series",
        }
        for place, (legend, query) in enumerate(panel.queries.items())
    ]  # fmt: skip
    options: dict[str, Any] = {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi"},
    }
    if panel.kind in ("stat", "bargauge"):
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}
    if panel.kind == "heatmap":
        options = {"calculate": False, "yAxis": {"unit": panel.unit}, "color": {"scheme": "Blues"}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": height},
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": options,
        "targets": targets,
    }


def to_dict(board: Board) -> dict[str, Any]:
    """The dashboard as Grafana's API takes it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in board.rows:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
                "panels": [],
            }
        )
        y += 1
        x, height = 0, 4 if all(panel.kind == "stat" for panel in row) else 8
        for panel in row:
            if x + panel.width > 24:
                x, y = 0, y + height
            panels.append(_panel(panel, len(panels) + 1, x, y, height))
            x += panel.width
        y += height
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.about,
        "tags": list(board.tags),
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "source",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                    "hide": 0,
                }
            ]
        },
        "links": [{"title": "Tollgate", "type": "dashboards", "tags": ["tollgate"], "asDropdown": True}],
        "panels": panels,
    }


def to_json(board: Board) -> str:
    """The dashboard's file."""
    return json.dumps(to_dict(board), indent=1, sort_keys=True) + "\n"
