"""Results at addresses: whole or absent, resumed from the store alone, and the same as in a folder."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lodestar
from lodestar import checkpoint, results
from lodestar.__main__ import main
from lodestar.config import Problem
from lodestar.evaluation import sweep, trilemma
from lodestar.files import STORES, changed, remove, write_text
from lodestar.results import Results, results_folder
from lodestar.tasks.denoise import DenoiseLearner
from lodestar.training.loop import train
from tests.evaluation import tiny
from tests.training.runs import assert_same, denoising, write_pictures


@pytest.fixture(autouse=True)
def _process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))
    yield
    ended()


class _KilledError(BaseException):
    """Ends a command as a kill does: nothing can be written afterwards."""


def ended() -> None:
    """The end of a process: its working folders go."""
    results._held.close()
    assert not STORES


def at_put(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Let the copy of a file into a store, and all further ones, be ended in its middle by `act`."""
    copied, count = shutil.copyfileobj, 0

    def copy(file: Any, there: Any, length: int = 0) -> None:
        nonlocal count
        if count >= number:
            there.write(file.read(10))
            act()
        count += 1
        copied(file, there, length)

    monkeypatch.setattr(shutil, "copyfileobj", copy)


def killed() -> None:
    raise _KilledError


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def held(url: str) -> dict[str, bytes]:
    """The files at an address."""
    folder = results_folder(url)
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    ended()
    return found


def test_a_file_is_whole_or_absent_and_goes_from_the_store_too(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{bucket}/some/results"
    folder = results_folder(url)
    assert results_folder(f"{url}/") == folder and results_folder(folder) == folder
    for name, text in (("a.txt", "one"), ("in/b.txt", "two"), ("in/c.txt", "three")):
        write_text(folder / name, text)
    with monkeypatch.context() as patched:
        at_put(patched, 0, full)
        for name in ("a.txt", "new.txt"):
            with pytest.raises(Problem, match=rf"^{url}/{name} cannot be written: No space left on device$"):
                write_text(folder / name, "a longer text than before")
    remove(folder / "in/c.txt")
    ended()
    assert not folder.exists() and held(url) == {"a.txt": b"one", "in/b.txt": b"two"}
    remove(results_folder(url) / "in")
    ended()
    assert held(url) == {"a.txt": b"one"}


def test_a_store_that_takes_nothing_is_refused_before_any_work(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise PermissionError(errno.EACCES, "Access Denied")

    at_put(monkeypatch, 0, refuse)
    with pytest.raises(Problem, match=rf"^{bucket}/run/\S+ cannot be written: Access Denied$"):
        results_folder(f"{bucket}/run")
    with pytest.raises(Problem, match="nostore://run cannot be opened"):
        results_folder("nostore://run")


def test_two_commands_at_one_address_are_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = results_folder(f"{bucket}/run")
    monkeypatch.setattr("lodestar.results.STORES", {})
    with pytest.raises(Problem, match=f"another process of this machine writes to {bucket}/run"):
        results_folder(f"{bucket}/run")
    assert folder.exists()


@pytest.mark.parametrize("number", [1, 4, 8, 11])
def test_a_killed_run_goes_on_from_the_store_alone(
    bucket: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DenoiseLearner, "preview", lambda _: None)
    run = denoising(write_pictures(tmp_path / "pictures"), images=48, save_every=16, log_every=16, keep=2)
    train(run, tmp_path / "whole")
    url = f"{bucket}/run"
    with monkeypatch.context() as patched:
        at_put(patched, number, killed)
        with pytest.raises(_KilledError):
            train(run, results_folder(url))
    ended()
    train(run, results_folder(url))
    assert_same(tmp_path / "whole", results_folder(url))
    ended()
    states = [name for name in held(url) if name.startswith("state")]
    assert sorted(states) == ["state-000000000032.safetensors", "state.safetensors"], "earlier ones are gone from the store"


@pytest.mark.parametrize("behind", [False, True])
def test_a_store_that_is_full_ends_the_run_in_one_line(
    bucket: str, behind: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = denoising(write_pictures(tmp_path / "pictures"), images=48, save_every=16, log_every=16, save_behind=behind)
    at_put(monkeypatch, 4, full)
    with pytest.raises(Problem, match=rf"^{bucket}/run/\S+ cannot be written: No space left on device$"):
        train(run, results_folder(f"{bucket}/run"))


def command(*words: object) -> None:
    """A command, as a process of its own ends it."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert not end.value.code
    ended()


@pytest.mark.parametrize("more", [(), ("--npz",)])
def test_sampling_goes_on_from_the_store_alone_and_makes_no_picture_twice(
    bucket: str, more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path / "model.safetensors")
    asked = ("sample", model, "--label", "dog=6", "--steps", 2, "--batch-size", 2, *more)
    command(*asked, "--out", tmp_path / "out")
    url, puts = f"{bucket}/out", list[str]()
    with monkeypatch.context() as patched:
        at_put(patched, 5, killed)  # the store's check, the manifest, three pictures
        with pytest.raises(_KilledError):
            main([str(word) for word in (*asked, "--out", url)])
    ended()
    with monkeypatch.context() as patched:
        put = Results.__call__
        patched.setattr(Results, "__call__", lambda self, path: (puts.append(path.name), put(self, path)))
        command(*asked, "--out", url)
    assert [name for name in puts if name[0] == "0"] == ["00003.png", "00004.png", "00005.png"]
    there = {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    assert held(url) == there
    assert capsys.readouterr().out.splitlines()[-1] == f"{url}/{'samples.npz' if more else 'grid.png'}"


def test_the_best_of_several_are_chosen_at_an_address_from_candidates_beside_it(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = tiny.classifier()
    checkpoint.save(tmp_path / "judge.safetensors", "classifier", judge.config.to_json(), judge.state_dict(), {})
    given = ("--label", "dog=2", "--best-of", 3, "--judge", tmp_path / "judge.safetensors", "--steps", 2, "--batch-size", 2)
    asked = ("sample", saved(tmp_path / "model.safetensors"), *given)
    command(*asked, "--out", tmp_path / "out")
    url, puts = f"{bucket}/out", list[str]()
    with monkeypatch.context() as patched:
        at_put(patched, 5, killed)  # the check of both places, the manifest, two candidates
        with pytest.raises(_KilledError):
            main([str(word) for word in (*asked, "--out", url)])
    ended()
    put = Results.__call__
    monkeypatch.setattr(Results, "__call__", lambda self, path: (puts.append(f"{self.url}/{path.name}"), put(self, path)))
    command(*asked, "--out", url)
    told = Counter(name.removeprefix(f"{url}-candidates/") for name in puts if "-candidates/0" in name)
    assert told == {f"0000{number}.png": 1 + (number >= 2) for number in range(6)}, "four are made, and all six are removed"
    assert held(url) == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert held(f"{url}-candidates") == {}
    puts.clear()
    command(*asked, "--out", url)
    assert {name.rpartition("/")[2] for name in puts if not name.endswith(".tmp")} == {"grid.png"}


@pytest.mark.parametrize("place", ["run/model.safetensors", "run", "run/"])
def test_a_model_is_read_from_an_address(bucket: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved(tmp_path / "model.safetensors")
    (results_folder(f"{bucket}/run") / "model.safetensors").write_bytes(model.read_bytes())
    changed(results_folder(f"{bucket}/run") / "model.safetensors")
    ended()
    asked = ("--label", "dog=2", "--steps", 2, "--out")
    command("sample", model, *asked, tmp_path / "out")
    command("sample", f"{bucket}/{place}", *asked, tmp_path / "there")
    command("remake", tmp_path / "there", "--picture", 1, "--out", tmp_path / "again")
    one, two = ((tmp_path / name / "00001.png").read_bytes() for name in ("out", "there"))
    assert one == two == (tmp_path / "again" / "00001.png").read_bytes()
    for other, told in (
        ("none.safetensors", f"{bucket}/none.safetensors cannot be read: "),
        ("a.bundle.json", f"{bucket}/a.bundle.json is a bundle, and its parts are files beside it"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["sample", f"{bucket}/{other}", "--count", "1"])
        assert end.value.code == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"lodestar: {told}")


def test_a_problem_of_a_store_is_one_line_of_the_command(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_text(results_folder(f"{bucket}/out") / "other.txt", "something else")
    ended()
    with pytest.raises(SystemExit):
        main(["sample", str(saved(tmp_path / "model.safetensors")), "--out", f"{bucket}/out"])
    told = f"lodestar: {bucket}/out exists and holds no pictures of this kind: choose another --out"
    assert capsys.readouterr().err.splitlines()[-1] == told
    with pytest.raises(SystemExit):
        main(["sample", str(tmp_path / "model.safetensors"), "--out", "nostore://out"])
    assert capsys.readouterr().err.startswith("lodestar: nostore://out cannot be opened: ")


def test_a_report_is_put_at_its_address(bucket: str, tmp_path: Path) -> None:
    made = tiny.classifier(2)
    checkpoint.save(tmp_path / "extractor.safetensors", "classifier", made.config.to_json(), made.state_dict(), {})
    against = ("--reference", tiny.folder(tmp_path / "reference", 12), "--extractor", tmp_path / "extractor.safetensors")
    model = saved(tmp_path / "model.safetensors")
    asked = ("evaluate", model, "--count", 8, "--steps", 2, *against, "--metric", "frechet", "--out", f"{bucket}/measured")
    command(*asked)
    assert set(held(f"{bucket}/measured")) == {"report.json"}


def test_pictures_are_told_at_their_address(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, album = saved(tmp_path / "model.safetensors"), tmp_path / "album"
    command("sample", model, "--count", 1, "--steps", 2, "--out", album)
    for words, name in (
        (("edit", "sdedit", model, album / "00000.png", "--steps", 2), "grid.png"),
        (("remake", album, "--picture", 0), "00000.png"),
    ):
        capsys.readouterr()
        command(*words, "--out", f"{bucket}/{words[0]}")
        assert capsys.readouterr().out.splitlines()[-1] == f"{bucket}/{words[0]}/{name}"
        assert name in held(f"{bucket}/{words[0]}")


def test_every_folder_of_python_may_be_at_an_address(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawing takes longer than the rest, and has tests of its own.
    monkeypatch.setattr(trilemma, "marked", lambda path, *_: write_text(path, ""))
    monkeypatch.setattr(sweep, "curves", lambda path, *_: write_text(path, ""))
    model, given = str(saved(tmp_path / "model.safetensors")), {"count": 8}
    against: Any = {"reference": tiny.reference(), "extractor": tiny.extractor()}
    for call, name in (
        (lambda out: lodestar.sweep(model, over="steps=2", out=out, **given, **against), "sweep.csv"),
        (lambda out: lodestar.compare(f"{model},steps=2", out=out, **given, **against), "compare.json"),
        (lambda out: lodestar.bpd(model, tiny.reference(), out=out, steps="logsnr:3", ode=False, **given), "report.json"),
    ):
        call(f"{bucket}/{name}")
        ended()
        assert name in held(f"{bucket}/{name}")
        assert not list(Path().glob("memory:*"))


def saved(path: Path) -> Path:
    """A small model in a file."""
    made = tiny.diffusion()
    checkpoint.save(path, "diffusion", made.config.to_json(), made.state_dict(), {})
    return path
