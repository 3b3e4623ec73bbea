"""The run folder: what belongs to one host alone and means nothing after it restarted.

Metrics snapshots, locks, mapped pages. They need a local file system, and two hosts in one folder
would add up each other's counters, so the folder is held for the host (a lease: an advisory lock
that every process of the host shares, on a file that names the host). What must survive a restart
(the decision log's journal, the backlog of effects, the stream's states) is kept elsewhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import random
import stat
import tempfile
import time
import uuid
from pathlib import Path

_LEASE = "host"

#: How often the name is tried for: about half a second, while processes of this host start together.
_TRIES = 25

#: Leases of this process: open files, so that the locks on them last as long as it runs.
_held: dict[Path, int] = {}


class RunFolderError(ValueError):
    """A run folder that cannot be used; the text names TOLLGATE_RUN and says what to do."""


def host_id() -> str:
    """What no two hosts (machines, virtual machines, containers) that run at one time share.

    A container is a host of its own: it counts processes from 1, as every other container does.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        processes = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # no Linux: a machine's address, which does not change with the network's name for it
        return f"{uuid.getnode():012x}"
    return f"{boot} {processes} {platform.node()}"


def _default_root() -> Path:
    of_user = os.environ.get("XDG_RUNTIME_DIR")
    return Path(of_user) / "tollgate" if of_user else Path(tempfile.gettempdir()) / f"tollgate-{os.getuid()}"


def default_run_folder(home: Path) -> Path:
    """A folder of this user, host and home below `XDG_RUNTIME_DIR` or the system's temporary folder."""
    digest = hashlib.blake2b(f"{home.absolute()}\0{host_id()}".encode(), digest_size=6).hexdigest()
    return _default_root() / digest


def _private(folder: Path) -> None:
    """Make the folder for this user alone; refuse one that is another's, or that others may write."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise RunFolderError(
            f"TOLLGATE_RUN: {folder} is not a folder of this user that only it may write; name another one"
        )
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def open_run_folder(folder: Path) -> Path:
    """Make the folder (mode 0700) and hold it for this host; the folder, for `open_run_folder(...) / name`.

    Every process of one host may hold it. Raises `RunFolderError` while another host does.
    """
    folder = folder.absolute()
    if folder in _held and (folder / _LEASE).exists():
        return folder
    try:
        if folder.parent == _default_root().absolute():  # itself in a folder that everybody may write
            _private(folder.parent)
        _private(folder)
        lease = os.open(folder / _LEASE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise RunFolderError(f"TOLLGATE_RUN: {folder} cannot be used: {error.strerror}") from None
    try:
        _take(lease, folder)
    except BaseException:
        os.close(lease)
        raise
    _held[folder] = lease
    return folder


def _take(lease: int, folder: Path) -> None:
    """Share the lock; where the file names another host or none, write this one's name while alone."""
    mine = host_id().encode()
    for _ in range(_TRIES):
        fcntl.flock(lease, fcntl.LOCK_SH)
        if os.pread(lease, 4096, 0) == mine:
            return
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another host, or a process of this one that is starting too
            fcntl.flock(lease, fcntl.LOCK_UN)
            time.sleep(random.uniform(0.01, 0.03))
            continue
        os.ftruncate(lease, 0)
        os.pwrite(lease, mine, 0)  # read again under the shared lock: changing a lock lets go of it
    raise RunFolderError(
        f"TOLLGATE_RUN: {folder} is in use by another host; every host needs a run folder of its own"
    )
