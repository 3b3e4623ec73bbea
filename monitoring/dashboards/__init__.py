"""Grafana dashboards as code: `python -m monitoring.dashboards` writes the JSON files beside it."""
