"""Curves as SVG: log-SNR of schedules against network time with the levels of a plan on them, and any others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import torch
from torch import Tensor

from lodestar.core.level import Level

Point = tuple[float, float]
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM, _TOP = 420, 240, 48, 16, 34, 28
_TICKS = 5
_DRAWN = 200
"""Maximum number of points of a curve."""


def curve(table: Level) -> list[Point]:
    """Network time and log-SNR = 2·log(α/σ) of the noisy levels of a schedule's table, evenly thinned, without pure noise."""
    noisy = table[1:]
    assert isinstance(noisy.time, Tensor) and isinstance(noisy.half_logsnr, Tensor)
    places = torch.linspace(0, len(noisy) - 1, min(len(noisy), _DRAWN)).round().long()
    return _finite(zip(noisy.time[places].tolist(), (2 * noisy.half_logsnr)[places].tolist(), strict=True))


def points(levels: Sequence[Level]) -> list[Point]:
    """Network time and log-SNR of the levels that a sampler visits, clean data and pure noise left out."""
    return _finite((float(level.time), 2 * float(level.half_logsnr)) for level in levels)


def _finite(found: Iterable[Point]) -> list[Point]:
    return [(time, value) for time, value in found if math.isfinite(value)]


def svg(
    title: str,
    line: Sequence[Point],
    marks: Sequence[Point] = (),
    axes: tuple[str, str] = ("network time", "log-SNR"),
    buttons: Mapping[int, str] | None = None,
) -> str:
    """A curve as SVG, with marks on it; texts are escaped. buttons: numbers and names of the marks, which can then be pressed."""
    across, up = [x for x, _ in (*line, *marks)], [y for _, y in (*line, *marks)]
    left, right, low, high = min(across), max(across), min(up), max(up)

    def place(x: float, y: float) -> Point:
        return (
            _LEFT + (x - left) / ((right - left) or 1) * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - (y - low) / ((high - low) or 1) * (_HEIGHT - _BOTTOM - _TOP - 6),
        )

    def text(x: float, y: float, words: str, anchor: str) -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'

    parts = [text(_LEFT, 16, title, "start"), text(_WIDTH - _RIGHT, _HEIGHT - 4, axes[0], "end")]
    parts.append(text(4, _TOP, axes[1], "start"))
    for k in range(_TICKS):
        x, y = left + (right - left) * k / (_TICKS - 1), low + (high - low) * k / (_TICKS - 1)
        across_at, up_at = place(x, low)[0], place(left, y)[1]
        parts += [text(across_at, _HEIGHT - _BOTTOM + 14, f"{x:.3g}", "middle"), text(_LEFT - 5, up_at + 4, f"{y:.3g}", "end")]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
    parts.append(f'<polyline points="{drawn}" fill="none" stroke="#1f77b4" stroke-width="1.5"/>')
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#d62728"/>' for x, y in (place(*point) for point in marks)]
    for (number, name), (x, y) in zip((buttons or {}).items(), (place(*point) for point in marks), strict=False):
        told = f'role="button" tabindex="0" data-mark="{number}" aria-label="{escape(name)}"'
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="12" fill="transparent" {told}/>')
    said = "" if buttons else f'role="img" aria-label="{escape(title)}" '
    # On white, so that it can be read on the dark page of a notebook too.
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {said}{size} font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
    )
