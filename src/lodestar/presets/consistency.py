"""Consistency models (Song et al. 2023): ADM's networks under EDM's preconditioning, as openai/consistency_models publishes them.

The EDM models are runs. The models distilled from them (CD) or trained by consistency alone (CT) are models only. They make a
picture in one step. For two steps, the first picture is noised again, at the authors' optimal level (counted from the noisiest):
--steps at:39,17 for CD on ImageNet (their 0,22 of 40), at:200,94 for CT (0,106 of 201); at:39,22 and at:39,21 for CD on bedrooms
(LPIPS and L2), at:150,83 and at:150,88 for CT on bedrooms and cats (0,67 and 0,62 of 151).

Their attention lays q, k and v out apart, whatever the options say: its code has this layout only.
"""

from __future__ import annotations

from collections.abc import Callable

from lodestar import samplers
from lodestar.conversion import ADM
from lodestar.conversion.adm import MULTIPLIERS
from lodestar.conversion.family import ModelConfig
from lodestar.conversion.published import Published
from lodestar.core.draws import LogNormal
from lodestar.core.prediction import EDM, AnyPrediction, Consistency
from lodestar.core.schedule import EDMSigma
from lodestar.data.imagenet import NAMES
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.objectives import Simple
from lodestar.presets.parts import attention, denoise, loop, model_of
from lodestar.training.run import Run

_URL = "https://openaipublic.blob.core.windows.net/consistency/"


def _model(
    size: int, *, prediction: AnyPrediction, timesteps: int, dropout: float, sampler: samplers.AnySampler, steps: str
) -> DiffusionConfig:
    imagenet = size == 64
    network = UNetConfig(
        width=192 if imagenet else 256,
        multipliers=MULTIPLIERS[size],
        blocks=3 if imagenet else 2,
        attention=attention(size, (32, 16, 8)),
        head_channels=64,
        layout="qkv_first",
        adaptive_norm=imagenet,
        dropout=dropout,
    )
    return DiffusionConfig(
        denoiser=DenoiserConfig(network=network, prediction=prediction, conditions=conditions(1000 if imagenet else None)),
        schedule=EDMSigma(timesteps=timesteps),
        size=(size, size),
        names=NAMES if imagenet else None,
        sampler=sampler,
        steps=steps,
    )


def _edm(size: int, iterations: int, batch_size: int) -> Run:
    return denoise(
        _model(size, prediction=EDM(), timesteps=1000, dropout=0.1, sampler=samplers.Heun(), steps="karras:40"),
        loop(iterations, batch_size, decay=0.9999432189950708),
        objective=Simple(),
        levels=LogNormal(),
    )


def edm_imagenet64() -> Run:
    """EDM on ImageNet 64×64. The plain squared error has the paper's weights; 2500 million pictures."""
    return _edm(64, 610_352, batch_size=4096)


def edm_bedroom256() -> Run:
    """EDM on LSUN bedrooms at 256×256; how long it was trained is not stated, and this is ours."""
    return _edm(256, 1_000_000, batch_size=256)


def edm_cat256() -> Run:
    """EDM on LSUN cats at 256×256; how long it was trained is not stated, and this is ours."""
    return _edm(256, 1_000_000, batch_size=256)


def distilled(size: int) -> DiffusionConfig:
    """A model distilled from EDM's (CD), on 64 (ImageNet) or 256 (LSUN), over 40 levels."""
    return _consistency(size, 40)


def trained(size: int, timesteps: int) -> DiffusionConfig:
    """A model trained by consistency alone (CT), with `timesteps` levels in the last grid."""
    return _consistency(size, timesteps)


def _consistency(size: int, timesteps: int) -> DiffusionConfig:
    return _model(
        size, prediction=Consistency(), timesteps=timesteps, dropout=0.0, sampler=samplers.Consistency(), steps="trailing:1"
    )


_FILES: dict[str, tuple[str, Callable[[], ModelConfig]]] = {
    "edm-imagenet64": ("edm_imagenet64_ema.pt", model_of(edm_imagenet64)),
    "cd-imagenet64-l2": ("cd_imagenet64_l2.pt", lambda: distilled(64)),
    "cd-imagenet64-lpips": ("cd_imagenet64_lpips.pt", lambda: distilled(64)),
    "ct-imagenet64": ("ct_imagenet64.pt", lambda: trained(64, 201)),
    "edm-bedroom256": ("edm_bedroom256_ema.pt", model_of(edm_bedroom256)),
    "cd-bedroom256-l2": ("cd_bedroom256_l2.pt", lambda: distilled(256)),
    "cd-bedroom256-lpips": ("cd_bedroom256_lpips.pt", lambda: distilled(256)),
    "ct-bedroom256": ("ct_bedroom256.pt", lambda: trained(256, 151)),
    "edm-cat256": ("edm_cat256_ema.pt", model_of(edm_cat256)),
    "cd-cat256-l2": ("cd_cat256_l2.pt", lambda: distilled(256)),
    "cd-cat256-lpips": ("cd_cat256_lpips.pt", lambda: distilled(256)),
    "ct-cat256": ("ct_cat256.pt", lambda: trained(256, 151)),
}

PUBLISHED: tuple[Published, ...] = tuple(
    Published(f"openai/{name}", file, model, ADM, _URL + file) for name, (file, model) in _FILES.items()
)

RUNS = (edm_imagenet64, edm_bedroom256, edm_cat256)
