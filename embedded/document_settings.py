"""Writes `docs/settings.md` from the settings object: `python -m embedded.document_settings`."""

from __future__ import annotations

from pathlib import Path

from pydantic_core import PydanticUndefined

from stores.settings import REPOSITORY, Settings

HEADER = """# Settings

Every difference between environments is one of these variables, read once and validated at start; an
unusable one stops the program with its name and what it should be. This table is written by
`python -m embedded.document_settings` from `stores/settings.py`.

| variable | default | meaning |
| --- | --- | --- |
"""


def settings_table() -> str:
    """The document's text."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None or field.default is PydanticUndefined else str(field.default)
        if isinstance(field.default, Path):
            default = str(field.default.relative_to(REPOSITORY))
        rows.append(
            f"| `TOLLGATE_{name.upper()}` | {f'`{default}`' if default else 'none'} | {field.description} |"
        )
    return HEADER + "\n".join(rows) + "\n"


def main() -> None:
    (REPOSITORY / "docs" / "settings.md").write_text(settings_table())


if __name__ == "__main__":
    main()
