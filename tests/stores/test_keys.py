"""The keyring: private, made once, watched, rotated while everything runs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from stores.key_file import KeyringError, Ring, change_ring, copy_identity, make_ring, new_key, read_ring
from stores.keys import SIGNATURE_BYTES, Keys, main, open_identity, open_keys
from stores.settings import REPOSITORY, Settings, load_settings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "keys" / "keys.json"
    make_ring(made)
    return made


def rotate(path: Path, *, seconds: float = 0.0) -> str:
    key = new_key(datetime.now(UTC) + timedelta(seconds=seconds))
    change_ring(path, lambda ring: msgspec.structs.replace(ring, keys=(*ring.keys, key)))
    return key.id


def configured(home: Path, **changes: object) -> Settings:
    return load_settings({"TOLLGATE_HOME": str(home)}).changed(**changes)


def test_a_keyring_is_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "own" / "keys.json"
    old = os.umask(0)
    try:
        make_ring(path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o606, 0o644])
def test_a_keyring_that_others_may_open_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(KeyringError, match="open to other users; chmod 600"):
        Keys(path)


def test_a_keyring_in_a_folder_where_others_may_exchange_it_is_refused(path: Path) -> None:
    path.parent.chmod(0o777)
    with pytest.raises(KeyringError, match="chmod 700"):
        Keys(path)
    path.parent.chmod(0o1777)  # where only its owner may
    Keys(path)


def read_as(user: int, path: Path) -> str:
    """What reading the keyring says to another user, in a fork of this process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            Keys(path)
            os.write(write, b"read")
        except Exception as error:  # noqa: BLE001  # the parent looks at it
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as said:
        return said.read()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_a_keyring_of_another_user_is_refused_but_one_that_root_mounts_is_not() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own is closed to others
        path = Path(folder) / "keys.json"
        make_ring(path)
        Path(folder).chmod(0o755)
        os.chown(path, 0, 54321)
        path.chmod(0o440)
        assert read_as(54321, path) == "read"
        path.chmod(0o444)
        assert "open to other users" in read_as(54321, path)
        os.chown(path, 54322, 54321)
        path.chmod(0o440)
        assert "belongs to another user" in read_as(54321, path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 1, "identity": "00", "keys": []}'],
)
def test_a_broken_keyring_is_refused_by_name(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(KeyringError, match="is not a whole keyring"):
        Keys(path)


def test_a_secret_that_was_cut_or_exchanged_is_noticed(path: Path) -> None:
    ring = read_ring(path)
    other = new_key(datetime.now(UTC))
    mixed = msgspec.structs.replace(ring.keys[0], secret=other.secret)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(ring, keys=(mixed,))))
    with pytest.raises(KeyringError, match="is not whole") as refused:
        Keys(path)
    assert other.secret not in str(refused.value)


def test_what_was_signed_for_one_purpose_is_nothing_for_another(path: Path) -> None:
    keys = Keys(path)
    signature = keys.seal("answers").sign(b"pay")
    assert len(signature) == SIGNATURE_BYTES
    assert keys.seal("answers").verifies(b"pay", signature)
    assert not keys.seal("control").verifies(b"pay", signature)
    assert not keys.seal("answers").verifies(b"pay!", signature)


def test_no_bit_of_a_signature_may_differ_and_none_may_be_missing(path: Path) -> None:
    seal = Keys(path).seal("answers")
    signature = seal.sign(b"pay")
    for bit in range(8 * len(signature)):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert not seal.verifies(b"pay", bytes(changed))
    for length in range(len(signature)):
        assert not seal.verifies(b"pay", signature[:length])


#   t0   k1 signs          k1, k2 verify          k1 retired
#   |----k1----|--rotate--|-------k2 signs-------|----k2----
def test_keys_rotate_while_everything_runs(path: Path) -> None:
    writer, reader = Keys(path), Keys(path)
    signing, verifying = writer.seal("answers"), reader.seal("answers")
    first = signing.sign(b"early")
    rotate(path)
    writer.refresh()
    second = signing.sign(b"late")
    assert first[:4] != second[:4]
    assert not verifying.verifies(b"late", second)  # until it has looked
    reader.refresh()
    assert verifying.verifies(b"early", first)
    assert verifying.verifies(b"late", second)
    change_ring(
        path,
        lambda ring: msgspec.structs.replace(
            ring, keys=(msgspec.structs.replace(ring.keys[0], retired=True), *ring.keys[1:])
        ),
    )
    reader.refresh()
    assert not verifying.verifies(b"early", first)
    assert verifying.verifies(b"late", second)
    assert reader.seal("log", retired=True).key(first[:4]) is not None
    assert reader.seal("log").key(first[:4]) is None


def test_a_new_key_waits_for_its_time_and_verifies_before(path: Path) -> None:
    keys = Keys(path)
    seal = keys.seal("answers")
    old = seal.key_id
    new = bytes.fromhex(rotate(path, seconds=3600))
    keys.refresh()
    assert seal.key_id == old
    assert seal.key(new) is not None
    change_ring(
        path,
        lambda ring: msgspec.structs.replace(
            ring, keys=(ring.keys[0], msgspec.structs.replace(ring.keys[1], signs_from=datetime.now(UTC)))
        ),
    )
    keys.refresh()
    assert seal.key_id == new


@pytest.mark.parametrize("fault", ["gone", "broken", "open", "another identity"])
def test_a_file_that_breaks_later_leaves_the_keys_before_in_force(path: Path, fault: str) -> None:
    keys = Keys(path)
    seal = keys.seal("answers")
    signature = seal.sign(b"pay")
    whole = path.read_bytes()
    if fault == "gone":
        path.unlink()
    elif fault == "broken":
        path.write_bytes(whole[:-20])
    elif fault == "open":
        path.write_bytes(whole + b"\n")
        path.chmod(0o644)
    else:
        path.write_bytes(
            msgspec.json.encode(msgspec.structs.replace(read_ring(path), identity="0" * 64)) + b"\n\n"
        )
    keys.refresh()
    assert keys.error is not None
    assert keys.error.startswith("TOLLGATE_KEYS_FILE")
    assert seal.verifies(b"pay", signature)
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_bytes(whole)
    keys.refresh()
    assert keys.error is None


def test_the_identity_outlives_every_rotation(path: Path) -> None:
    before = Keys(path).identity
    rotate(path)
    assert Keys(path).identity == before
    assert before.hex() not in path.read_text()


def test_who_rebuilds_states_needs_the_identity_and_no_key(path: Path, tmp_path: Path, home: Path) -> None:
    copy_identity(path, tmp_path / "identity.json")
    assert open_identity(configured(home, keys_file=tmp_path / "identity.json")) == Keys(path).identity
    assert open_identity(configured(home, keys_file=path)) == Keys(path).identity
    with pytest.raises(KeyringError, match="no key that is in force"):
        Keys(tmp_path / "identity.json")
    with pytest.raises(KeyringError, match="is there already"):
        copy_identity(path, tmp_path / "identity.json")


def test_processes_that_race_to_make_keys_agree(tmp_path: Path) -> None:
    code = (
        "from stores.keys import open_keys; from stores.settings import load_settings; import sys;"
        "sys.stdin.readline(); print(open_keys(load_settings()).seal('log').sign(b'x').hex())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TOLLGATE_KEYS_FILE"}
    environment |= {"XDG_CONFIG_HOME": str(tmp_path / "config"), "TOLLGATE_HOME": str(tmp_path / "home")}
    racing = [
        subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]  # fmt: skip
    for process in racing:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    signatures = {process.communicate(timeout=60)[0] for process in racing}
    assert len(signatures) == 1
    assert len(signatures.pop().strip()) == 2 * SIGNATURE_BYTES
    assert [each.name for each in (tmp_path / "config" / "tollgate").iterdir()] == ["keys.json"]


def test_keys_are_made_at_the_first_start_outside_of_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    home = tmp_path / "home"
    made = open_keys(configured(home))
    assert made.path == tmp_path / "config" / "tollgate" / "keys.json"
    assert open_keys(configured(home)).seal("log").verifies(b"x", made.seal("log").sign(b"x"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    with pytest.raises(KeyringError, match="lies in TOLLGATE_HOME"):
        open_keys(configured(home))


def test_where_keys_are_required_or_named_none_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(KeyringError, match="TOLLGATE_KEYS_REQUIRED"):
        open_keys(configured(tmp_path / "home", keys_required=True))
    with pytest.raises(KeyringError, match=r"there is no .*python -m stores\.keys new"):
        open_keys(configured(tmp_path / "home", keys_file=tmp_path / "elsewhere.json"))
    assert not (tmp_path / "config").exists()


def test_the_commands_tell_ids_and_never_secrets(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "commands" / "keys.json"
    monkeypatch.setenv("TOLLGATE_KEYS_FILE", str(path))
    assert main(["new"]) == 0
    assert main(["new"]) == 1
    assert main(["rotate"]) == 0
    first, second = read_ring(path).keys
    assert main(["rotate", "--in", "30"]) == 0
    third = read_ring(path).keys[2]
    assert main(["retire", second.id]) == 1
    assert main(["retire", "00000000"]) == 1
    assert main(["retire", first.id]) == 0
    capsys.readouterr()
    assert main(["list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == [first.id, second.id, third.id]
    assert shown[0].endswith("retired")
    assert shown[1].endswith("signs")
    assert "signs from" in shown[2]
    ring: Ring = read_ring(path)
    output = "\n".join([*shown, repr(ring), repr(ring.keys[0])])
    assert not any(secret in output for secret in [ring.identity, *[key.secret for key in ring.keys]])
