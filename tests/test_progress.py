"""What is said beforehand of how long work takes."""

from __future__ import annotations

import pytest

from lodestar.progress import Forecast, span


class Clock:
    """A clock that goes on by what it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def told(seconds: list[float], total: float = 1000) -> list[float | None]:
    """What a forecast says after parts of ten units that take so long."""
    clock = Clock()
    forecast, said = Forecast(total, clock), []
    for number, each in enumerate(seconds, 1):
        clock.now += each
        said.append(forecast(10 * number))
    return said


def test_the_time_left_is_told_once_from_what_parts_take_but_the_first() -> None:
    assert told([60, 2, 2, 2]) == [None, None, pytest.approx(2 / 10 * 970), None]
    assert told([60, 5]) == [None, pytest.approx(5 / 10 * 980)]


def test_of_what_is_over_in_seconds_nothing_is_said() -> None:
    assert told([1.0] * 3) == [None] * 3


def test_what_was_done_before_does_not_count() -> None:
    clock = Clock()
    forecast = Forecast(1000, clock)
    assert forecast(910) is None
    clock.now += 4
    assert forecast(930) == pytest.approx(4 / 20 * 70)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.3, "about 2 seconds"),
        (42.4, "about 42 seconds"),
        (100, "about 1.7 minutes"),
        (1500, "about 25 minutes"),
        (6000, "about 1.7 hours"),
        (36_000, "about 10 hours"),
        (200_000, "about 2.3 days"),
        (3e6, "about 35 days"),
    ],
)
def test_lengths_of_time_are_in_words(seconds: float, text: str) -> None:
    assert span(seconds) == text
