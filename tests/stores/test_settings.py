"""Variables, what is refused, and what Kubernetes adds by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from stores.settings import SettingsError, documented, load_settings


def test_a_variable_sets_the_setting_of_its_room() -> None:
    read = load_settings({"TOLLGATE_SERVE_BATCH": "8", "TOLLGATE_STREAM_BATCH": "9", "TOLLGATE_TOPIC": "t"})
    assert (read.serve.batch, read.stream.batch, read.event_log.topic) == (8, 9, "t")
    assert load_settings({}).serve.batch == 32


def test_every_variable_stands_in_one_group_only() -> None:
    names = [variable for _, group in documented() for variable, _ in group]
    assert len(names) == len(set(names))
    assert all(field.description for _, group in documented() for _, field in group)


def test_an_unknown_variable_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        SettingsError, match="TOLLGATE_SERVE_PROT: no such setting; did you mean TOLLGATE_SERVE_PORT"
    ):
        load_settings({"TOLLGATE_SERVE_PROT": "1"})
    with pytest.raises(SettingsError, match=r"TOLLGATE_ZZZZ: no such setting; see docs/settings\.md"):
        load_settings({"TOLLGATE_ZZZZ": "1"})
    load_settings({"TOLLGATE_PYTHON": "python3.12", "HOME": "/"})  # the setup script's, and anybody's


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        load_settings({"TOLLGATE_SERVE_PORT": "seventy", "TOLLGATE_PARTITIONS": "0", "TOLLGATE_HOMES": "/"})
    assert all(
        name in str(error.value) for name in ("TOLLGATE_SERVE_PORT", "TOLLGATE_PARTITIONS", "TOLLGATE_HOMES")
    )


def test_what_kubernetes_says_of_a_service_is_no_setting() -> None:
    links = {
        "TOLLGATE_SERVE_SERVICE_HOST": "10.0.0.1", "TOLLGATE_SERVE_SERVICE_PORT": "3000",
        "TOLLGATE_SERVE_SERVICE_PORT_HTTP": "3000", "TOLLGATE_SERVE_PORT": "tcp://10.0.0.1:3000",
        "TOLLGATE_SERVE_PORT_3000_TCP": "tcp://10.0.0.1:3000", "TOLLGATE_SERVE_PORT_3000_TCP_ADDR": "10.0.0.1",
    }  # fmt: skip
    assert load_settings(links).serve.port == 3000
    assert load_settings(links | {"TOLLGATE_SERVE_PORT": "3456"}).serve.port == 3456
    with pytest.raises(SettingsError, match="TOLLGATE_SERVE_PORT_3000_TCP"):
        load_settings({"TOLLGATE_SERVE_PORT_3000_TCP": "tcp://10.0.0.1:3000"})


def test_a_changed_copy_is_validated_and_leaves_the_first_alone(tmp_path: Path) -> None:
    first = load_settings({"TOLLGATE_TOPIC": "t"})
    other = first.changed(home=tmp_path, partitions=7)
    assert (other.home, other.event_log.partitions, other.event_log.topic) == (tmp_path, 7, "t")
    assert first.event_log.partitions == 2
    assert other.run != first.run
    assert first.changed(run=tmp_path).changed(home="/x").run == tmp_path
    with pytest.raises(SettingsError, match="TOLLGATE_PARTITIONS"):
        first.changed(partitions=0)
    with pytest.raises(SettingsError, match="TOLLGATE_PARTITION: no such setting"):
        first.changed(partition=1)
