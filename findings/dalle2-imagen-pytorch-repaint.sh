#!/usr/bin/env bash
# dalle2-pytorch 1.15.6 and imagen-pytorch 2.1.0 (torch 2.13.0): inpainting in Decoder.sample and Imagen.sample, which resample each step five times by default.
#
# One expects: RePaint (Lugmayr et al. 2022), which both name: between two resamplings the picture gets back the noise that the step took, of variance
# σ_t² − (α_t/α_s)²·σ_s². The state is then one of level t again, and resampling alone, with a mask under which nothing is known, changes no distribution.
# What happens: deviations are subtracted where variances should be, (σ_t − σ_s·α_t/α_s)·ε: of a step of 1,000 that is a tenth and less of the noise due. The
# network is told level t and given a cleaner picture, takes the missing noise off the picture itself, and does so at each resampling: contrast and detail go.
# With the exact model of Gaussian data of deviation 0.25 samples have 0.18 after five resamplings, in both, and in fewer steps less: Decoder with
# sample_timesteps=50 has 0.08. Plain sampling is right, and so is resampling if the noise that is due is put in. No error or warning.
# Who is hurt: everybody who inpaints with them: what is filled in is flat and smooth, more of it the more often one resamples, as one does for better fits.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 einops==0.8.2 tqdm==4.70.1 beartype==0.23.1
"$folder/venv/bin/pip" install --quiet --no-deps dalle2-pytorch==1.15.6 imagen-pytorch==2.1.0
"$folder/venv/bin/python" - <<'PYTHON'
import importlib
import importlib.metadata
import importlib.util
import sys
import types

import torch

# Networks, text, files and augmentation, none of which is asked for.
absent = {
    "torchvision": (), "torchvision.transforms": (), "kornia": (), "kornia.augmentation": (), "kornia.filters": ("gaussian_blur2d",),
    "resize_right": ("resize",), "rotary_embedding_torch": ("RotaryEmbedding",), "x_clip": ("CLIP",), "coca_pytorch": ("CoCa",),
    "vector_quantize_pytorch": ("VectorQuantize",), "dalle2_pytorch.tokenizer": ("tokenizer",),
    "imagen_pytorch.t5": ("t5_encode_text", "get_encoded_dim", "DEFAULT_T5_NAME"),
}
packages = {name: importlib.util.find_spec(name).submodule_search_locations for name in ("dalle2_pytorch", "imagen_pytorch")}
for name, names in {**{each: () for each in packages}, **absent}.items():
    sys.modules[name] = types.ModuleType(name)
    for each in names:
        setattr(sys.modules[name], each, type(each, (), {"__init__": lambda self, *_, **__: None}))
for name, path in packages.items():
    sys.modules[name].__path__ = path
dalle2, imagen = (importlib.import_module(f"{name}.{name}") for name in packages)
dalle2.tqdm = imagen.tqdm = lambda steps, **_: steps
TRUE, SHAPE = 0.25, (4, 3, 16, 16)


def exact(x, alpha):
    """The exact noise in noisy Gaussian data, at a level that keeps this share of the variance."""
    alpha = alpha.view(-1, 1, 1, 1)
    return (1 - alpha).sqrt() * x / (alpha * TRUE**2 + 1 - alpha)


def network(library, share):
    """The exact network as one of the library's."""

    class Exact(library.Unet):
        lowres_cond = self_cond = cond_on_text_encodings = False

        def __init__(self):
            torch.nn.Module.__init__(self)
            self.none = torch.nn.Parameter(torch.zeros(1))

        def cast_model_parameters(self, **_):
            return self

        def forward_with_cond_scale(self, x, time, **_):
            return exact(x, share(time))

    return Exact()


def decoder(steps, times):
    kept = []
    made = dalle2.Decoder(
        network(dalle2, lambda time: kept[0][time]), image_size=16, timesteps=1000, sample_timesteps=steps if steps < 1000 else None,
        learned_variance=False, unconditional=True,
    )
    kept.append(made.noise_schedulers[0].alphas_cumprod)
    nothing = torch.zeros(4, 16, 16, dtype=torch.bool)
    return made.sample(batch_size=4, inpaint_image=torch.full(SHAPE, 0.5), inpaint_mask=nothing, inpaint_resample_times=times)


def whole(steps, times):
    made = imagen.Imagen(network(imagen, torch.sigmoid), image_sizes=16, timesteps=steps, condition_on_text=False, dynamic_thresholding=False)
    nothing = torch.zeros(4, 16, 16, dtype=torch.bool)
    return made.sample(
        batch_size=4, inpaint_images=torch.full(SHAPE, 0.5), inpaint_masks=nothing, inpaint_resample_times=times, use_tqdm=False)


def due_of_decoder(self, x, begin, end):
    alpha, after = (self.alphas_cumprod[time].view(-1, 1, 1, 1) for time in (begin, end))
    return (after / alpha).sqrt() * x + (1 - after / alpha).sqrt() * torch.randn_like(x)


def due_of_imagen(self, x, begin, end):
    alpha, after = (torch.sigmoid(self.log_snr(time)).view(-1, 1, 1, 1) for time in (begin, end))
    return (after / alpha).sqrt() * x + (1 - after / alpha).sqrt() * torch.randn_like(x)


def deviation(make, steps, times):
    torch.manual_seed(0)
    return (2 * make(steps, times) - 1).std().item()


print(*(f"{name} {importlib.metadata.version(name)}" for name in ("dalle2-pytorch", "imagen-pytorch")), "torch", torch.__version__)
cases = {
    "Decoder": (decoder, 50, dalle2.NoiseScheduler, due_of_decoder),
    "Imagen": (whole, 100, imagen.GaussianDiffusionContinuousTimes, due_of_imagen),
}
same = True
for name, (make, few, scheduler, due) in cases.items():
    found = {(steps, times): deviation(make, steps, times) for steps in (few, 1000) for times in (1, 2, 5)}
    scheduler.q_sample_from_to = due
    right = {steps: deviation(make, steps, 5) for steps in (few, 1000)}
    for steps in (few, 1000):
        print(f"{name}, {steps} steps, each done 1, 2, 5 times: deviation", *(f"{found[steps, times]:.3f}" for times in (1, 2, 5)),
              f"- 5 times with the noise that is due: {right[steps]:.3f}; true {TRUE}")
        same &= min(found[steps, 1], right[steps]) > (0.96 if steps == 1000 else 0.8) * TRUE and found[steps, 5] < 0.77 * TRUE
    same &= found[few, 5] < found[1000, 5]
raise SystemExit(0 if same else 1)
PYTHON
