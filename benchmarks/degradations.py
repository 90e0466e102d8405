"""The degradation of BSRGAN on batches, against its published numpy code on the same pictures, one at a time."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from common import Goal, Setting, seconds
from rich.table import Table
from torch import Tensor

from lodestar.degradations import BSR

SIZES = ((32, 2, 256), (64, 2, 256), (128, 4, 64), (256, 4, 32))
"""Side of the pictures, factor, and pictures in a batch."""
GOAL = (64, 2)
"""Side and factor with a target: pictures as models are trained here."""
ALONE = 16
"""Pictures of the published code in each time taken."""
UNUSED = ("torchvision", "torchvision.utils", "matplotlib", "matplotlib.pyplot", "mpl_toolkits", "mpl_toolkits.mplot3d")
"""Libraries that the published code imports to draw and to show pictures."""


def degradations(setting: Setting) -> Iterator[Table | Goal]:
    """The table, and the target where there is the published code. Raises ImportError without the versions that it needs."""
    published = None if setting.bsrgan is None else published_code(setting.bsrgan)
    table = Table("pictures", "batch", "ms a picture", "published, ms", "times as fast", title="BSR degradation")
    for side, factor, count in SIZES:
        x = pictures(count, side)
        times = seconds(calls(x, factor, published), setting.repeats)
        ours = times["ours"] / count
        theirs = times["published"] / ALONE if "published" in times else None
        told = ("", "") if theirs is None else (f"{1e3 * theirs:.2f}", f"{theirs / ours:.1f}")
        table.add_row(f"{side}×{side} by {factor}", str(count), f"{1e3 * ours:.2f}", *told)
        if theirs is not None and (side, factor) == GOAL:
            yield Goal(f"BSR degradation, {side}×{side} by {factor}, batch {count}", theirs / ours, 20.0, 20.0)
    yield table


def pictures(count: int, side: int) -> Tensor:
    """Smooth pictures in [−1, 1]."""
    coarse = torch.rand(count, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 2 - 1


def calls(x: Tensor, factor: int, published: Any | None) -> dict[str, Callable[[], object]]:
    """The work to be timed, by name; each call of either has other random numbers."""
    side, rng = x.shape[2], torch.Generator().manual_seed(0)
    found: dict[str, Callable[[], object]] = {"ours": lambda: BSR()(x, BSR().draw(len(x), rng), (side // factor, side // factor))}
    if published is not None:
        arrays = [((each + 1) / 2).permute(1, 2, 0).contiguous().numpy() for each in x[:ALONE]]

        def alone() -> None:
            for array in arrays:
                published.degradation_bsrgan(array, sf=factor, lq_patchsize=side // factor)

        found["published"] = alone
    return found


def published_code(checkout: Path) -> Any:
    """The module of a checkout of cszn/BSRGAN, whose imports of what it does not use here are answered by empty modules."""
    for name in UNUSED:
        module: Any = ModuleType(name)
        module.make_grid = module.Axes3D = None
        sys.modules.setdefault(name, module)
    sys.path.insert(0, str(checkout))
    try:
        cv2 = importlib.import_module("cv2")
        cv2.setNumThreads(torch.get_num_threads())
        scipy = importlib.import_module("scipy")
        if not hasattr(scipy, "finfo"):
            raise ImportError(f"the published code needs scipy before 1.12, and this is {scipy.__version__}")
        return importlib.import_module("utils.utils_blindsr")
    finally:
        sys.path.remove(str(checkout))
