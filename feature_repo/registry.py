"""Where Feast's registry lives: a database of the settings, not of the YAML.

`feature_store.yaml` may hold environment variables but no defaults, and a relative path in it
depends on the caller's working directory. Its registry path therefore names this plugin
(https://docs.sqlalchemy.org/en/20/core/connections.html#sqlalchemy.engine.CreateEnginePlugin),
which turns the placeholder into the real URL when an engine is made.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy.dialects import plugins
from sqlalchemy.engine import URL, CreateEnginePlugin, make_url

from stores.settings import settings

PLUGIN: Final = "tollgate"


def registry_url() -> URL:
    """Its database: `TOLLGATE_REGISTRY_URL`, the state database, or a SQLite file in the home folder."""
    configured, shared = settings().feast.registry_url, settings().cluster.state_url
    if configured is not None:
        return make_url(configured)
    if shared is not None:
        return make_url(shared).set(drivername="postgresql+psycopg")
    folder = settings().home
    folder.mkdir(parents=True, exist_ok=True)
    # Writers of several processes (apply, materialize) wait for each other instead of failing.
    return make_url(f"sqlite:///{folder / 'registry.db'}").update_query_dict({"timeout": "30"})


class RegistryLocation(CreateEnginePlugin):
    """Replaces ``sqlite://?plugin=tollgate`` by `registry_url`."""

    def update_url(self, url: URL) -> URL:
        return registry_url()


# Names the class and imports nothing; SQLAlchemy loads it when a URL asks for the plugin.
plugins.register(PLUGIN, __name__, RegistryLocation.__name__)
