"""What the runs of several papers are made of."""

from __future__ import annotations

from collections.abc import Callable

from lodestar.convert.family import ModelConfig
from lodestar.core.draws import AnyLevels, Uniform
from lodestar.data import Transforms
from lodestar.models.diffusion import DiffusionConfig
from lodestar.objectives import AnyObjective, Hybrid
from lodestar.tasks import Denoise
from lodestar.train.ema import Decay
from lodestar.train.run import DataConfig, OptimizerConfig, Run, TrainConfig

_HYBRID, _UNIFORM = Hybrid(), Uniform()

MULTIPLIERS: dict[int, tuple[float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),
}
"""Widths of the resolutions by the size of the pictures, as OpenAI's code has them."""


def attention(size: int, sides: tuple[int, ...]) -> tuple[int, ...]:
    """The factors of reduction at which pictures of a size have these sides, where papers say "attention at 32, 16, 8"."""
    return tuple(sorted(size // side for side in sides))


def denoise(
    model: DiffusionConfig,
    *,
    images: int,
    batch_size: int,
    rate: float,
    objective: AnyObjective = _HYBRID,
    levels: AnyLevels = _UNIFORM,
    decay: float = 0.9999,
    warmup_images: int = 0,
    clip: float | None = None,
    flip: bool = True,
    source: str = "pictures",
) -> Run:
    """A published diffusion model's run: AdamW without decay, one plain average."""
    return Run(
        task=Denoise(
            model=model, objective=objective, levels=levels, conditional=model.denoiser.classes is not None, label_drop=0.0
        ),
        data=DataConfig(source=source, transforms=Transforms(size=model.size, flip=flip)),
        train=TrainConfig(
            images=images,
            batch_size=batch_size,
            optimizer=OptimizerConfig(rate=rate, warmup_images=warmup_images, clip=clip),
            ema=(Decay(decay=decay),),
        ).replace(**every(batch_size)),
    )


def every(batch_size: int) -> dict[str, int]:
    """How often a long run logs (every 10 steps), and saves and previews (every 10,000, as OpenAI's code does), in images."""
    return {"log_every": 10 * batch_size, "save_every": 10_000 * batch_size, "preview_every": 10_000 * batch_size}


def model_of(run: Callable[[], Run]) -> Callable[[], ModelConfig]:
    """The configuration of the model that a run trains, made when it is asked for."""
    return lambda: run().task.model
