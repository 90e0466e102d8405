#!/usr/bin/env bash
# torchmetrics 1.9.0 (torch 2.13.0): PerceptualPathLength, by its documented formula and by its attribute higher_is_better.
#
# One expects: E[D(G(I(z₁, z₂, t)), G(I(z₁, z₂, t + ε))) / ε²] along the path between two latents, as the documentation has it, t "between 0 and 1"; smaller
# is smoother, which is what the measure is for (Karras et al. 2019), so that higher_is_better is False, as it is for FID, KID and LPIPS there.
# What happens: t is 0 in every draw (the papers' "end", not "full"), so that no picture between samples is ever looked at: a generator that is thirty times as
# contrasted half way, where interpolated Gaussian latents are shorter than any sample, has the same number as one that is not. And higher_is_better is True:
# whatever goes by that attribute keeps the roughest generator. The class's batch_size is not handed on either: batches are of 64.
# Who is hurt: comparisons with papers' numbers for whole paths; model selection, and tables that mark the better number, by the attribute; and who looks for
# broken interpolations, of which this measure says that they are fine.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchmetrics==1.9.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import warnings

import torch

warnings.filterwarnings("ignore")
import torchmetrics
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

for name in ("torchmetrics.image.perceptual_path_length", "torchmetrics.functional.image.perceptual_path_length"):
    importlib.import_module(name)._TORCHVISION_AVAILABLE = True  # for networks by name; the measure of similarity here is our own
from torchmetrics.image.perceptual_path_length import PerceptualPathLength

WIDTH, EPSILON = 3 * 16 * 16, 1e-2


class Likeness(torch.nn.Module):
    """Squared distance of pictures, one number a picture."""

    def forward(self, one, other):
        return (one.double() - other.double()).square().sum((1, 2, 3))


class Generator(torch.nn.Module):
    """Pictures that are the latents; their contrast rises to `steep` times where these are shorter than a sample ever is."""

    def __init__(self, slope=1.0, steep=1.0):
        super().__init__()
        self.slope, self.steep, self.batches = slope, steep, []

    def sample(self, count):
        return torch.randn(count, WIDTH)

    def forward(self, latents):
        self.batches.append(len(latents) // 2)
        short = ((0.9 - latents.norm(dim=1, keepdim=True) / WIDTH**0.5) / 0.2).clamp(0, 1)
        return (127.5 * (1 + self.slope * (1 + (self.steep - 1) * short) * latents)).reshape(-1, 3, 16, 16)


def found(generator):
    torch.manual_seed(0)
    metric = PerceptualPathLength(num_samples=640, batch_size=16, epsilon=EPSILON, lower_discard=None, upper_discard=None, sim_net=Likeness())
    metric.update(generator)
    return metric.compute()[0].item()


def formula(generator, at):
    """The documented expectation, with t = `at`, or drawn from 0 to 1."""
    torch.manual_seed(0)
    one, other = generator.sample(640).double(), generator.sample(640).double()
    times = torch.rand(640, 1).double() * (1 - EPSILON) if at is None else torch.full((640, 1), at).double()
    ends = (generator(one.lerp(other, each)) / 127.5 for each in (times, times + EPSILON))
    return Likeness()(*ends).mean().item() / EPSILON**2


print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__)
smooth, rough, broken = Generator(), Generator(slope=3.0), Generator(steep=30.0)
seen = {}
for name, generator in {"smooth": smooth, "three times as steep": rough, "steep half way": broken}.items():
    seen[name] = found(generator), formula(generator, 0.0), formula(generator, None)
    print(f"{name}: {seen[name][0]:.1f}; the formula at t = 0 {seen[name][1]:.1f}, over the path {seen[name][2]:.3g}")
better = {each.__name__: each.higher_is_better for each in (PerceptualPathLength, FrechetInceptionDistance, KernelInceptionDistance, LearnedPerceptualImagePatchSimilarity)}
print("higher_is_better:", better, "- sizes of batches where 16 were asked for:", sorted(set(smooth.batches[:10])))
ends = all(abs(metric / start - 1) < 0.01 for metric, start, _ in seen.values())
blind = abs(seen["steep half way"][0] / seen["smooth"][0] - 1) < 0.01 and seen["steep half way"][2] > 100 * seen["smooth"][2]
wrong_way = [name for name, each in better.items() if each] == ["PerceptualPathLength"] and seen["three times as steep"][0] > 5 * seen["smooth"][0]
raise SystemExit(0 if ends and blind and wrong_way and set(smooth.batches[:10]) == {64} else 1)
PYTHON
