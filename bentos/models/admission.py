"""Which models a worker may load: those that are signed here and came through their trial.

The trial runs in a throwaway process with bounds of time and memory (`bentos.models.trial`). Its verdict is
kept by the files' digest in the run folder, so that the workers of one host hold one trial of a model
between them, and none after a restart. A trial that was cut off says little about the model on a machine
that is busy: it is held again after a while.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed
from pathlib import Path
from typing import Final

import msgspec

from machine.contained import Contained, Outcome, python
from stores.files import write_whole
from stores.keys import Seal
from stores.model_signature import model_verifies
from stores.models import ModelError, ModelFiles
from stores.settings import REPOSITORY

#: Of what the trial looks at; another number makes every model be tried again.
_TRIAL: Final = 1
_NICENESS: Final = 5
#: Seconds until a trial that was cut off is held again.
RETRY_SECONDS: Final = 300.0
_CUT_OFF: Final = ("took longer", "was ended by SIGKILL", "was ended by SIGXCPU", "was ended by SIGTERM")
#: All that the trial gets of this process's environment: no secret, no setting.
_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "TZ")


class Unfinished(ModelError):
    """A model whose trial was cut off; worth another one later."""


class Verdict(msgspec.Struct, frozen=True):
    """What a trial found: `refused` is None for a model that may serve."""

    at: float
    refused: str | None = None
    cut_off: bool = False


_decode = msgspec.json.Decoder(Verdict).decode


class Admission:
    """Verifies and tries models. `folder` keeps the verdicts; it belongs to one host.

    `seal` verifies signatures (purpose `models`); without one, models that nobody signed may serve.
    """

    def __init__(self, folder: Path, seal: Seal | None, *, seconds: int = 60, megabytes: int = 1024) -> None:
        self._folder = folder
        self._seal = seal
        self._seconds = seconds
        self._megabytes = megabytes
        self._running: Contained | None = None
        self._closed = False

    def admit(self, files: ModelFiles) -> None:
        """Return if the model may serve; raise `ModelError` with the reason. Blocks for seconds."""
        if self._seal is not None:
            _verify(files, self._seal)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        bounds = f"{_TRIAL}-{installed('lightgbm')}-{self._seconds}-{self._megabytes}"
        path = self._folder / f"{files.digest}-{bounds}.json"
        verdict = _kept(path)
        if verdict is None:
            with self._alone(path.with_suffix(".lock"), files):
                verdict = _kept(path)
                if verdict is None:
                    verdict = self._tried(files)
                    if not self._closed:
                        _keep(path, verdict)
        if verdict.refused is not None:
            raise (Unfinished if verdict.cut_off else ModelError)(verdict.refused)

    def _tried(self, files: ModelFiles) -> Verdict:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = python(
            "-m", "bentos.models.trial",
            str(files.folder.absolute()), files.digest, str(self._megabytes), str(self._seconds),
        )  # fmt: skip
        try:
            trial = Contained(command, seconds=self._seconds, environment=environment, niceness=_NICENESS)
        except OSError as error:
            return Verdict(
                time.time(), f"{files.folder.name}: cannot be tried: {error.strerror}", cut_off=True
            )
        self._running = trial
        if self._closed:
            trial.kill()
        outcome = trial.wait()
        self._running = None
        return _verdict(files.folder.name, outcome)

    def close(self) -> None:
        """End a trial that runs, whoever waits for it."""
        self._closed = True
        if (running := self._running) is not None:
            running.kill()

    @contextmanager
    def _alone(self, path: Path, files: ModelFiles) -> Iterator[None]:
        """Hold the lock of one model's trial; the system lets go of it with its holder."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            give_up = time.monotonic() + 2 * self._seconds
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._closed or time.monotonic() > give_up:
                        raise Unfinished(f"{files.folder.name}: is being tried for too long") from None
                    time.sleep(0.05)
            yield
        finally:
            os.close(descriptor)


def _verify(files: ModelFiles, seal: Seal) -> None:
    name = files.folder.name
    if files.signature is None:
        raise ModelError(
            f"{name}: is not signed; if you trust where it is from, `python -m training.save --sign {name}`"
        )
    if not model_verifies(name, files.digest, files.signature, seal):
        raise ModelError(f"{name}: its signature is not one of this deployment's keys over these files")


def _verdict(version: str, outcome: Outcome) -> Verdict:
    if outcome.ended is None:
        return Verdict(time.time())
    if outcome.ended.startswith("ended with status 1") and outcome.complaints:
        return Verdict(time.time(), outcome.complaints.splitlines()[-1][:500])
    reason = f"{version}: its trial {outcome.ended}"
    return Verdict(time.time(), reason, cut_off=outcome.ended.startswith(_CUT_OFF))


def _kept(path: Path) -> Verdict | None:
    try:
        verdict = _decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
    if verdict.cut_off and not 0 <= time.time() - verdict.at < RETRY_SECONDS:
        return None
    return verdict


def _keep(path: Path, verdict: Verdict) -> None:
    write_whole(path, msgspec.json.encode(verdict))
