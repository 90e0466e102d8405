"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lodestar.config import Problem
from lodestar.files import atomic, check_writable, is_temporary, lock, read_json, reading, sha256, write_text


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


def test_whether_a_file_can_be_written_is_found_out_without_a_trace(tmp_path: Path) -> None:
    write_text(tmp_path / "taken", "x")
    for path in (tmp_path / "taken", tmp_path / "new" / "folder" / "file"):
        check_writable(path)
    with pytest.raises(Problem, match=r"^cannot write .*taken/file: (Not a directory|File exists)$"):
        check_writable(tmp_path / "taken" / "file")
    assert names(tmp_path) == ["taken"] and (tmp_path / "taken").read_text() == "x"


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


def test_a_failure_leaves_no_folder_behind_that_was_not_there(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(RuntimeError), atomic(tmp_path / "there" / "a" / "b" / "file"):
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_lock_goes_with_what_is_refused_and_stays_with_what_is_begun(tmp_path: Path) -> None:
    path = tmp_path / "a" / "run" / ".lock"
    with pytest.raises(Problem), lock(path, "taken"):
        raise Problem("no")
    assert not list(tmp_path.iterdir())
    with pytest.raises(Problem), lock(path, "taken"):
        write_text(path.with_name("begun"), "x")
        raise Problem("no")
    assert names(path.parent) == [".lock", "begun"]
    with lock(path, "taken"):
        pass
    assert path.exists()


def test_what_is_no_file_is_neither_a_lock_nor_written_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Problem, match=r"^cannot write .*pipe: it is no regular file$"), lock(tmp_path / "pipe", "taken"):
        pass
    with pytest.raises(Problem, match=f"^cannot write {tmp_path}: it is a folder$"):
        check_writable(tmp_path)


def test_a_lock_that_was_removed_while_it_was_opened_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    path = tmp_path / ".lock"
    monkeypatch.setattr(fcntl, "flock", lambda *_: path.unlink())
    with pytest.raises(Problem, match="taken"), lock(path, "taken"):
        pass


# -------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("first\nsecond"), "{path} cannot be read: first"),
        (KeyError("width"), "{path} cannot be read: 'width' is missing"),
        (RecursionError(), "{path} cannot be read: RecursionError"),
        (NotImplementedError("no such packing."), "{path} cannot be read: no such packing"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "{path} cannot be read: Input/output error"),
        (OSError("odd"), "{path} cannot be read: odd"),
        (Problem("says more"), "says more"),
    ],
)
def test_what_goes_wrong_in_reading_is_one_line_that_names_the_file(tmp_path: Path, error: Exception, message: str) -> None:
    with pytest.raises(Problem) as raised, reading(tmp_path / "file"):
        raise error
    assert str(raised.value) == message.format(path=tmp_path / "file")


def test_a_lack_of_memory_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(MemoryError), reading(tmp_path / "file"):
        raise MemoryError


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """A pipe that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path / "pipe", "no regular file"), (tmp_path, "a folder"), (Path("/dev/zero"), "no regular file")):
        for read in (read_json, sha256):
            with pytest.raises(Problem, match=f"^{path} cannot be read: it is {what}$"):
                read(path)
    with pytest.raises(Problem, match="No such file"):
        read_json(tmp_path / "absent")


def test_json_is_read_to_a_depth(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for depth in (64, 65, 100_000):
        path.write_text("[" * depth + "]" * depth)
        if depth == 64:
            assert read_json(path)
            continue
        with pytest.raises(Problem, match=f"^{path} cannot be read: it is nested deeper than 64 levels$"):
            read_json(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(Problem, match=f"^{path} cannot be read: 'utf-8' codec"):
        read_json(path)
