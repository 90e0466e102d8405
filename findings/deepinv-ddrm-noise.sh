#!/usr/bin/env bash
# deepinv 0.5.0 (torch 2.13.0): DDRM, denoising diffusion restoration models.
#
# One expects: the method of its paper (Kawar et al. 2022), which its documentation names: at level σ the state is the clean picture with noise of deviation σ
# in all places, observed or not, and the denoiser is told σ. What nothing is known of is drawn from the prior.
# What happens: all noise that is drawn is divided by √2, at the start and at each step, so that the variance is half of what the denoiser is told, at every
# level: a denoiser that knows the picture, which lays bare what it is given, sees 0.71 · σ everywhere but where noise of the measurement is most of it. It
# takes the missing noise off the picture. Of hidden pixels that are Gaussian of deviation 0.25, with the exact denoiser and eta=0, which draws noise at the
# start alone, samples deviate by 0.16 after 20 steps where the method gives 0.22: half of the variance. With the default eta it is 0.14 for 0.20. No error or
# warning.
# Who is hurt: inpainting and enlargement, which come out smooth; DDRM as the baseline of a comparison; and spreads of samples as a measure of what is unsure,
# as DiffusionSampler makes one of this class: half of what the method says. (And seed=0 sets no seed: it is taken for none.)
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --no-deps deepinv==0.5.0
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.abc
import importlib.machinery
import importlib.metadata
import sys
import types

import torch

# For pictures from files and from the net, plots and other parts, none of which is asked for.
ABSENT = "torchvision", "natsort", "requests", "h5py", "matplotlib", "torchmetrics", "einops", "PIL"


class Absent(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return types.SimpleNamespace(RequestException=OSError) if name == "exceptions" else type(name, (), {})


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in ABSENT else None

    def create_module(self, spec):
        return Absent(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Finder())
import deepinv

LEVELS, DEVIATION, NOISE = torch.linspace(1, 0, 21).numpy(), 0.25, 0.02
hidden = torch.zeros(1, 32, 32)
hidden[:, :, 16:] = 1
physics = deepinv.physics.Inpainting(img_size=(1, 32, 32), mask=1 - hidden, noise_model=deepinv.physics.GaussianNoise(NOISE))
hidden = hidden.bool().expand(64, 1, 32, 32)


class Knows(deepinv.models.Denoiser):
    """The denoiser of a single grey picture, which notes what it is told and how far its input is from the picture."""

    def forward(self, x, sigma, **_):
        apart = x - 0.5
        noted.append((float(sigma), apart[hidden].std().item(), apart[~hidden].std().item()))
        return torch.full_like(x, 0.5)


class Gaussian(deepinv.models.Denoiser):
    """The exact denoiser of independent Gaussian pixels."""

    def forward(self, x, sigma, **_):
        return 0.5 + DEVIATION**2 / (DEVIATION**2 + float(sigma) ** 2) * (x - 0.5)


def method(eta):
    """The paper's steps for pixels of which nothing is observed, about their mean."""
    x = LEVELS[0] * torch.randn(64 * 512)
    for level, following in zip(LEVELS, LEVELS[1:]):
        clean = DEVIATION**2 / (DEVIATION**2 + level**2) * x
        x = clean + (1 - eta**2) ** 0.5 * following * (x - clean) / level + eta * following * torch.randn_like(x)
    return x.std().item()


print("deepinv", importlib.metadata.version("deepinv"), "torch", torch.__version__)
torch.manual_seed(0)
noted, pictures = [], 0.5 + DEVIATION * torch.randn(64, 1, 32, 32)
deepinv.sampling.DDRM(Knows(), sigmas=LEVELS)(physics(torch.full_like(pictures, 0.5)), physics)
shares = []
for told, of_hidden, of_observed in noted[:-1]:
    shares.append((of_hidden / told, of_observed / told))
    if len(shares) % 4 == 1:
        print(f"level {told:.2f}: the input has noise of {of_hidden:.3f} where nothing is observed, {of_observed:.3f} elsewhere")
spread = {}
for eta in (0.0, 0.85, 1.0):
    made = deepinv.sampling.DDRM(Gaussian(), sigmas=LEVELS, eta=eta)(physics(pictures), physics)
    spread[eta] = made[hidden].std().item(), method(eta)
    print(f"hidden pixels of deviation {DEVIATION}, eta={eta}: samples deviate by {spread[eta][0]:.3f}, by the method's steps {spread[eta][1]:.3f}")
half = all(abs(share / 0.5**0.5 - 1) < 0.03 for share, _ in shares) and all(share < 0.8 for _, share in shares[:15])
print("root of the share of variance:", *(f"{made / right:.3f}" for made, right in spread.values()))
raise SystemExit(0 if half and all(0.65 < made / right < 0.76 for made, right in spread.values()) else 1)
PYTHON
