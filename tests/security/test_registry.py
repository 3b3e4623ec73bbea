"""Feast's registry is data for those who serve: nothing that stands in it is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bentos.features.feature_plan import plan_path
from bentos.features.online_features import FeaturePlan, table_plan
from stores.settings import REPOSITORY, settings
from tests.security.planted_registry import plant

FEASTS_OWN_READERS = """
from contextlib import suppress
from fraud.features.entities import ENTITIES
from feature_repo.store import open_store
store = open_store()
with suppress(Exception):
    store.list_on_demand_feature_views()
for entity in ENTITIES:
    for name in (entity.profile_view, entity.velocity_view):
        with suppress(Exception):
            store.get_feature_view(name)
"""


@pytest.mark.finding("H7", "high", "Feast's readers run source text, pickles and modules out of the registry")
def test_nothing_that_stands_in_the_registry_runs_while_the_plan_is_resolved(
    home: Path, tmp_path: Path
) -> None:
    from feature_repo.store import apply_definitions

    apply_definitions()
    marker, modules = tmp_path / "marker", tmp_path / "modules"
    modules.mkdir()
    plant(marker, modules)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(modules)])}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)

    done = run("-P", "-m", "bentos.features.feature_plan", "--bounded")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(tmp_path.glob("marker-*")) == []
    resolved = msgspec.json.decode(plan_path(home).read_bytes())["plan"]
    assert msgspec.convert(resolved, FeaturePlan) == table_plan(settings().feast.project)
    # Otherwise what comes before proves nothing: Feast's own readers run all three.
    run("-c", FEASTS_OWN_READERS)
    assert [path.name for path in sorted(tmp_path.glob("marker-*"))] == ["marker-1", "marker-2", "marker-3"]
