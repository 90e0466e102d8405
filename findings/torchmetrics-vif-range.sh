#!/usr/bin/env bash
# torchmetrics 1.9.0 (torch 2.13.0): VisualInformationFidelity and visual_information_fidelity on pictures in [0, 1].
#
# One expects: a number of two pictures. The documentation gives shapes and no range, there is no data_range as SSIM and PSNR beside it have, and its example
# is of values about 0; floating-point pictures are in [0, 1] in torch. piq, which its code names, scales by its data_range.
# What happens: sigma_n_sq=2.0, the variance of the eye's noise, is that of the paper's code (Sheikh & Bovik 2006), for brightness of 0 … 255. In [0, 1] it is
# larger than any picture's variance, the eye sees next to nothing of either, and damage is invisible: noise of a tenth of the range has 0.94, where it is
# 0.32; of 0.2, 0.82 for 0.18. Lower contrast, which costs nearly no information, counts as the worst: half of it has 0.25 instead of 0.80, so that the
# order of methods is turned round. Pictures times 255, or sigma_n_sq=2/255**2, are right. No error or warning.
# Who is hurt: tables of restoration and enlargement, where VIF stands beside PSNR and SSIM: fidelities of 0.95 that no method has, and noisy ones win.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0
"$folder/venv/bin/python" - <<'PYTHON'
import torch
import torchmetrics
from torch.nn import functional
from torchmetrics.image import VisualInformationFidelity


def formula(picture, original):
    """VIF of pixels in float64, for brightness in [0, 1]: in four scales, Gaussian channels with noise of variance 2 on 0 … 255."""
    picture, original = (255 * each.double().flatten(0, 1)[:, None] for each in (picture, original))
    kept, there = 0.0, 0.0
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        places = torch.arange(size).double() - size // 2
        line = torch.exp(-(places**2) / (2 * (size / 5) ** 2))
        window = (torch.outer(line, line) / line.sum() ** 2)[None, None]
        if scale:
            picture, original = (functional.conv2d(each, window)[..., ::2, ::2] for each in (picture, original))
        mean, truth = functional.conv2d(picture, window), functional.conv2d(original, window)
        variance = (functional.conv2d(picture**2, window) - mean**2).clamp_min(0)
        signal = (functional.conv2d(original**2, window) - truth**2).clamp_min(0)
        gain = ((functional.conv2d(picture * original, window) - mean * truth) / (signal + 1e-10)).clamp_min(0)
        added = (variance - gain**2 * signal).clamp_min(1e-10)
        kept = kept + torch.log1p(gain**2 * signal / (added + 2)).sum((1, 2, 3))
        there = there + torch.log1p(signal / 2).sum((1, 2, 3))
    return (kept / there).mean().item()


def found(picture, original, **settings):
    return VisualInformationFidelity(**settings)(picture, original).item()


print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__)
torch.manual_seed(0)
coarse, fine = torch.rand(4, 3, 12, 12), torch.randn(4, 3, 48, 48)
original = functional.interpolate(coarse, size=96, mode="bicubic") + 0.15 * functional.interpolate(fine, size=96, mode="bilinear")
original = original.clamp(0, 1)
noise = torch.randn_like(original)
damaged = {f"noise of {part}": (original + part * noise).clamp(0, 1) for part in (0.05, 0.1, 0.2)}
damaged["half the contrast"] = 0.5 * original + 0.25
damaged["blurred"] = functional.avg_pool2d(functional.pad(original, [2] * 4, mode="reflect"), 5, stride=1)
seen = {}
for name, picture in damaged.items():
    seen[name] = found(picture, original), found(255 * picture, 255 * original), formula(picture, original)
    print(f"{name}: in [0, 1] {seen[name][0]:.4f}, in 0 … 255 {seen[name][1]:.4f}, by the formula {seen[name][2]:.4f},",
          f"with sigma_n_sq=2/255**2 {found(picture, original, sigma_n_sq=2 / 255**2):.4f}")
right = all(abs(scaled - truth) < 2e-3 for _, scaled, truth in seen.values())
turned = seen["noise of 0.2"][0] > 2 * seen["half the contrast"][0] and seen["half the contrast"][2] > 2 * seen["noise of 0.2"][2]
raise SystemExit(0 if right and turned and seen["noise of 0.1"][0] > 0.9 > 2 * seen["noise of 0.1"][2] else 1)
PYTHON
