"""Writes `docs/settings.md` from the settings object: `python -m embedded.document_settings`."""

from __future__ import annotations

from pathlib import Path

from pydantic_core import PydanticUndefined

from stores.settings import REPOSITORY, documented

HEADER = """# Settings

Every difference between environments is one of these variables, read once and validated at start; an
unusable one, or one of `TOLLGATE_` that is not in these tables, stops the program with its name and what it
should be. This page is written by `python -m embedded.document_settings` from `stores/settings.py`.
"""


def _default(value: object) -> str:
    if value is None or value is PydanticUndefined:
        return "none"
    return f"`{value.relative_to(REPOSITORY) if isinstance(value, Path) else value}`"


def settings_table() -> str:
    """The document's text: a table for each room that has settings."""
    text = HEADER
    for heading, variables in documented():
        text += f"\n## {heading}\n\n| variable | default | meaning |\n| --- | --- | --- |\n"
        for variable, field in variables:
            text += f"| `{variable}` | {_default(field.default)} | {field.description} |\n"
    return text


def main() -> None:
    (REPOSITORY / "docs" / "settings.md").write_text(settings_table())


if __name__ == "__main__":
    main()
