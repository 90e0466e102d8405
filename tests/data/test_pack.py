"""Shards: what is packed is read again, shard by shard whole or absent, and the same command goes on."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lodestar.__main__ import main
from lodestar.config import Problem
from lodestar.data import Shuffled, Source, Transforms, open_source
from lodestar.data.pack import pack

from .pictures import noise


def captioned(count: int = 7) -> Source:
    """Pictures of two classes, with a caption each."""
    items = [{"image": noise(k, 6, 6), "label": ["cat", "dog"][k % 2], "caption": f"picture {k}"} for k in range(count)]
    return open_source(items, captions=True)


def found(source: Source) -> dict[int, Any]:
    """Pictures, classes by name, and texts by the red of the picture's first place, which is its number."""
    rows = [source.row(index) for index in range(len(source))]
    assert all(row is not None for row in rows)
    return {
        int(row["image"][0, 0, 0]): (row["image"].tolist(), source.names and source.names[row["label"]], row.get("caption"))
        for row in rows
        if row is not None
    }


def test_what_is_packed_is_read_again_with_classes_and_captions(tmp_path: Path) -> None:
    source = captioned()
    shards = pack(source, str(tmp_path / "shard-{:03d}.tar"), 3)
    assert [path.name for path in shards] == ["shard-000.tar", "shard-001.tar", "shard-002.tar"]
    read = open_source(str(tmp_path / "shard-{000..002}.tar"), captions=True)
    assert (len(read), read.names) == (7, ("cat", "dog")) and found(read) == found(source)
    assert found(read)[4][1:] == ("cat", ("picture 4",))


def test_several_captions_of_several_lines_and_grey_pictures_without_classes(tmp_path: Path) -> None:
    items = [{"image": noise(k)[..., 0], "caption": "one\ntwo"} for k in range(3)]
    source = open_source(items, captions=True)
    pack(source, str(tmp_path / "{}.tar"), 2)
    read = open_source(str(tmp_path / "{0..1}.tar"), captions=True)
    assert (read.channels, read.names) == (1, None) and found(read) == found(source)


def test_the_same_command_writes_missing_shards_alone_and_others_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "shards" / "{:05d}.tar")
    shards = pack(captioned(), out, 3)
    whole = [path.read_bytes() for path in shards]
    shards[1].unlink()
    before = [path.stat().st_mtime_ns for path in (shards[0], shards[2])]
    put: list[Any] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: put.append(paths) or replace(*paths))
    pack(captioned(), out, 3)
    assert [path.read_bytes() for path in shards] == whole and len(put) == 1
    assert [path.stat().st_mtime_ns for path in (shards[0], shards[2])] == before
    with pytest.raises(Problem, match="holds other pictures"):
        pack(captioned(8), out, 3)


@pytest.mark.parametrize("out", ["train.tar", "{}-{}.tar", "{0.__class__}.tar", "{:05d}.zip", "{x}.tar"])
def test_names_without_one_field_for_the_number_are_refused(out: str) -> None:
    with pytest.raises(Problem, match="one field for their number"):
        pack(captioned(), out, 3)


def test_a_class_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    source = open_source([{"image": noise(k), "label": "a/b"} for k in range(2)])
    with pytest.raises(Problem, match="class 'a/b' cannot be the name of a folder"):
        pack(source, str(tmp_path / "{}.tar"), 3)


def test_the_command_packs_at_a_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "digits-{:02d}.tar")
    with pytest.raises(SystemExit) as stop:
        main(["pack", "digits", "--out", out, "--size", "6", "--pictures", "1000"])
    assert stop.value.code == 0 and "digits-01.tar: 1,797 pictures" in capsys.readouterr().out
    read, digits = open_source(str(tmp_path / "digits-*.tar")), open_source("digits", size=6)
    assert (len(read), read.size, read.names) == (1_797, (6, 6), digits.names)
    assert np.bincount(read.rows.labels).tolist() == np.bincount(digits.rows.labels).tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize("processes", [1, 5])
def test_a_run_goes_on_in_the_middle_of_a_shard_exactly(tmp_path: Path, processes: int) -> None:
    """With any number of processes, also more than shards, and any number of threads."""
    pack(captioned(11), str(tmp_path / "{}.tar"), 4)
    source = open_source(str(tmp_path / "{0..2}.tar"), captions=True)

    def seen(first: int, workers: int) -> list[tuple[bytes, Any]]:
        """All pictures from number `first` to 40, with their texts, of all processes in the batch's order."""
        rows: list[tuple[bytes, Any]] = []
        streams = [
            Shuffled(source, 5, Transforms(flip=True), workers).batches(3, first, rank, processes) for rank in range(processes)
        ]
        for _ in range((40 - first) // 5):
            for stream in streams:
                batch = next(stream)
                rows += zip([bytes(each.numpy()) for each in batch.image], batch.fields["caption"], strict=True)
        for stream in streams:
            stream.close()
        return rows

    whole = seen(0, 0)
    assert len({text for _, text in whole[:11]}) == 11, "an epoch has every picture once"
    for first in (5, 10, 15):  # no shard begins there: they have 4, 4 and 3 pictures
        for workers in (0, 3):
            assert seen(first, workers) == whole[first:]


def test_a_broken_sample_is_named_by_shard_and_key_and_left_out_on_request(tmp_path: Path) -> None:
    shards = pack(captioned(), str(tmp_path / "{}.tar"), 3)
    data = bytearray(shards[1].read_bytes())
    for place in re.finditer(rb"\x89PNG", bytes(data)):  # the first picture's bytes
        data[place.start() : place.start() + 40] = bytes(40)
        break
    shards[1].write_bytes(data)
    source = open_source(str(tmp_path / "{0..2}.tar"), captions=True)
    with pytest.raises(
        Problem, match=r"cat/00000004\.png in .*/1\.tar cannot be decoded|dog/00000003\.png in .*/1\.tar cannot be decoded"
    ):
        found(source)
    source = open_source(str(tmp_path / "{0..2}.tar"), captions=True, skip_bad=True)
    assert sum(source.row(index) is None for index in range(7)) == 1 and len(source.bad) == 1
