#!/usr/bin/env bash
# monai 1.6.1 (torch 2.13.0): MMDMetric() as it comes, for features or pictures.
#
# One expects: "Unbiased Maximum Mean Discrepancy (MMD) is a kernel-based method for measuring the similarity between two distributions", of Gretton et al.
# (2012), "a non-negative metric where a smaller value indicates a closer match": with a kernel as the paper has it two distributions are equal if it is 0.
# What happens: without y_mapping the kernel is x·y itself, for which the discrepancy is the squared distance of the two *means* and nothing else, less the
# noise of the means, so that it is negative as often as not. A generator that makes one picture, the mean of the data, has the number of a perfect one; so
# has a set of twice the contrast, and one of none of the data's two kinds. Another true set, brighter by a tenth of the deviation, is the worst of all by
# far. The y_mapping that the documentation names, a Gaussian or Laplace filter, blurs pictures and leaves it as blind; a Gaussian *kernel* sees all three,
# and hardly the brightness. (An open issue calls the argument inconvenient for kernels; what the number is without it is told nowhere.)
# Who is hurt: early stopping and tables by the number: collapse, which such measures are there to find, is not seen, and no error or warning says what is
# measured.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --no-deps monai==1.6.1
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata

import torch
from monai.metrics import MMDMetric
from torch.nn import functional


def gaussian(real, made):
    """The unbiased estimate with k = exp(−‖x − y‖² / 2w), w the number of values, in float64."""
    real, made = real.double().flatten(1), made.double().flatten(1)
    one, other, both = (torch.exp(-(torch.cdist(*pair) ** 2) / (2 * real.shape[1])) for pair in ((real, real), (made, made), (real, made)))
    count = len(real)
    return ((one.sum() + other.sum() - 2 * count) / (count * (count - 1)) - 2 * both.mean()).item()


def means(real, made):
    """Squared distance of the means, less what it is in the mean for two sets of one distribution."""
    real, made = real.double().flatten(1), made.double().flatten(1)
    noise = (real.var(0).sum() + made.var(0).sum()) / len(real)
    return ((real.mean(0) - made.mean(0)).square().sum() - noise).item()


def blurred(pictures):
    window = torch.tensor([1.0, 2.0, 1.0]) / 4
    return functional.conv2d(functional.pad(pictures, [1] * 4, mode="reflect"), torch.outer(window, window)[None, None])


print("monai", importlib.metadata.version("monai"), "torch", torch.__version__)
torch.manual_seed(0)
kinds = 0.8 * torch.randint(0, 2, (4_000, 1, 1, 1)).mul(2).sub(1)
real = kinds + 0.6 * torch.randn(4_000, 1, 8, 8)
again = 0.8 * torch.randint(0, 2, (4_000, 1, 1, 1)).mul(2).sub(1) + 0.6 * torch.randn(4_000, 1, 8, 8)
sets = {
    "another set of the distribution": again,
    "the mean picture, 4,000 times": real.mean(0, keepdim=True) + 1e-3 * torch.randn(4_000, 1, 8, 8),
    "twice the contrast": 2 * again,
    "neither of the two kinds": torch.randn(4_000, 1, 8, 8),
    "another set, brighter by 0.1": again + 0.1,
}
seen = {}
for name, made in sets.items():
    seen[name] = MMDMetric()(real, made).item(), means(real, made), MMDMetric(blurred)(real, made).item(), gaussian(real, made)
    print(f"{name}: {seen[name][0]:.4f}, of the means {seen[name][1]:.4f}, with a Gaussian filter {seen[name][2]:.4f};",
          f"with a Gaussian kernel {seen[name][3]:.5f}")
alike, collapsed, contrast, neither, brighter = seen.values()
exact = all(abs(metric - mean) < 0.01 for metric, mean, _, _ in seen.values())
blind = all(max(each[0], each[2]) < 0.15 and each[3] > 0.05 for each in (collapsed, contrast, neither))
print("the number is the distance of the means:", exact)
raise SystemExit(0 if exact and blind and min(brighter[0], brighter[2]) > 0.3 and brighter[3] < 0.01 and alike[3] < 0.001 else 1)
PYTHON
