"""Degradations: truths about each, that a picture depends on its own numbers alone, and what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lodestar.config import Problem, parse
from lodestar.degradations import BSR, KINDS, AnyDegradation, Area, Bilinear, Blur, Degradation, Drawn
from lodestar.degradations.base import normal
from lodestar.degradations.filters import Canvas, blurred, gaussian, resized
from lodestar.degradations.jpeg import jpeg

EVERY = [kind() for kind in KINDS.members]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, channels: int = 3, side: int = 32) -> Tensor:
    """Smooth pictures in [−1, 1], with some noise."""
    coarse = torch.rand(count, channels, 4, 4, generator=rng(1)) * 2 - 1
    x = F.interpolate(coarse, (side, side), mode="bicubic") + 0.05 * torch.randn(count, channels, side, side, generator=rng(2))
    return x.clamp(-1, 1)


@pytest.mark.parametrize("how", EVERY, ids=lambda how: how.kind)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_depends_on_its_own_numbers_alone(how: Degradation, channels: int) -> None:
    x = pictures(24, channels)
    drawn = how.draw(len(x), rng())
    how.check(channels, (32, 32), (8, 8))
    together = how(x, drawn, (8, 8))
    assert together.shape == (24, channels, 8, 8) and together.dtype == torch.float32
    assert together.min() >= -1 and together.max() <= 1
    assert torch.equal(how(x, drawn, (8, 8)), together)
    apart = torch.cat([how(x[rows], drawn[rows], (8, 8)) for rows in (slice(0, 1), slice(1, 7), slice(7, 24))])
    # A rounding of JPEG may fall to either side.
    far = ((apart - together).abs() > 1e-5).flatten(1).any(dim=1)
    assert far.sum() <= (2 if how.kind == "bsr" else 0)
    if how.uniforms:
        assert not torch.equal(how(x, how.draw(len(x), rng(5)), (8, 8)), together)


def test_areas_are_means_and_the_bilinear_filter_is_wider() -> None:
    x, nothing = pictures(2), Area().draw(2, rng())
    means = x.unflatten(3, (8, 4)).unflatten(2, (8, 4)).mean(dim=(3, 5))
    torch.testing.assert_close(Area()(x, nothing, (8, 8)), means)
    narrow = x[:, :, 1::4, 1::4] + x[:, :, 2::4, 1::4] + x[:, :, 1::4, 2::4] + x[:, :, 2::4, 2::4]
    torch.testing.assert_close(Bilinear(antialias=False)(x, nothing, (8, 8)), narrow / 4)
    wide = Bilinear()(x, nothing, (8, 8))
    assert (wide - means).abs().mean() < 0.1 < (wide - narrow / 4).abs().max()


def test_blur_is_that_of_its_kernel_for_its_share() -> None:
    x, how = torch.zeros(200, 1, 8, 8), Blur(low=0.6, high=0.6)
    x[:, :, 4:6, 4:6] = 1
    made = how(x, how.draw(len(x), rng()), (4, 4))[:, 0, 2, 2]
    assert made.unique().tolist() == pytest.approx([0.4452, 1.0], abs=1e-4)
    assert 70 < (made == 1).sum() < 130
    row = torch.exp(-torch.tensor([1.0, 0, 1]) / (2 * 0.36))
    torch.testing.assert_close(gaussian(torch.full((1, 2), 0.36), None, 3)[0], torch.outer(row, row) / row.sum() ** 2)


def test_a_blur_has_the_moments_of_its_gaussian() -> None:
    x = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    x[0, 0, 20, 20] = 1
    spread = torch.tensor([[6.0, 2.0]], dtype=torch.float64)
    made = blurred(x, gaussian(spread, torch.tensor([0.5], dtype=torch.float64), 25))[0, 0]
    offset = torch.arange(41, dtype=torch.float64) - 20
    down, right = torch.meshgrid(offset, offset, indexing="ij")
    along, across = right * np.cos(0.5) + down * np.sin(0.5), right * np.sin(0.5) - down * np.cos(0.5)
    assert float(made.sum()) == pytest.approx(1)
    assert float((made * along**2).sum()) == pytest.approx(6, rel=1e-3)
    assert float((made * across**2).sum()) == pytest.approx(2, rel=1e-3)


def test_pictures_of_different_sizes_share_a_canvas() -> None:
    x, sizes = torch.rand(3, 2, 20, 17, generator=rng()), ((20, 17), (7, 9), (3, 1))
    height, width = (torch.tensor(side) for side in zip(*sizes, strict=True))
    kernel = gaussian(torch.full((3, 2), 3.0), None, 13)
    ends = torch.tensor([8, 11, 5]), torch.tensor([5, 6, 7])
    for method in range(3):
        which = torch.full((3,), method)
        soft, other = blurred(Canvas(x, height, width), kernel), resized(Canvas(x, height, width), *ends, which).values
        for row, (h, w) in enumerate(sizes):
            alone = Canvas.of(x[row : row + 1, :, :h, :w])
            torch.testing.assert_close(soft[row, :, :h, :w], blurred(alone, kernel[row : row + 1])[0], rtol=0, atol=1e-5)
            end = [each[row : row + 1] for each in ends]
            mine = resized(alone, *end, which[:1]).values[0]
            torch.testing.assert_close(other[row, :, : end[0], : end[1]], mine, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("quality", [5, 30, 49, 50, 75, 95, 100])
@pytest.mark.parametrize("size", [(32, 48), (37, 51), (9, 10)])
def test_jpeg_is_as_lossy_as_the_library(mode: str, quality: int, size: tuple[int, int]) -> None:
    x = (pictures(1, 3 if mode == "RGB" else 1, 64)[0, :, : size[0], : size[1]] + 1) / 2
    stored = (x * 255).round().byte()
    file = io.BytesIO()
    Image.fromarray(stored.permute(1, 2, 0).squeeze(2).numpy()).save(file, "JPEG", quality=quality)
    theirs = torch.from_numpy(np.array(Image.open(file)).reshape(*size, -1)).permute(2, 0, 1).int()
    canvas = torch.rand(1, len(x), size[0] + 7, size[1] + 3, generator=rng())
    canvas[0, :, : size[0], : size[1]] = x
    made = jpeg(Canvas(canvas, *(torch.tensor([side]) for side in size)), torch.tensor([quality]))
    ours = (made[0, :, : size[0], : size[1]] * 255).round().int()
    # The library computes in whole numbers, so a coefficient may round to either side.
    assert (ours - theirs).abs().float().mean() < 1
    assert ((ours - theirs).abs() <= 2).float().mean() > 0.9
    if quality < 100:
        assert not torch.equal(ours, stored.int())


def test_bsr_neither_moves_nor_darkens_pictures() -> None:
    down, right = torch.meshgrid(torch.linspace(-0.8, 0.8, 64), torch.linspace(-0.8, 0.8, 64), indexing="ij")
    x = torch.stack([down, right, (down + right) / 2])[None].expand(600, -1, -1, -1)
    made = BSR()(x, BSR().draw(len(x), rng()), (16, 16))
    mean, expected = made.mean(dim=0), Area()(x[:1], BSR().draw(1, rng()), (16, 16))[0]
    # A pixel of the ramp is 0.1: a shift by a tenth would show in the middle, where no border is mirrored.
    assert (mean - expected)[:, 4:12, 4:12].mean(dim=(1, 2)).abs().max() < 0.006
    torch.testing.assert_close((made + 1) * 127.5, ((made + 1) * 127.5).round(), rtol=0, atol=1e-4)
    noise = (made - mean)[:, 2, 4:12, 4:12].std(dim=(1, 2))
    assert noise.min() < 0.03 and 0.1 < noise.max() < 0.4


def test_bsr_is_harsher_than_the_others() -> None:
    x = pictures(100, 3, 64)
    clean = Area()(x, Area().draw(100, rng()), (32, 32))
    far = [float((how(x, how.draw(100, rng()), (32, 32)) - clean).abs().mean()) for how in EVERY]
    assert far[0] == 0 and 0 < 3 * max(far[1:3]) < far[3]


def test_further_numbers_are_of_their_seeds_alone() -> None:
    seeds = torch.tensor([5, 7, 5])
    first, second, third = normal(seeds, (3, 40, 40))
    assert torch.equal(first, third) and not torch.equal(first, second)
    assert abs(float(first.mean())) < 0.05 and float(first.std()) == pytest.approx(1, abs=0.05)
    drawn = Drawn(torch.rand(4, 2), torch.arange(4))
    assert drawn[1:3].seed.tolist() == [1, 2] and len(drawn[1:3].uniform) == 2


@pytest.mark.parametrize(
    ("channels", "large", "small", "said"),
    [
        (3, (32, 32), (12, 12), "by a whole number of 2 or more, the same in height and width: not 12×12 from 32×32"),
        (3, (32, 64), (16, 16), "not 16×16 from 32×64"),
        (3, (32, 32), (32, 32), "not 32×32 from 32×32"),
        (4, (32, 32), (16, 16), "degradation bsr compresses grey or coloured pictures: these have 4 channels"),
    ],
)
def test_bsr_refuses_what_it_cannot_shrink(channels: int, large: tuple[int, int], small: tuple[int, int], said: str) -> None:
    with pytest.raises(Problem, match=said):
        BSR().check(channels, large, small)
    Area().check(channels, large, small)


def test_they_are_written_as_texts_and_refused_in_one_line() -> None:
    assert parse("degradation", "blur:0.5,1", AnyDegradation) == Blur(low=0.5, high=1.0)
    with pytest.raises(Problem, match=r"low is 0.9, above high 0.6"):
        Blur(low=0.9)
    with pytest.raises(Problem, match=r"kernel is 4: an odd number has a middle"):
        Blur(kernel=4)
    with pytest.raises(Problem, match=r"'bs'.*did you mean 'bsr'"):
        parse("degradation", "bs", AnyDegradation)
