"""The desk: one request at a time, within limits; work stops within a step once its client has left."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lodestar.config import Problem
from lodestar.generators.request import Frame
from lodestar.generators.samples import Samples
from lodestar.web.calls import Call, make
from lodestar.web.desk import Desk, Made, Preview, Waiting
from lodestar.web.requests import Limits
from lodestar.web.shelf import Shelf


@pytest.fixture
def shelf(folder: Path) -> Shelf:
    return Shelf([folder])


def call(folder: Path, steps: int = 4, count: int = 2, **more: Any) -> Call:
    return Call(str(folder / "plain.safetensors"), {"count": count, "steps": str(steps)}, **more)


async def all_of(desk: Desk, calls: list[Call], place: Path, client: str = "a") -> list[Any]:
    place.mkdir(exist_ok=True)
    return [news async for news in desk.answer(calls, client, place) if news is not None]


def test_previews_come_and_then_the_pictures_with_their_archive(folder: Path, shelf: Shelf, tmp_path: Path) -> None:
    news = asyncio.run(all_of(Desk(shelf, Limits()), [call(folder), call(folder, count=1, title="b")], tmp_path / "job"))
    *before, made = news
    assert isinstance(made, Made) and [len(each) for each in made.samples] == [2, 1]
    assert any(isinstance(each, Preview) for each in before) and isinstance(before[0], Waiting | Preview)
    names = set(zipfile.ZipFile(made.archive).namelist())
    assert {"pictures-1/00001.png", "pictures-1/manifest.json", "pictures-2/00000.png", "again.sh"} <= names
    assert not any(name.endswith(".zip") for name in names)


class Gate:
    """Lets no step pass until it is told to; steps are counted, and the numbers of calls that were made together."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps: list[int] = []
        self.together: list[int] = []
        self.go = threading.Semaphore(0)
        patch.setattr("lodestar.web.desk.make", self.make)

    def make(self, calls: Sequence[Call], shelf: Shelf, callback: Callable[[int, Frame], None]) -> list[Samples]:
        self.together.append(len(calls))

        def step(number: int, frame: Frame) -> None:
            self.steps.append(frame.step)
            self.go.acquire(timeout=60)
            callback(number, frame)

        return make(calls, shelf, step)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def test_work_stops_within_a_step_and_the_next_request_is_answered(
    folder: Path, shelf: Shelf, tmp_path: Path, gate: Gate
) -> None:
    (place := tmp_path / "job").mkdir()

    async def leave() -> list[Any]:
        desk = Desk(shelf, Limits())
        answer = desk.answer([call(folder, 40)], "a", place)
        while not gate.steps:
            await anext(answer)
        await answer.aclose()
        gate.go.release(100)
        return await all_of(desk, [call(folder)], tmp_path / "next", "b")

    assert isinstance(asyncio.run(leave())[-1], Made)
    assert gate.steps == [1, *range(1, 5)]


def test_requests_that_differ_in_seed_and_count_alone_are_made_together(
    folder: Path, shelf: Shelf, tmp_path: Path, gate: Gate
) -> None:
    """Behind one at work; what one of them needs of another model is made apart, and one that is left ends alone."""
    plain = str(folder / "plain.safetensors")
    asked = [{"count": 2, "seed": 5}, {"count": 3}, {"count": 1, "seed": 9}, {"count": 1, "label": ["dog"]}, {"count": 7}]
    calls = [Call(plain, {"steps": "4", **given}) for given in asked]

    async def crowd() -> list[Any]:
        desk = Desk(shelf, Limits(each=9))
        first = asyncio.create_task(all_of(desk, [call(folder, 3)], tmp_path / "first"))
        while not gate.steps:
            await asyncio.sleep(0.01)
        (tmp_path / "left").mkdir()
        left = desk.answer([Call(plain, {"steps": "4", "count": 1, "seed": 77})], "b", tmp_path / "left")
        await anext(left)
        tasks = [asyncio.create_task(all_of(desk, [each], tmp_path / f"{k}")) for k, each in enumerate(calls)]
        await asyncio.sleep(0)
        gate.go.release(3)  # the first one's
        while len(gate.together) < 2:
            await asyncio.sleep(0.01)
        await left.aclose()
        gate.go.release(1_000)
        return [*await asyncio.gather(first, *tasks)][1:]

    news = asyncio.run(crowd())
    assert gate.together == [1, 4, 1, 1], "1 of the left, 2, 3 and 1 pictures; another label; seven more are too many"
    for made, one in zip(news, calls, strict=True):
        (alone,) = make([one], shelf, lambda number, frame: None)
        assert torch.equal(made[-1].samples[0].images, alone.images) and made[-1].samples[0].request == alone.request
        assert {len(each.images) for each in made if isinstance(each, Preview)} == {one.count}


def test_the_error_of_a_batch_is_told_to_all_of_it(folder: Path, shelf: Shelf, tmp_path: Path, gate: Gate) -> None:
    async def crowd() -> list[Any]:
        desk = Desk(shelf, Limits())
        first = asyncio.create_task(all_of(desk, [call(folder, 3)], tmp_path / "first"))
        await asyncio.sleep(0)
        wrong = [Call(str(folder / "plain.safetensors"), {"count": 1, "label": ["dgo"], "seed": k}) for k in range(2)]
        tasks = [asyncio.create_task(all_of(desk, [each], tmp_path / f"{k}")) for k, each in enumerate(wrong)]
        gate.go.release(3)
        return await asyncio.gather(first, *tasks, return_exceptions=True)

    _, *errors = asyncio.run(crowd())
    assert gate.together == [1, 2] and all("did you mean 'dog'" in str(each) for each in errors)


def test_notes_are_those_of_the_work_alone(folder: Path, shelf: Shelf, tmp_path: Path, gate: Gate) -> None:
    """While other requests are checked, on other threads."""
    noting = Call(str(folder / "told.safetensors"), {"count": 1, "steps": "2", "prompt": [" "]})

    async def meanwhile() -> list[Any]:
        desk = Desk(shelf, Limits())
        task = asyncio.create_task(all_of(desk, [noting], tmp_path / "job"))
        while not gate.steps:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(desk.check, [Call(noting.model, {**noting.given, "prompt": ["\t"]})])
        gate.go.release(2)
        return await task

    (note,) = asyncio.run(meanwhile())[-1].notes
    assert note.startswith("prompt ' ' is empty")


def test_requests_beyond_the_limits_are_refused(folder: Path, shelf: Shelf, tmp_path: Path) -> None:
    def refused(limits: Limits, *calls: Call) -> str:
        with pytest.raises(Problem) as problem:
            Desk(shelf, limits).check(calls)
            asyncio.run(all_of(Desk(shelf, limits), list(calls), tmp_path / "job"))
        return str(problem.value)

    two = call(folder)
    assert refused(Limits(pictures=3), two, two) == "this makes 4 pictures: 3 are the most here"
    assert refused(Limits(steps=3), two) == "this takes 4 steps: 3 are the most here"
    assert "this takes longer than 1e-09 seconds" in refused(Limits(seconds=1e-9), two)


def test_clients_wait_in_turn_and_each_has_a_limit(folder: Path, shelf: Shelf, tmp_path: Path) -> None:
    async def crowd() -> tuple[list[Any], list[str]]:
        desk = Desk(shelf, Limits(each=2, waiting=3))
        said = []
        first = [
            asyncio.create_task(all_of(desk, [call(folder, 10)], tmp_path / f"{k}", client)) for k, client in enumerate("aab")
        ]
        await asyncio.sleep(0)
        for client in "ac":
            with contextlib.suppress(Problem):
                await all_of(desk, [call(folder)], tmp_path / "more", client)
                said.append("answered")
        news = await asyncio.gather(*first)
        with contextlib.suppress(Problem):
            await all_of(desk, [call(folder)], tmp_path / "more", "a")
            said.append("answered later")
        return news, said

    news, said = asyncio.run(crowd())
    assert all(isinstance(each[-1], Made) for each in news) and said == ["answered later"]
    assert next(each.before for each in news[2] if isinstance(each, Waiting)) == 2
