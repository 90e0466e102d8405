#!/usr/bin/env bash
# imagen-pytorch 2.1.0 (torch 2.13.0): ElucidatedImagen.sample with inpaint_images and inpaint_masks, and with init_images and skip_steps.
#
# One expects: at each level σ the known part of a picture is given with noise of deviation σ, as RePaint does and as Imagen beside it does; between two resamplings the
# state gets noise of variance σ² − σ_next²; and whoever skips n steps begins with the picture at the noise level of step n.
# What happens: the known part gets the *churn's* noise alone, √(σ̂² − σ²) instead of σ̂: with S_churn=0, Karras' deterministic sampler, none. The network is told
# σ = 80 and given a clean picture inside a noisy one, which no training has shown it. Resampling adds (σ − σ_next)·ε, so little that of data of deviation 0.25
# samples have 0.12 where each of 32 steps is done five times. And with skip_steps the picture gets the noise of the *first* level, 80, and is sampled from
# a lower one, which takes that noise for the picture: what comes out after 16 of 32 steps is black and white noise, clipped. No error or warning.
# Who is hurt: everybody who inpaints or varies a picture with this class; sigma_max instead of skip_steps does what is meant.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 einops==0.8.2 tqdm==4.70.1 beartype==0.23.1
"$folder/venv/bin/pip" install --quiet --no-deps imagen-pytorch==2.1.0
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import importlib.metadata
import importlib.util
import sys
import types

import torch

# Text, files and augmentation, none of which is asked for.
absent = {
    "torchvision": (), "torchvision.transforms": (), "kornia": (), "kornia.augmentation": (),
    "imagen_pytorch.t5": ("t5_encode_text", "get_encoded_dim", "DEFAULT_T5_NAME"),
}
path = importlib.util.find_spec("imagen_pytorch").submodule_search_locations
for name, names in {"imagen_pytorch": (), **absent}.items():
    sys.modules[name] = types.ModuleType(name)
    for each in names:
        setattr(sys.modules[name], each, type(each, (), {"__init__": lambda self, *_, **__: None}))
sys.modules["imagen_pytorch"].__path__ = path
Unet = importlib.import_module("imagen_pytorch.imagen_pytorch").Unet
ElucidatedImagen = importlib.import_module("imagen_pytorch.elucidated_imagen").ElucidatedImagen
TRUE, SPAN, SHAPE = 0.25, 0.5, (8, 3, 16, 16)


class Exact(Unet):
    """The exact network of Gaussian data behind Karras' preconditioning, which notes the noise that it is told and given."""

    lowres_cond = self_cond = False

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.none, self.noted = torch.nn.Parameter(torch.zeros(1)), []

    def cast_model_parameters(self, **_):
        return self

    def forward_with_cond_scale(self, x, time, **_):
        sigma = (4 * time).exp().view(-1, 1, 1, 1)
        whole = (sigma**2 + SPAN**2).sqrt()
        x = x * whole
        self.noted.append((sigma[0].item(), x[:, :, :, :8].std().item()))
        return (TRUE**2 / (TRUE**2 + sigma**2) - SPAN**2 / whole**2) * x * whole / (sigma * SPAN)


def sampled(churn=0.0, **settings):
    """The deviation of samples, of those in the right half, and what the network noted of the left one."""
    torch.manual_seed(0)
    network = Exact()
    whole = ElucidatedImagen(
        network, image_sizes=16, num_sample_steps=32, condition_on_text=False, dynamic_thresholding=False, sigma_data=SPAN, S_churn=churn, S_noise=1.0)
    made = 2 * whole.sample(batch_size=8, use_tqdm=False, **settings) - 1
    return made.std().item(), made[..., 8:].std().item(), network.noted


print("imagen-pytorch", importlib.metadata.version("imagen-pytorch"), "torch", torch.__version__)
left = torch.zeros(8, 16, 16, dtype=torch.bool)
left[:, :, :8] = True
inpainting = {"inpaint_images": torch.full(SHAPE, 0.5), "inpaint_resample_times": 1}  # a known half that is all 0 in the network's range
levels = {}
for churn in (0.0, 80.0):
    levels[churn] = [(told, given) for told, given in sampled(churn, inpaint_masks=left, **inpainting)[2][::20]]
    print(f"S_churn {churn:.0f}, noise that the network is told and given where the picture is known:", ", ".join(f"{told:.3g}: {given:.3g}" for told, given in levels[churn]))
inpainting["inpaint_masks"] = torch.zeros_like(left)
plain = sampled()[0]
times = {}
for count in (1, 2, 5):
    inpainting["inpaint_resample_times"] = count
    times[count] = sampled(**inpainting)[0]
print(f"deviation of samples {plain:.3f}; where nothing is known, each step done 1, 2, 5 times:", *(f"{each:.3f}" for each in times.values()), f"- true {TRUE}")
skipped = {count: sampled(init_images=torch.full(SHAPE, 0.5), skip_steps=count)[0] for count in (0, 8, 16, 24)}
sigmas = [(80 ** (1 / 7) + count / 31 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for count in skipped]
begun = [sampled(init_images=torch.full(SHAPE, 0.5), sigma_max=sigma)[0] for sigma in sigmas]
print("of a grey picture, 0, 8, 16, 24 of 32 steps skipped:", *(f"{each:.3f}" for each in skipped.values()),
      "- sigma_max set to their levels instead:", *(f"{each:.3f}" for each in begun))
clean = all(given == 0 for _, given in levels[0.0]) and all(given < 0.3 * told for told, given in levels[80.0][-1:]) and levels[0.0][0][0] > 79
flat = abs(plain - TRUE) < 0.02 and abs(times[1] - TRUE) < 0.02 and times[5] < 0.6 * TRUE
raise SystemExit(0 if clean and flat and skipped[16] > 0.9 and skipped[8] > 0.6 and max(begun) < 0.3 else 1)
PYTHON
