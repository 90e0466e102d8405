"""The desk: one request at a time, within limits; work stops within a step once its client has left."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lodestar.config import Problem
from lodestar.generators.request import Frame
from lodestar.web.calls import Call
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


class Slow(Call):
    """A call that counts its steps, and waits in each until it is told to go on."""

    def __call__(self, shelf: Shelf, callback: Callable[[Frame], None]) -> Any:
        def step(frame: Frame) -> None:
            STEPS.append(frame.step)
            GO.acquire(timeout=60)
            callback(frame)

        return super().__call__(shelf, step)


STEPS: list[int] = []
GO = threading.Semaphore(0)


def test_work_stops_within_a_step_and_the_next_request_is_answered(folder: Path, shelf: Shelf, tmp_path: Path) -> None:
    STEPS.clear()
    slow = Slow(str(folder / "plain.safetensors"), {"count": 1, "steps": "40"})
    (place := tmp_path / "job").mkdir()

    async def leave() -> list[Any]:
        desk = Desk(shelf, Limits())
        answer = desk.answer([slow], "a", place)
        while not STEPS:
            await anext(answer)
        await answer.aclose()
        GO.release(40)
        return await all_of(desk, [call(folder)], tmp_path / "next", "b")

    assert isinstance(asyncio.run(leave())[-1], Made)
    assert STEPS == [1]


def test_requests_beyond_the_limits_are_refused(folder: Path, shelf: Shelf, tmp_path: Path) -> None:
    def refused(limits: Limits, *calls: Call) -> str:
        with pytest.raises(Problem) as problem:
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
