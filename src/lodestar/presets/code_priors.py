"""Runs of priors of codes, for the VQ-VAEs of digits, CIFAR-10 and emoji: ``digits.vqvae_prior --codes runs/vqvae``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from lodestar.models.code_prior import CodePriorConfig
from lodestar.nets import MapConfig, PixelCnnConfig, PixelSnailConfig, TransformerConfig
from lodestar.presets import autoencoders
from lodestar.tasks import TrainCodePrior, TrainVQVAE
from lodestar.training.run import Run

_NETWORKS: Mapping[str, tuple[MapConfig, MapConfig]] = {
    "pixelsnail": (
        PixelSnailConfig(width=32, kernel=3, blocks=2, depth=1, hidden=32),
        PixelSnailConfig(width=128, blocks=2, depth=4, hidden=64),
    ),
    "pixelcnn": (PixelCnnConfig(width=32, kernel=3, layers=4, hidden=64), PixelCnnConfig(width=96, layers=12, hidden=256)),
    "transformer": (
        TransformerConfig(width=64, layers=3, heads=4),
        TransformerConfig(width=256, layers=8, heads=8),
    ),
}
"""Networks by kind: for the digits' few codes, and for others."""


def prior(data: str, levels: int = 1, network: str = "pixelsnail") -> Run:
    """A prior of the codes of the VQ-VAE preset with so many levels; PixelSNAIL attends on the top level alone, as published."""
    start = autoencoders.vqvae(data, levels)
    assert isinstance(start.task, TrainVQVAE)
    top = _NETWORKS[network][data != "digits"]
    lower = top.replace(attention=False) if isinstance(top, PixelSnailConfig) else top
    model = CodePriorConfig(codec=start.task.model, networks=(*[lower] * (levels - 1), top))
    transforms = start.data.transforms.replace(flip=False)
    return start.replace(
        task=TrainCodePrior(model=model, conditional=data != "emoji"), data=start.data.replace(transforms=transforms)
    )


KINDS: Mapping[str, Callable[[str], Run]] = {
    "vqvae_prior": prior,
    "vqvae2_prior": partial(prior, levels=2),
    "vqvae_pixelcnn": partial(prior, network="pixelcnn"),
    "vqvae_transformer": partial(prior, network="transformer"),
}
"""Kinds of runs: PixelSNAIL over the codes of a VQ-VAE and of a VQ-VAE-2, and other networks."""

RUNS: Mapping[str, Callable[[], Run]] = {
    f"{data}.{kind}": partial(make, data) for data in autoencoders.DATA for kind, make in KINDS.items()
}
"""Runs by name."""
