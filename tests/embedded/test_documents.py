"""What the documents say is what the code does."""

from __future__ import annotations

import re
import subprocess

import pytest

from embedded.document_settings import settings_table
from stores.settings import REPOSITORY, SettingsError, load_settings


def test_the_settings_document_is_the_one_that_the_command_writes() -> None:
    assert (REPOSITORY / "docs" / "settings.md").read_text() == settings_table()


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
    for command in set(re.findall(r"`?make ([a-z-]+)", readme)):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
