"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lodestar.config import Problem
from lodestar.files import atomic, is_temporary, lock, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    with atomic(path) as file:
        file.write(b"new")
        assert not path.exists()
        (temporary,) = path.parent.iterdir()
        assert is_temporary(temporary)
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]
    assert not is_temporary(path)


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="stop"), atomic(path) as file:
        file.write(b"half of the n")
        file.flush()
        assert path.read_text() == "old"
        raise RuntimeError("stop")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_a_problem_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(Problem) as raised:
        write_text(path, "new")
    assert str(raised.value) == f"cannot write {path}: No space left on device"
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("sync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), rename(a, b)))
    write_text(tmp_path / "file", "x")
    assert calls == ["sync", "rename"]


def test_a_folder_in_the_way_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(Problem, match=r"cannot write .*taken"):
        write_text(tmp_path / "taken", "x")
    assert names(tmp_path) == ["taken"]


def test_a_file_where_a_folder_should_be_is_a_problem(tmp_path: Path) -> None:
    write_text(tmp_path / "taken", "x")
    with pytest.raises(Problem, match=r"cannot write .*file"):
        write_text(tmp_path / "taken" / "file", "x")
    assert (tmp_path / "taken").read_text() == "x"


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "x̂₀ → ε\n")
    assert (tmp_path / "file").read_bytes() == "x̂₀ → ε\n".encode()


def test_a_lock_is_held_once_and_can_be_had_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".lock"
    for _ in range(2):
        with lock(path, "taken"), pytest.raises(Problem, match=r"^taken$"), lock(path, "taken"):
            pass
    write_text(tmp_path / "file", "x")
    with (
        pytest.raises(Problem, match=r"^cannot write .*\.lock: (Not a directory|File exists)$"),
        lock(tmp_path / "file" / ".lock", ""),
    ):
        pass
