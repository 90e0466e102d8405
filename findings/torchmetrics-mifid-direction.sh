#!/usr/bin/env bash
# torchmetrics 1.9.0 (torch 2.13.0): MemorizationInformedFrechetInceptionDistance.
#
# One expects: the score of its paper (Bai et al. 2021), a Fréchet distance that is divided by how near, in the mean over *generated* pictures, the nearest
# training picture is, so that a generator of nothing but copies is punished.
# What happens: the mean is over the *real* pictures, each with its nearest generated one: a measure of coverage. Copies of one in a hundred training
# pictures leave the others far from everything, the mean is above the threshold, and nothing is punished: the score is the plain Fréchet distance. With
# the two sets changed over it is 10¹⁴, which is the reading of the competition that the paper is about. And a generator is punished
# for covering the data: 20,000 new pictures beside 200 training pictures, none of them a copy, count as memorised, 26 times the plain distance.
# Who is hurt: whoever reports the number as evidence against memorisation: the usual case, few pictures learned by heart, is the one that it does not see.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchmetrics==1.9.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import torch

warnings.filterwarnings("ignore")
import torchmetrics
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance

WIDTH = 8


class Values(torch.nn.Module):
    """Features that are the picture's values."""

    num_features = WIDTH

    def forward(self, pictures):
        return pictures.flatten(1)


def score(real, fake):
    metric = MemorizationInformedFrechetInceptionDistance(feature=Values())
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric.compute().item()


def plain(one, other):
    """The Fréchet distance alone."""
    a, b = one.flatten(1).double(), other.flatten(1).double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    cross = torch.linalg.eigvals(cov_a @ cov_b).sqrt().real.sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross).item()


def away(one, other):
    """The mean over the first pictures of the least 1 − |cosine| to the second."""
    a, b = (torch.nn.functional.normalize(each.flatten(1).double(), dim=1) for each in (one, other))
    return abs((1 - (a @ b.T).abs()).amin(1).mean().item())


torch.manual_seed(0)
real = torch.randn(2_000, WIDTH, 1, 1)
cases = {
    "new pictures": (real, torch.randn(2_000, WIDTH, 1, 1)),
    "copies of 20 of 2,000 training pictures": (real, real[:20].repeat(100, 1, 1, 1)),
    "20,000 new pictures beside 200 training pictures": (real[:200], torch.randn(20_000, WIDTH, 1, 1)),
}
print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__)
seen = {}
for name, (trained, made) in cases.items():
    seen[name] = [round(each, 4) for each in (plain(trained, made), score(trained, made), away(made, trained), away(trained, made))]
    distance, found, of_made, of_real = seen[name]
    print(f"{name}: plain distance {distance}, score {found}; mean distance of generated pictures to the nearest real one {of_made}, of real ones {of_real}")
_, copied, covered = seen.values()
print(f"the sets of the copies changed over: {score(*reversed(cases['copies of 20 of 2,000 training pictures'])):.3g}")
unpunished = copied[1] == copied[0] and copied[2] == 0 and copied[3] > 0.1
punished = covered[1] > 5 * covered[0] and covered[2] > 0.1 > covered[3]
raise SystemExit(0 if unpunished and punished else 1)
PYTHON
