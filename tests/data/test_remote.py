"""Data at addresses: of a store in memory, and of a real server where one is installed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import fsspec
import pytest

from lodestar.config import Problem
from lodestar.data import Shuffled, Source, open_source, remote
from lodestar.data.pack import pack

from .test_pack import captioned, found


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))


def packed(tmp_path: Path, bucket: str) -> Source:
    """A source, which also is in shards of three at the address."""
    source = captioned()
    for path in pack(source, str(tmp_path / "shard-{:03d}.tar"), 3):
        put(bucket, path.name, path.read_bytes())
    return source


def put(bucket: str, name: str, data: bytes) -> None:
    with fsspec.open(f"{bucket}/{name}", "wb") as file:
        file.write(data)


def test_shards_at_an_address_are_read_piece_by_piece(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = packed(tmp_path, bucket)
    patterns = [f"{bucket}/shard-{{000..002}}.tar", f"{bucket}/shard-*.tar"]
    for pattern in patterns:
        read = open_source(pattern, captions=True)
        assert (len(read), read.names) == (7, ("cat", "dog")) and found(read) == found(source)
    # The lists of files are kept, and pictures are read in any order, as of shards on a disk.
    monkeypatch.setattr(remote.RemoteTarRows, "_listed", lambda *_: pytest.fail("listed again"))
    batches, others = (
        Shuffled(open_source(spec, captions=True), 4).batches(0, 5)
        for spec in (patterns[0], str(tmp_path / "shard-{000..002}.tar"))
    )
    for _ in range(5):
        assert next(batches).image.equal(next(others).image)
    assert not (tmp_path / "cache" / "remote").exists(), "no copies are made"


def test_a_shard_that_has_changed_is_listed_again(tmp_path: Path, bucket: str) -> None:
    packed(tmp_path, bucket)
    before = open_source(f"{bucket}/shard-{{000..001}}.tar", captions=True)
    count, fingerprint = len(before), before.fingerprint
    put(bucket, "shard-001.tar", (tmp_path / "shard-002.tar").read_bytes())
    after = open_source(f"{bucket}/shard-{{000..001}}.tar", captions=True)
    assert (count, len(after)) == (6, 4) and fingerprint != after.fingerprint


def test_other_files_are_copied_once(tmp_path: Path, bucket: str) -> None:
    folder = tmp_path / "zip"
    folder.mkdir()
    import zipfile

    with (
        zipfile.ZipFile(folder / "pictures.zip", "w") as archive,
        tarfile.open(pack(captioned(), str(folder / "{}.tar"), 9)[0]) as tar,
    ):
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            archive.writestr(member.name, file.read())
    put(bucket, "pictures.zip", (folder / "pictures.zip").read_bytes())
    for _ in range(2):
        assert found(open_source(f"{bucket}/pictures.zip", captions=True)) == found(captioned())
    assert len(list((tmp_path / "cache" / "remote").rglob("*.zip"))) == 1


def test_what_is_not_there_or_damaged_is_named(tmp_path: Path, bucket: str) -> None:
    packed(tmp_path, bucket)
    with pytest.raises(Problem, match=r"there is no file .*/shard-003\.tar"):
        open_source(f"{bucket}/shard-{{000..003}}.tar")
    with pytest.raises(Problem, match=r"there is no file .*/none-\*\.tar"):
        open_source(f"{bucket}/none-*.tar")
    put(bucket, "short.tar", (tmp_path / "shard-000.tar").read_bytes()[:1500])
    with pytest.raises(Problem, match=r"short\.tar cannot be read: "):
        open_source(f"{bucket}/short.tar")
    packed_twice = io.BytesIO()
    with tarfile.open(fileobj=packed_twice, mode="w:gz"):
        pass
    put(bucket, "packed.tar.gz", packed_twice.getvalue())
    with pytest.raises(Problem, match="is compressed, and is read in pieces"):
        open_source(f"{bucket}/packed.tar.gz")


def test_a_store_that_cannot_be_had_is_a_problem() -> None:
    with pytest.raises(Problem, match=r"nostore://a/b\.tar cannot be opened: .*lodestar\[remote\]"):
        open_source("nostore://a/b.tar")
