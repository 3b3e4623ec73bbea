"""What the documents say is what the code does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.document_settings import settings_table
from stores.settings import REPOSITORY, SettingsError, load_settings
from tollgate.document import api_page, commands_page


def test_the_settings_document_is_the_one_that_the_command_writes() -> None:
    assert (REPOSITORY / "docs" / "settings.md").read_text() == settings_table()


def test_the_reference_pages_are_those_that_the_command_writes() -> None:
    assert (REPOSITORY / "docs" / "commands.md").read_text() == commands_page()
    assert (REPOSITORY / "docs" / "api.md").read_text() == api_page()


def test_an_unusable_setting_is_named_with_what_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_SERVE_PORT", "seventy")
    monkeypatch.setenv("TOLLGATE_REDIS_URL", "http://somewhere")
    with pytest.raises(SettingsError, match=r"TOLLGATE_SERVE_PORT.*port the service listens on") as error:
        load_settings()
    assert "TOLLGATE_REDIS_URL" in str(error.value)


def test_bare_make_prints_every_command_of_the_makefile() -> None:
    printed = subprocess.run(["make"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert len(commands) > 20
    for command in commands:
        assert f"make {command} " in printed


def test_every_command_named_in_the_readme_exists_in_the_makefile() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    makefile = (REPOSITORY / "Makefile").read_text()
    for command in set(re.findall(r"`?make (?:-s )?([a-z-]+)", readme)):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command


def test_the_site_builds_and_its_pages_fetch_nothing_from_elsewhere(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        fetched = re.findall(
            r"<(?:script|img|link)[^>]+(?:src|href)=\"?(https?://[^\s\">]+)", page.read_text()
        )
        assert not fetched, page


def test_every_page_of_the_docs_is_in_the_sites_navigation() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text()
    for page in (REPOSITORY / "docs").rglob("*.md"):
        assert page.relative_to(REPOSITORY / "docs").as_posix() in navigation, page.name
