"""Adapters for the degradations of upsamplers' input: the pieces of BSRGAN's, and the Gaussian blur of cascades."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lodestar.conditions.signals import enlarged
from lodestar.degradations.base import area
from lodestar.degradations.bsr import covariance
from lodestar.degradations.filters import METHODS, Canvas, blurred, gaussian, matrices, matrix, resized, shifted, smooth

from .harness import Case, Check, Left, adapter

ELSEWHERE = "no part of the degradation: "


@adapter("degradation_gaussian_blur")
def gaussian_blur(case: Case) -> Iterator[Check | Left]:
    x = case.inputs["image"].double()
    for name, settings in case.subcases.items():
        variance = torch.full((len(x), 2), settings["sigma"] ** 2, dtype=torch.float64)
        kernel = gaussian(variance, None, settings["kernel_size"])
        # The kernel is the product of two equal ones.
        yield Check(f"{name}/kernel1d", kernel[0].sum(dim=0))
        yield Check(f"{name}/blurred", blurred(x, kernel))
    large = [4 * side for side in x.shape[2:]]
    yield Check("resize_bilinear_x4", enlarged(x, large))
    yield Check("downsample_area_x3", area(x[:, :, :9, :6], (3, 2)))
    yield from (Left(f"resize_{way}_x4", "planes are enlarged bilinearly") for way in ("nearest", "bicubic"))


@adapter("degradation_bsrgan")
def bsrgan(case: Case) -> Iterator[Check | Left]:
    image = case.inputs["image"].permute(2, 0, 1)[None].double()
    kernels, images, by_cv2 = ((case.meta["tolerance"][key].get("rtol"), case.meta["tolerance"][key]["atol"])
                               for key in ("kernels", "images", "cv2"))  # fmt: skip
    for name in case.outputs:
        settings = case.subcases.get(name.replace("shift_norm", "shift").replace("blur_mirror", "conv"), {})
        match name.split("/"):
            case ["aniso", _]:
                yield Check(name, _skewed(settings)[0], *kernels)
            case ["fspecial", _]:
                yield Check(name, _round(settings)[0], *kernels)
            case ["shift_norm", way] if not way.endswith("lower"):
                yield Check(name, shifted(_round(settings), (settings["sf"] - 1) / 2)[0], *kernels)
            case ["blur_mirror", _]:
                yield Check(name, _listed(blurred(image, _skewed(settings))), *images)
            case ["imresize", "half"]:
                rows, columns = (matrix(smooth(*_sides(side, side // 2), side // 2), side) for side in image.shape[2:])
                yield Check(name, _listed(matrices(image, rows, columns)), *images)
            case ["cv2_resize", _]:
                ends = [torch.tensor([settings[side]]) for side in ("height", "width")]
                method = torch.tensor([settings["interpolation"] - 1])
                assert len(METHODS) == 3
                yield Check(name, _listed(resized(Canvas.of(image), *ends, method).values.clamp(0, 1)), *by_cv2)
            case ["down_shifted"]:
                kernel = shifted(_round(case.subcases[name]), (case.subcases[name]["sf"] - 1) / 2)
                step = case.subcases[name]["sf"]
                yield Check(name, _listed(blurred(image, kernel)[:, :, ::step, ::step].clamp(0, 1)), *images)
            case ["noise_cov", "cov"]:
                given = case.subcases["noise_cov"]
                variances = torch.tensor([given["D"]], dtype=torch.float64)
                scale = (int(given["L"].split("/")[0]) / int(given["L"].split("/")[1])) ** 2
                yield Check(name, scale * covariance(variances, case.inputs["noise_cov/rand"][None])[0], *kernels)
            case ["noise_cov", "U"]:
                yield Check(name, torch.linalg.svd(case.inputs["noise_cov/rand"])[0], *kernels)
            case ["single2uint"]:
                yield Left(name, "pictures are rounded where JPEG begins, which has a test of its own")
            case ["shift", _] | ["shift_norm", _]:
                yield Left(name, "kernels are moved up and left, and have the sum 1")
            case _:
                yield Left(name, ELSEWHERE + case.description(f"out/{name}"))


def _skewed(settings: dict) -> Tensor:
    variance = torch.tensor([[settings["l1"], settings["l2"]]], dtype=torch.float64)
    return gaussian(variance, torch.tensor([settings["theta"]], dtype=torch.float64), settings["ksize"])


def _round(settings: dict) -> Tensor:
    return gaussian(torch.full((1, 2), settings["sigma"] ** 2, dtype=torch.float64), None, settings["hsize"])


def _sides(old: int, new: int) -> tuple[Tensor, Tensor]:
    return torch.tensor([old]), torch.tensor([new])


def _listed(image: Tensor) -> Tensor:
    """[1, C, H, W] as [H, W, C]."""
    return image[0].permute(1, 2, 0)
