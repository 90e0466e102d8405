"""Settings of all tests, and stores."""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

# A core for each test: several run side by side. PyTorch reads it when it is imported, and commands inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"  # the hub's library reads it when it is imported, and without a network tries for long
# Pictures, losses and weights are compared with recorded ones: not in whatever format is fastest here. Commands inherit it.
os.environ.setdefault("LODESTAR_PRECISION", "float32")

SERVER = [name for name in ("moto", "flask", "s3fs") if importlib.util.find_spec(name) is None]
"""What a server of S3 lacks here."""


@pytest.fixture(params=["memory", "file", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty folder of a store."""
    if request.param == "memory":
        yield f"memory://{uuid.uuid4().hex}"
        return
    if request.param == "file":
        (tmp_path / "store").mkdir()
        yield f"file://{tmp_path}/store"
        return
    if SERVER:
        pytest.skip(f"no server of S3 without {', '.join(SERVER)}: pip install 'moto[server]' s3fs")
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
            ("AWS_ACCESS_KEY_ID", "some"),
            ("AWS_SECRET_ACCESS_KEY", "some"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        name = f"bucket-{uuid.uuid4().hex}"
        fsspec.filesystem("s3").mkdir(name)
        yield f"s3://{name}"
    finally:
        server.stop()
