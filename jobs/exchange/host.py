"""What each kind of host exchanges, in the order in which it does so at one look.

    serve    brings the models of the deployment, then the deployment; ships decisions and labels while they
             are written, then their files
    stream   ships the arrival log
    jobs     brings decisions, labels and arrivals; ships models, the lake, training sets, reports and what is
             declared; brings all of that itself when it starts on an empty disk

The service and the flow do not know of it: they read and write their own disk, and an object store or a
database that is away costs them nothing.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Literal

from bentos.log.decision_files import convert_all
from bentos.log.label_files import convert_labels
from bentos.log.labels import labels_folder
from jobs.exchange.mirror import Files, Mirror, every_file
from jobs.exchange.tails import JOURNAL, Abandoned, Tails, adopt, frames
from stores.commits import Collection, File
from stores.decisions import decisions_folder, journal_folder
from stores.declared import plan_path
from stores.deployment import Deployment
from stores.lake import TRANSACTIONS
from stores.lake_files import parquet_files
from stores.models import model_folder, store_folder
from stores.places import Place, open_place
from stores.run_folder import host_id
from stores.settings import Settings
from stores.spool import orphaned
from stores.state import Postgres, open_state

Role = Literal["serve", "stream", "jobs"]
#: Commits of a collection beyond which the jobs host folds them into a checkpoint.
_MANY_COMMITS: Final = 500
#: Parquet of the lake that jobs write, by folder.
LAKE: Final = ("profiles", "velocity", "labels")


def writer_name() -> str:
    """This host's name in its commits: readable, and no other host's."""
    import platform

    node = re.sub(r"[^A-Za-z0-9]", "", platform.node())[:32] or "host"
    return f"{node}_{hashlib.blake2b(host_id().encode(), digest_size=4).hexdigest()}"


class Host:
    """One host's exchange. `look` does all of it once; raises `PlaceAway` and `StateAway`."""

    def __init__(self, configured: Settings, role: Role) -> None:
        if configured.cluster.store_url is None:
            raise ValueError("TOLLGATE_STORE_URL: names no shared store, so there is nothing to exchange")
        self._configured = configured
        self.home = configured.home
        self.role = role
        self._place: Place = open_place(configured.cluster.store_url)
        self._writer = writer_name()
        self._abandoned = Abandoned(configured.cluster.lost_host_seconds)
        #: When everything that was there had last been shipped, by kind (seconds since 1970).
        self.shipped_at: dict[str, float] = {}
        # Nobody takes a decision out of the log by deleting a file on a host.
        self.decisions = self._mirror("decisions", decisions_folder(self.home), parquet_below, deletes=False)
        self._tails = Tails(self.decisions.collection, journal_folder(self.home))
        self._labels = Tails(self._collection("reported_labels"), labels_folder(self.home))
        self.arrivals = self._mirror(TRANSACTIONS, configured.lake / TRANSACTIONS, parquet_below)
        self.declared = self._mirror(
            "declared", plan_path(configured).parent, lambda folder: folder.glob("declared.json")
        )
        self.models = self._mirror("models", store_folder(self.home), ready=_whole_model)
        self._made = {name: self._mirror(name, configured.lake / name, parquet_below) for name in LAKE}
        self._made |= {
            "models": self.models,
            "declared": self.declared,
            "training": self._mirror("training", self.home / "training", ready=_whole_set),
            "reports": self._mirror("reports", configured.results, ready=_settled),
        }
        self._begun = False

    def _collection(self, name: str) -> Collection:
        return Collection(self._place.below(name), self._writer)

    def _mirror(
        self,
        name: str,
        folder: Path,
        files: Files = every_file,
        ready: Callable[[Path], bool] = lambda path: True,
        *,
        deletes: bool = True,
    ) -> Mirror:
        kept = self.home / "exchange" / f"{name}.json"
        return Mirror(self._collection(name), folder, kept, files=files, ready=ready, deletes=deletes)

    def look(self) -> None:
        """Exchange what there is to exchange now."""
        if not self._begun:
            if self.role == "serve":
                self._tails.resume()
                self._labels.resume()
            self._begun = True
        {"serve": self._serve, "stream": self._stream, "jobs": self._jobs}[self.role]()

    def _serve(self) -> None:
        self._timed("labels", self._ship_labels)
        self._timed("decisions", self._ship_decisions)
        self.declared.pull()
        self.bring_models()
        self.decisions.forget_old(self._configured.cluster.shipped_keep_hours * 3600)

    def _stream(self) -> None:
        self._timed("arrivals", partial(_all, self.arrivals.ship))
        self.declared.pull()

    def _jobs(self) -> None:
        if isinstance(state := open_state(self._configured), Postgres):
            state.copy()
        # What was compacted or deleted here first: pulled first, it would come back.
        for mirror in (self.arrivals, self.decisions, *self._made.values()):
            if mirror.folder.is_dir():
                _all(mirror.ship)
            mirror.pull()
        self._bring_labels()
        self._adopt()
        for name, mirror in {**self._made, "arrivals": self.arrivals, "decisions": self.decisions}.items():
            self._timed(name, partial(_all, mirror.ship))
            if len(mirror.collection) > _MANY_COMMITS:
                mirror.collection.checkpoint()

    def _timed(self, name: str, ship: Callable[[], object]) -> None:
        began = time.time()
        ship()
        self.shipped_at[name] = began

    def _ship_decisions(self) -> None:
        # The frames of what becomes parquet meanwhile stay until that is shipped.
        self._tails.ship()
        _all(self.decisions.ship)
        files = self.decisions.collection.files()
        open_ = self._tails.segments()
        done = {
            name.rpartition("/")[2].removesuffix(".parquet") for name in files if name.endswith(".parquet")
        }
        stale = [
            name for name in files
            if name.startswith(f"{JOURNAL}/") and (stem := name.split("/")[1]) in done and stem not in open_
        ]  # fmt: skip
        if stale:
            self.decisions.collection.commit({}, stale)
            self._tails.forget({name.split("/")[1] for name in stale})

    def _ship_labels(self) -> None:
        self._labels.ship()
        for stem, path in self._labels.segments().items():
            closed = path.suffix == ".ready" or orphaned(path)
            if closed and self._labels.whole(stem):
                path.unlink(missing_ok=True)
                self._labels.forget([stem])

    def _bring_labels(self) -> None:
        """What scoring hosts took, as closed segments for this host's conversion into the lake."""
        folder = labels_folder(self.home)
        taken = self.home / "exchange" / "labels"
        taken.mkdir(parents=True, exist_ok=True)
        for stem, files in frames(self._labels.collection.files()).items():
            for file in files:
                name = f"{stem}-{file.name.rpartition('/')[2].partition('.')[0]}"
                if not (taken / name).exists():
                    adopt(self._labels.collection, name, [file], folder)
                    (taken / name).touch()
        convert_labels(self.home)

    def _adopt(self) -> None:
        """Make decisions of the frames of hosts that are gone. A host that comes back ships the same names."""
        collection = self.decisions.collection
        found = list(self._abandoned.among(frames(collection.files())))
        for stem, files in found:
            adopt(collection, stem, files, journal_folder(self.home))
        if found:
            convert_all(self.home)
            _all(self.decisions.ship)
            names = [name for name in collection.files() if name.startswith(f"{JOURNAL}/")]
            gone = {stem for stem, _ in found}
            collection.commit({}, [name for name in names if name.split("/")[1] in gone])

    def bring_models(self) -> None:
        """Bring the models that the deployment names, then the deployment itself: workers look at that."""
        state = open_state(self._configured)
        if not isinstance(state, Postgres):
            return
        deployment = state.deployment()
        wanted = [version for version in _versions(deployment) if not _whole_folder(self.home, version)]
        files = self.models.collection.files() if wanted else {}
        for version in wanted:
            self._bring_model(version, files)
        state.copy()

    def _bring_model(self, version: str, files: dict[str, File]) -> None:
        mine = {name: file for name, file in files.items() if name.startswith(f"{version}/")}
        if not mine:
            raise MissingModel(f"the model {version} is in service and not in the shared store")
        folder = model_folder(self.home, version)
        unfinished = folder.with_name(f".{version}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for name, file in mine.items():
            self.models.collection.fetch(file, unfinished / name.removeprefix(f"{version}/"))
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)  # on this host's own disk


class MissingModel(RuntimeError):
    """A deployment names a model that nobody has shipped (yet)."""


def _all(ship: Callable[[], int]) -> None:
    while ship():
        pass


def parquet_below(folder: Path) -> list[Path]:
    """Finished parquet, each row in one file: without what a compaction under way replaces."""
    return parquet_files(folder)


def _versions(deployment: Deployment) -> list[str]:
    named = (deployment.champion, deployment.challenger, *deployment.shadow)
    return [version for version in named if version is not None]


def _whole_folder(home: Path, version: str) -> bool:
    return (model_folder(home, version) / "manifest.json").is_file()


def _whole_model(path: Path) -> bool:
    """A version's folder appears whole, and is signed last."""
    return path.name == "latest" or (path.parent / "manifest.json").is_file()


def _whole_set(path: Path) -> bool:
    """A training set is being built while it has parts, and is none without its manifest."""
    return any(
        (folder / "manifest.json").is_file() and not (folder / ".parts").exists()
        for folder in path.parents[:3]
    )


def _settled(path: Path) -> bool:
    """A report that nobody writes to any more."""
    return path.stat().st_mtime < time.time() - 2
