#!/usr/bin/env bash
# pytorch-ignite 0.5.5 (torch 2.13.0): ignite.metrics.SSIM(gaussian=False, kernel_size=…).
#
# One expects: the documented "size of the kernel", and of a uniform one that its weights are alike and sum to 1, so that it takes means: with 7 the number is
# that of scikit-image's window, with 11 that of torchmetrics' and MONAI's uniform windows, on the same reflected border.
# What happens: the window has five places of weight 1/5 on each axis, whatever size is asked for: 7, 11 (the default) and 15 all give SSIM's number for 5.
# And of a window of 3 or 1 the same weights remain, which sum to 0.36 and to 0.04 in the plane: "means" are too small, and brightness counts as variance,
# beside which noise is little. Pictures with noise of a tenth of the range: 0.79 for each of 5 … 15, where 0.79, 0.86, 0.90 and 0.91 are right; and 0.94 for
# 3, where 0.64 is right. No error or warning. The package's tests compare pictures with themselves times 0.8, for which windows hardly matter.
# Who is hurt: numbers that are compared with another library's, or with a paper's window; and small windows, which one takes for small pictures and detail:
# with them nearly everything is above 0.9.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 packaging==26.3
"$folder/venv/bin/pip" install --quiet --no-deps pytorch-ignite==0.5.5
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata

import torch
from ignite.metrics import SSIM
from torch.nn import functional


def formula(one, other, size):
    """SSIM with means over size × size places, in float64, reflected at the border, for a range of 1."""

    def mean(values):
        return functional.avg_pool2d(functional.pad(values, [size // 2] * 4, mode="reflect"), size, stride=1)

    first, second = mean(one), mean(other)
    variances = mean(one**2) - first**2 + mean(other**2) - second**2
    covariance = mean(one * other) - first * second
    light = (2 * first * second + 0.01**2) / (first**2 + second**2 + 0.01**2)
    return (light * (2 * covariance + 0.03**2) / (variances + 0.03**2)).mean().item()


def found(one, other, size):
    metric = SSIM(data_range=1.0, kernel_size=size, gaussian=False)
    metric.update((one, other))
    return metric.compute()


print("pytorch-ignite", importlib.metadata.version("pytorch-ignite"), "torch", torch.__version__)
torch.manual_seed(0)
pictures = functional.interpolate(torch.rand(4, 3, 16, 16, dtype=torch.float64), size=64, mode="bicubic").clamp(0, 1)
noisy = (pictures + 0.1 * torch.randn_like(pictures)).clamp(0, 1)
seen = {}
for size in (1, 3, 5, 7, 11, 15):
    seen[size] = found(pictures, noisy, size), formula(pictures, noisy, size)
    print(f"uniform window of {size}: {seen[size][0]:.4f}, by the formula {seen[size][1]:.4f}")
same = max(abs(seen[size][0] - seen[5][1]) for size in (5, 7, 11, 15)) < 1e-4
right = seen[15][1] > seen[11][1] > seen[7][1] + 0.02 > seen[5][1] + 0.04
raise SystemExit(0 if same and right and seen[3][0] > 0.9 > seen[3][1] + 0.2 else 1)
PYTHON
