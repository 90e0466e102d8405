#!/usr/bin/env bash
# azula 0.11.1 (torch 2.13.0): DPSSampler given several pictures at once, as samplers take them.
#
# One expects: diffusion posterior sampling (Chung et al. 2022), which moves a picture along the gradient of ‖y − A(x̂)‖, the distance of *its* prediction to *its*
# observation, by ζ: what becomes of a picture does not depend on those that are made beside it.
# What happens: the norm is taken over the whole batch at once, so that the gradient for each of B alike pictures is shorter by √B: in a batch of 16 the same ζ
# guides a quarter as strongly. Pictures that are observed without noise end 0.06 from the observation if each is made alone, 0.7 in batches of 64; 1.4 is
# without guidance. And a picture that is far from its observation takes the guidance from those beside it: 0.04 becomes 1.3. No error or warning.
# Who is hurt: whoever tunes ζ on one picture and then makes a table in batches, or compares DPS there with the module's other guidances, which have no such
# norm; and the last batch, which is smaller, is another method.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 einops==0.8.2 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --no-deps azula==0.11.1
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.guidance import DPSSampler
from azula.noise import VPSchedule


class Exact(Denoiser):
    """The exact denoiser of Gaussian pictures of deviation 1."""

    schedule = VPSchedule()

    def forward(self, x_t, t, **_):
        alpha, sigma = self.schedule(t)
        return DiracPosterior(alpha / (alpha**2 + sigma**2) * x_t)


def distance(batch, zeta, beside=None):
    """Root mean square distance to the observation, of the picture's values themselves, for pictures made in batches of this size."""
    found = []
    for number in range(64 // batch):
        torch.manual_seed(number)
        observed = torch.ones(batch, 1, 8, 8)
        if beside is not None:
            observed[1:] = beside
        sampler = DPSSampler(Exact(), y=observed, A=lambda x: x, zeta=zeta, steps=200, silent=True)
        made = sampler(torch.randn(batch, 1, 8, 8)) - observed
        found.append(made if beside is None else made[:1])
    return torch.cat(found).square().mean().sqrt().item()


def pull(batch):
    """Length of one step's guidance for one of `batch` pictures that are all the same."""
    torch.manual_seed(0)
    picture, observed = torch.randn(1, 1, 8, 8).expand(batch, -1, -1, -1), torch.ones(batch, 1, 8, 8)
    made = []
    for zeta in (0.0, 1.0):
        torch.manual_seed(1)
        made.append(DPSSampler(Exact(), y=observed, A=lambda x: x, zeta=zeta).step(picture, torch.tensor(0.5), torch.tensor(0.45))[0])
    return (made[1] - made[0]).norm().item()


print("azula", importlib.metadata.version("azula"), "torch", torch.__version__)
pulls = {batch: pull(batch) for batch in (1, 4, 16, 64)}
print("one step's guidance of one of 1, 4, 16, 64 pictures that are the same:", *(f"{each:.4f}" for each in pulls.values()))
seen = {batch: distance(batch, 1.0) for batch in (1, 4, 16, 64)}
none = distance(64, 0.0)
print("distance to the observation in batches of 1, 4, 16, 64:", *(f"{each:.3f}" for each in seen.values()), f"- without guidance {none:.3f}")
near, far = (distance(2, 1.0, beside) for beside in (1.0, 100.0))
print(f"of a picture beside another one whose observation is alike: {near:.3f}, a hundred times as bright: {far:.3f}")
root = all(abs(pulls[1] / pulls[batch] / batch**0.5 - 1) < 1e-3 for batch in (4, 16, 64))
raise SystemExit(0 if root and seen[1] < 0.15 and seen[64] > 4 * seen[1] and far > 4 * near else 1)
PYTHON
