"""BSR: blur, resizing, noise and JPEG in random order, a model of pictures as they are found (BSRGAN, Zhang et al. 2021).

Section 3 of "Designing a Practical Degradation Model for Deep Blind Image Super-Resolution", with the numbers of its published
code, but for its camera model, whose weights it does not have. DALL·E 2's second upsampler and latent diffusion's are trained so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, Self

import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.degradations.base import Degradation, Drawn, Size, normal
from lodestar.degradations.filters import METHODS, Canvas, blurred, gaussian, matrices, matrix, mixed, resized, shifted, smooth
from lodestar.degradations.jpeg import jpeg

_HALVED, _HALVED_ANYHOW = 0.25, 0.5
"""Share of pictures shrunk by 4 that are halved first, and of those halved by a random method."""
_SKEWED = 0.5
"""Share of blurs by a Gaussian of two widths."""
_KERNELS = range(7, 26, 2)
"""Heights and widths of kernels in pixels."""
_MIDDLE = _KERNELS[len(_KERNELS) // 2] // 2
"""Reach of a middling kernel."""
_TWICE = 0.75
"""Share of pictures resized twice, and not by taking every nth pixel."""
_COMPRESSED = 0.9
"""Share of pictures with JPEG twice."""
_QUALITY = range(30, 96)
_NOISE = range(2, 26)
"""Standard deviations of the noise, in 255ths."""
_GREY, _SINGLE = 0.4, 0.6
"""Noise is equal in all channels below the first, independent above the second, and correlated in between."""
_TOGETHER = 2**19
"""Pixels of pictures at once: few enough to be near the processor, and many enough for it to be busy with them alone."""

Steps = Literal["blur", "again", "noise", "jpeg"]
_STEPS: tuple[Steps, ...] = ("blur", "again", "noise", "jpeg")
"""The steps around the two resizings."""


@dataclass(frozen=True)
class _Plan:
    """The random decisions for pictures, one for each in the first dimension."""

    halved: Tensor
    anyhow: Tensor
    halving: Tensor
    order: Tensor
    """Position of each of `_STEPS`, float32 [B, 4]."""
    resizings: Tensor
    """Position of the two resizings, float32 [B, 2]."""
    skewed: Tensor
    variance: Tensor
    """Variances of blurs [B, 2, 2], as shares of the largest; where not skewed, the first is the standard deviation's share."""
    angle: Tensor
    reach: Tensor
    """Blurs' angles, and the kernels' reaches [B, 2]."""
    twice: Tensor
    shrinking: Tensor
    """First resizing's factor, as a share of the way to its largest."""
    methods: Tensor
    """Numbers of the two resizings' methods [B, 2]."""
    softness: Tensor
    """Standard deviation of the blur before every nth pixel is taken, as a share of the largest."""
    deviation: Tensor
    grey: Tensor
    single: Tensor
    colours: Tensor
    """Variances [B, C] and a random matrix [B, C, C], of correlated noise."""
    mixing: Tensor
    compressed: Tensor
    quality: Tensor
    """Qualities of JPEG on the way and at the end [B, 2]."""
    seed: Tensor
    """Seed of the noise."""

    @classmethod
    def of(cls, drawn: Drawn, channels: int) -> Self:
        """The decisions by the numbers drawn."""
        left = iter(drawn.uniform.unbind(1))

        def take(count: int) -> Tensor:
            return torch.stack([next(left) for _ in range(count)], dim=1)

        def among(numbers: Tensor, choices: range) -> Tensor:
            return choices.start + choices.step * (numbers * len(choices)).long().clamp(max=len(choices) - 1)

        return cls(
            halved=next(left) < _HALVED,
            anyhow=next(left) < _HALVED_ANYHOW,
            halving=among(next(left), range(len(METHODS))),
            order=take(len(_STEPS)),
            resizings=take(2).sort(dim=1)[0],
            skewed=take(2) < _SKEWED,
            variance=take(4).unflatten(1, (2, 2)),
            angle=take(2) * math.pi,
            reach=among(take(2), _KERNELS) // 2,
            twice=next(left) < _TWICE,
            shrinking=next(left),
            methods=among(take(2), range(len(METHODS))),
            softness=next(left),
            deviation=among(next(left), _NOISE) / 255,
            grey=(kind := next(left)) < _GREY,
            single=kind > _SINGLE,
            colours=take(channels),
            mixing=take(channels * channels).unflatten(1, (channels, channels)),
            compressed=next(left) < _COMPRESSED,
            quality=among(take(2), _QUALITY),
            seed=drawn.seed,
        )

    def __getitem__(self, rows: Tensor) -> Self:
        return type(self)(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})


class BSR(Degradation):
    """The degradation of BSRGAN."""

    kind: Literal["bsr"] = "bsr"

    @property
    def uniforms(self) -> int:
        return 43

    def check(self, channels: int, large: Size, small: Size) -> None:
        factor = large[0] // small[0]
        if factor < 2 or (small[0] * factor, small[1] * factor) != large:
            sizes = " from ".join(f"{height}×{width}" for height, width in (small, large))
            raise Problem(f"degradation bsr shrinks by a whole number of 2 or more, the same in height and width: not {sizes}")
        if channels not in (1, 3):
            raise Problem(f"degradation bsr compresses grey or coloured pictures: these have {channels} channels")

    def __call__(self, x: Tensor, drawn: Drawn, size: Size) -> Tensor:
        factor, plan = x.shape[2] // size[0], _Plan.of(drawn, x.shape[1])
        small = x.new_empty(*x.shape[:2], *size)
        for halved in (False, True):
            rows = torch.nonzero(plan.halved if halved else ~plan.halved).flatten() if factor == 4 else None
            if rows is None:
                rows = torch.arange(0 if halved else len(x), device=x.device)
            # Pictures that shrink alike on the way are together.
            rows = rows[torch.where(plan.twice, plan.shrinking, 0.5)[rows].argsort()]
            for some in rows.split(max(_TOGETHER // (x.shape[2] * x.shape[3]), 1)) if len(rows) else ():
                picture, own = (x[some] + 1) / 2, plan[some]
                begun = _halved(picture, own) if halved else Canvas.of(picture)
                small[some] = _degraded(begun, own, factor // 2 if halved else factor, size)
        return (small * 255).round() / 127.5 - 1


def _halved(pictures: Tensor, plan: _Plan) -> Canvas:
    """Pictures [B, C, H, W] of half the height and width."""
    canvas = Canvas.of(pictures)
    height, width = canvas.height // 2, canvas.width // 2
    made = resized(canvas, height, width, plan.halving)
    rows, columns = (
        matrix(smooth(old, new, int(new[0])), int(old[0])) for old, new in ((canvas.height, height), (canvas.width, width))
    )
    values = torch.where(plan.anyhow[:, None, None, None], made.values, matrices(pictures, rows, columns))
    return Canvas(values.clamp(0, 1), height, width)


def _degraded(canvas: Canvas, plan: _Plan, factor: int, size: Size) -> Tensor:
    """The small pictures [B, C, *size] of large ones."""
    place = torch.searchsorted(plan.resizings, plan.order)
    canvas = _steps(canvas, plan, factor, place == 0)
    canvas = _first(canvas, plan, factor)
    canvas = _steps(canvas, plan, factor, place == 1)
    end = [torch.full_like(canvas.height, side) for side in size]
    canvas = _clamped(resized(canvas, end[0], end[1], plan.methods[:, 1]))
    canvas = _steps(canvas, plan, factor, place == 2)
    return jpeg(canvas, plan.quality[:, 1])


def _clamped(canvas: Canvas) -> Canvas:
    return Canvas(canvas.values.clamp(0, 1), canvas.height, canvas.width)


def _steps(canvas: Canvas, plan: _Plan, factor: int, here: Tensor) -> Canvas:
    """The pictures after those of their `_STEPS` that are taken here, bool [B, 4], in their order; changed in place."""
    after = torch.where(here, plan.order, torch.inf).argsort(dim=1)
    for turn in range(int(here.sum(dim=1).max())):
        for number, step in enumerate(_STEPS):
            rows = torch.nonzero((after[:, turn] == number) & here[:, number]).flatten()
            if step == "jpeg":
                rows = rows[plan.compressed[rows]]
            # Small kernels need small margins.
            narrow = plan.reach[rows, number] < _MIDDLE if step in ("blur", "again") else torch.ones_like(rows, dtype=torch.bool)
            for part in (rows[narrow], rows[~narrow]):
                if len(part):
                    some = canvas[part]
                    height, width = some.values.shape[2:]
                    canvas.values[part, :, :height, :width] = _stepped(some, plan[part], step, factor)
    return canvas


def _stepped(canvas: Canvas, plan: _Plan, step: Steps, factor: int) -> Tensor:
    """The pictures [B, C, H, W] after one step."""
    if step == "noise":
        return _noisy(canvas.values, plan)
    if step == "jpeg":
        return jpeg(canvas, plan.quality[:, 0])
    return blurred(canvas, _kernels(plan, _STEPS.index(step), factor))


def _kernels(plan: _Plan, which: int, factor: int) -> Tensor:
    """Kernels of a blur [B, side, side], of sizes drawn and of Gaussians of one width or two."""
    shares, reach = plan.variance[:, which], plan.reach[:, which]
    skewed, round_ = (4 + factor) * shares, ((2 + 0.2 * factor) * shares[:, :1]).square().expand(-1, 2)
    variance = torch.where(plan.skewed[:, which, None], skewed, round_)
    return gaussian(variance, plan.angle[:, which], 2 * int(reach.max()) + 1, reach)


def _first(canvas: Canvas, plan: _Plan, factor: int) -> Canvas:
    """The first resizing: by a random factor, or every nth pixel of a blurred picture."""
    by = 1 + (2 * factor - 1) * plan.shrinking.double()
    height, width = ((side / by).long().clamp(min=1) for side in (canvas.height, canvas.width))
    height, width = (
        torch.where(plan.twice, some, (side + factor - 1) // factor)
        for some, side in ((height, canvas.height), (width, canvas.width))
    )
    values = canvas.values.new_zeros(*canvas.values.shape[:2], int(height.max()), int(width.max()))
    for twice in (True, False):
        rows = torch.nonzero(plan.twice == twice).flatten()
        if not len(rows):
            continue
        some = canvas[rows]
        if twice:
            made = resized(some, height[rows], width[rows], plan.methods[rows, 0]).values
        else:
            sigma = 0.1 + (0.6 * factor - 0.1) * plan.softness[rows]
            kernel = gaussian(sigma.square()[:, None].expand(-1, 2), None, _KERNELS[-1])
            made = blurred(some, shifted(kernel, (factor - 1) / 2))[:, :, ::factor, ::factor]
        values[rows, :, : made.shape[2], : made.shape[3]] = made
    return _clamped(Canvas(values, height, width))


def covariance(variances: Tensor, mixing: Tensor) -> Tensor:
    """Covariances [B, C, C] of correlated noise in units of its largest variance, of variances [B, C] and matrices [B, C, C]."""
    basis = torch.linalg.svd(mixing)[0]
    made: Tensor = basis.mT @ torch.diag_embed(variances) @ basis
    return made.abs()


def _noisy(values: Tensor, plan: _Plan) -> Tensor:
    """Pictures with noise of the kind and strength drawn."""
    channels = values.shape[1]
    single = torch.eye(channels, device=values.device).expand(len(values), -1, -1)
    grey = torch.zeros_like(single)
    grey[:, :, 0] = 1
    weights = torch.where(plan.grey[:, None, None], grey, single) * plan.deviation[:, None, None]
    rows = torch.nonzero(~(plan.grey | plan.single)).flatten()
    if len(rows):
        scale, basis = torch.linalg.eigh(covariance(plan.colours[rows], plan.mixing[rows]).double())
        root = (basis * scale.clamp(min=0).sqrt()[:, None]) @ basis.mT * (_NOISE[-1] / 255)
        weights[rows] = root.float()
    return (values + mixed(normal(plan.seed, values.shape[1:]), weights)).clamp(0, 1)
