"""Pictures of any size, enlarged in overlapping tiles: exact weights, no dependence on batches, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from lodestar.cli import app
from lodestar.config import Note, Problem
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level
from lodestar.generators.edits import Upsample
from lodestar.generators.edits.tiles import Tiling, tiled
from lodestar.images import load_png, save_png
from tests.evaluation.tiny import classifier, diffusion

LEVEL = Level(3.0, 0.8, 0.6)
MODEL = diffusion(low_res=(4, 4), classes=None)
pytestmark = pytest.mark.filterwarnings("ignore::lodestar.config.Note")


def pictures(height: int, width: int, count: int = 1, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=rng)


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (9, 17), (64, 4), (23, 41)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6, 0.9])
def test_weights_sum_to_one_at_every_place(size: tuple[int, int], overlap: float) -> None:
    tiling = Tiling(size, (4, 4), 2, overlap)
    total = torch.zeros(1, 1, *tiling.result)
    for corner in tiling.corners:
        tiling.large(total, corner).add_(tiling.weights(corner))
        assert tiling.small(torch.zeros(1, 1, *size), corner).shape == (1, 1, 4, 4)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
    for side, starts in zip(size, map(sorted, map(set, zip(*tiling.corners, strict=True))), strict=True):
        assert starts[0] == 0 and starts[-1] == side - 4
        assert all(later - before <= max(1, 4 - np.ceil(overlap * 4)) for before, later in itertools.pairwise(starts))


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_tiles_of_a_denoiser_that_looks_at_each_place_are_the_whole(at_once: int) -> None:
    tiling, batches = Tiling((9, 13), (4, 4), 2, 0.25), list[int]()
    x = torch.randn(1, 3, *tiling.result, generator=torch.Generator().manual_seed(0))

    def denoise(x: Tensor, level: Level) -> Estimate:
        batches.append(len(x))
        return Estimate(x, level, x.tanh(), frac=x.cos(), shift=x**2, unclipped=2 * x, limit=1.0)

    estimate, whole = tiled(tiling, lambda corners: denoise, at_once)(x, LEVEL), denoise(x, LEVEL)
    for name in ("x", "x0", "frac", "shift", "unclipped"):
        torch.testing.assert_close(getattr(estimate, name), getattr(whole, name))
    assert (estimate.limit, estimate.logvar, estimate.renoise) == (1.0, None, None)
    assert sum(batches[:-1]) == len(tiling.corners) and max(batches[:-1]) <= at_once


def test_a_picture_of_the_models_size_is_enlarged_at_once_and_one_tile_is_the_same() -> None:
    small = pictures(4, 4)
    made = MODEL.edit("upsample", small, seed=3)
    assert torch.equal(made.images, MODEL.edit(Upsample(fit=True), small, seed=3).images)
    assert Upsample().tiling(MODEL.config, (4, 4)) is None
    one = Tiling((4, 4), (4, 4), 2, 0.25)
    x = torch.randn(1, 3, 8, 8)
    asks = made.request.asks
    plain = MODEL.bound(asks, {"low_res": small})
    assert torch.equal(tiled(one, lambda corners: plain, 8)(x, LEVEL).x0, plain(x, LEVEL).x0)


@pytest.mark.parametrize("settings", [{}, {"sampler": "ancestral"}, {"sampler": "dpm_adaptive"}, {"guidance": "sag:0.5"}])
def test_a_large_picture_depends_on_neither_batch_nor_neighbours(settings: dict[str, str]) -> None:
    settings = settings | ({"steps": "logsnr:3"} if settings.get("sampler") == "dpm_adaptive" else {})
    several = pictures(6, 11, 2)
    together = MODEL.edit("upsample", several, seed=5, batch_size=32, **settings).images
    assert together.shape == (2, 3, 12, 22)
    alone = MODEL.edit("upsample", several[1:], seed=6, batch_size=2, **settings).images
    assert (together[1:].int() - alone.int()).abs().max() <= 1
    assert (together[:1].int() - MODEL.edit("upsample", several[:1], seed=6, **settings).images.int()).abs().max() > 8


@pytest.mark.parametrize(("overlap", "steepest"), [(0.0, 1.0), (0.25, 1 / 9), (0.5, 2 / 17)])
def test_tiles_that_disagree_go_over_into_each_other_without_a_seam(overlap: float, steepest: float) -> None:
    """Tiles of 32 places whose estimates differ by 1 each: without overlap a seam is a step of 1."""
    tiling = Tiling((16, 16 + 3 * round(16 * (1 - overlap))), (16, 16), 2, overlap)
    assert len(tiling.corners) == 4

    def bind(corners: Sequence[tuple[int, int]]) -> Denoise:
        values = torch.tensor([float(tiling.corners.index(corner)) for corner in corners])
        return lambda x, level: Estimate(x, level, values[:, None, None, None].expand_as(x))

    x0 = tiled(tiling, bind, 2)(torch.zeros(1, 3, *tiling.result), LEVEL).x0
    assert (x0[..., 0].max(), x0[..., -1].min()) == (0, 3)
    torch.testing.assert_close(x0.diff(dim=3).max().item(), steepest, rtol=1e-4, atol=0)
    assert x0.diff(dim=3).min() >= 0 and x0.diff(dim=2).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("size", "settings", "told"),
    [
        ((3, 9), {}, r"a picture is 3×9, and this model enlarges those of 4×4 and more \(--fit, fit=True in Python"),
        (
            (9, 9),
            {"guidance": "style:1", "guides": {"classifier": classifier()}, "reference": pictures(8, 8)},
            "guidance style compares pictures of the model's size with a reference: --fit",
        ),
    ],
)
def test_what_cannot_be_enlarged_is_refused(size: tuple[int, int], settings: dict[str, Any], told: str) -> None:
    with pytest.raises(Problem, match=told):
        MODEL.edit("upsample", pictures(*size), **settings)


def test_too_many_tiles_are_refused() -> None:
    with pytest.raises(Problem, match=r"1100×1100 are 1,203,409 tiles, and 1,000,000 is the most: .* less --overlap"):
        MODEL.edit(Upsample(overlap=0.9), torch.zeros(1, 3, 1100, 1100, dtype=torch.uint8))


def test_a_factor_that_is_no_whole_number_and_other_channels_are_refused() -> None:
    odd = diffusion(low_res=(6, 6), classes=None)
    with pytest.raises(Problem, match="a picture is 9×9, and this model enlarges 6×6 to 8×8, by no whole number: --fit"):
        odd.edit("upsample", pictures(9, 9))
    assert odd.edit("upsample:fit=true", [np.zeros((9, 9, 3), np.uint8)]).images.shape == (1, 3, 8, 8)
    with pytest.raises(Problem, match="the pictures have 1 channels, and the model's have 3"):
        MODEL.edit("upsample", pictures(9, 9)[:, :1])


def test_the_cost_is_told_before() -> None:
    told = r"64×64 becomes 128×128 in 441 overlapping tiles of 8×8: 882 evaluations of a tile for each picture, and at most about"
    with pytest.warns(Note, match=told):
        MODEL.edit("upsample", pictures(64, 64), batch_size=64)


def test_the_command_takes_pictures_of_their_own_size(tmp_path: Path) -> None:
    model = str(MODEL.save(tmp_path / "up.safetensors"))
    save_png(tmp_path / "a.png", pictures(6, 9)[0])
    save_png(tmp_path / "b.png", pictures(4, 4)[0])
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["upsample", model, str(tmp_path / "a.png"), "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    assert load_png(out / "00000.png").shape == (3, 12, 18)
    asked = ["remake", str(out), "--picture", "0", "--out", str(tmp_path / "again")]
    assert CliRunner().invoke(app, asked, catch_exceptions=False).exit_code == 0
    assert (tmp_path / "again" / "00000.png").read_bytes() == (out / "00000.png").read_bytes()
    both = [str(tmp_path / name) for name in ("a.png", "b.png")]
    with pytest.raises(Problem, match=r"one size at a time .*: .*a.png is 6×9 and .*b.png is 4×4"):
        CliRunner().invoke(app, ["upsample", model, *both, "--out", str(tmp_path / "both")], catch_exceptions=False)
    fitted = CliRunner().invoke(app, ["upsample", model, *both, "--fit", "--out", str(tmp_path / "both")], catch_exceptions=False)
    assert fitted.exit_code == 0 and load_png(tmp_path / "both" / "00001.png").shape == (3, 8, 8)
