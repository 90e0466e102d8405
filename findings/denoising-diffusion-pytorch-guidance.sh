#!/usr/bin/env bash
# denoising-diffusion-pytorch 2.3.4 (torch 2.13.0): GaussianDiffusion of classifier_free_guidance.py, sample(classes, cond_scale=…, rescaled_phi=0).
#
# One expects: guidance mixes two predictions, which is the same for x̂₀, ε̂ and v̂, since each is linear in the others: with exact networks the three objectives
# give one picture. The part along the conditional prediction, which is left out against oversaturation (APG, whose paper is cited), is x̂₀'s.
# What happens: it is left out of whatever the network puts out, always (`sample` cannot turn it off). Of two classes that differ in brightness, scales 2 and 3
# make the picture brighter by 0.07 and 0.1 with pred_noise and pred_v, more than plain guidance does, and by 0.01 with pred_x0: one setting, two methods.
# And cond_scale=1, no guidance, gives its one prediction where two are unpacked: with two classes the batch itself is unpacked, both pictures are stepped
# along the first one's prediction, and the second comes out as noise, without an error. Any other number of classes is a ValueError.
# Who is hurt: comparisons of objectives under guidance, scales that are carried over from one to another, and the row "no guidance" of a sweep.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 einops==0.8.2 tqdm==4.70.1 packaging==26.3
"$folder/venv/bin/pip" install --quiet --no-deps denoising-diffusion-pytorch==2.3.4
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import importlib.metadata
import importlib.util
import sys
import types

import torch

package = types.ModuleType("denoising_diffusion_pytorch")  # without the parts of its __init__ that train and read pictures
package.__path__ = importlib.util.find_spec("denoising_diffusion_pytorch").submodule_search_locations
sys.modules["denoising_diffusion_pytorch"] = package
library = importlib.import_module("denoising_diffusion_pytorch.classifier_free_guidance")
library.tqdm = lambda times, **_: times
MEANS, DEVIATION, ANY = torch.tensor([-0.2, 0.2]), 0.1, 0.25


class Exact(library.Unet):
    """The exact network of two classes of Gaussian values, dark and bright, and of wider ones around 0 without a class; its guidance is the library's."""

    def __init__(self, objective):
        super().__init__(dim=8, num_classes=2, dim_mults=(1, 2), channels=1)
        self.objective = objective

    def forward(self, x, time, classes, cond_drop_prob=None):
        alpha, sigma = (each.sqrt().view(-1, 1, 1, 1) for each in (self.kept[time], 1 - self.kept[time]))
        mean, deviation = (0.0, ANY) if cond_drop_prob == 1 else (MEANS[classes].view(-1, 1, 1, 1), DEVIATION)
        x0 = mean + alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2) * (x - alpha * mean)
        noise = (x - alpha * x0) / sigma
        return {"pred_noise": noise, "pred_x0": x0, "pred_v": alpha * noise - sigma * x0}[self.objective]


class Plain(Exact):
    """The same with the formula of classifier-free guidance."""

    def forward_with_cond_scale(self, *args, cond_scale, rescaled_phi):
        conditional, other = self(*args), self(*args, cond_drop_prob=1)
        return other + cond_scale * (conditional - other), other


def sampled(network, objective, classes, scale):
    torch.manual_seed(0)
    network = network(objective)
    diffusion = library.GaussianDiffusion(
        network, image_size=32, objective=objective, sampling_timesteps=200, ddim_sampling_eta=0.0, use_cfg_plus_plus=False)
    network.kept = diffusion.alphas_cumprod
    torch.manual_seed(0)
    return 2 * diffusion.sample(torch.tensor(classes), cond_scale=scale, rescaled_phi=0.0) - 1


print("denoising-diffusion-pytorch", importlib.metadata.version("denoising-diffusion-pytorch"), "torch", torch.__version__)
seen = {}
for objective in ("pred_noise", "pred_v", "pred_x0"):
    for network in (Exact, Plain):
        for scale in (2.0, 3.0):
            seen[objective, network, scale] = sampled(network, objective, [1, 1, 1, 1], scale).mean().item() - MEANS[1].item()
    print(f"{objective}: scales 2 and 3 make pictures of the bright class brighter by", *(f"{seen[objective, Exact, scale]:.3f}" for scale in (2.0, 3.0)),
          "- by the formula of guidance", *(f"{seen[objective, Plain, scale]:.3f}" for scale in (2.0, 3.0)))
first, second = sampled(Exact, "pred_noise", [0, 1], 1.0)
near, next_to = sampled(Exact, "pred_noise", [0, 1], 1.000001)
print(f"a dark and a bright picture with scale 1: means {first.mean():.3f}, {second.mean():.3f}, deviations {first.std():.3f}, {second.std():.3f};",
      f"with scale 1.000001: {near.mean():.3f}, {next_to.mean():.3f}, {near.std():.3f}, {next_to.std():.3f}")
try:
    sampled(Exact, "pred_noise", [0, 1, 1], 1.0)
    refused = ""
except ValueError as error:
    refused = str(error)
print("three pictures with scale 1:", refused or "no error")
same = max(seen[objective, Plain, 3.0] for objective in ("pred_noise", "pred_v", "pred_x0")) - seen["pred_x0", Plain, 3.0] < 1e-2
parted = all(seen[objective, Exact, 3.0] > 0.07 for objective in ("pred_noise", "pred_v")) and abs(seen["pred_x0", Exact, 3.0]) < 0.02
mixed = second.std() > 0.4 and next_to.std() < 0.15 and abs(first.mean() - near.mean()) < 0.01 and refused
raise SystemExit(0 if same and parted and mixed else 1)
PYTHON
