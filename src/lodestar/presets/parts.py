"""Common parts of several papers' runs."""

from __future__ import annotations

from collections.abc import Callable

from lodestar.conversion.family import ModelConfig
from lodestar.core.draws import AnyLevels, Uniform
from lodestar.core.schedule import AnySchedule
from lodestar.data import Transforms
from lodestar.data.imagenet import NAMES
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.objectives import AnyObjective, Hybrid
from lodestar.samplers import Ancestral
from lodestar.tasks import OptimizerConfig, TrainClassifier, TrainDenoiser
from lodestar.training.ema import Decay
from lodestar.training.run import DataConfig, Run, TrainConfig

_HYBRID, _UNIFORM = Hybrid(), Uniform()


def attention(size: int, sides: tuple[int, ...]) -> tuple[int, ...]:
    """The factors of reduction at which pictures of a size have these sides, where papers say "attention at 32, 16, 8"."""
    return tuple(sorted(size // side for side in sides))


def small_unet() -> UNetConfig:
    """The U-Net of the small models of captioned pictures of 32×32, told where it is, as captions tell left and right."""
    return UNetConfig(
        width=32,
        multipliers=(1, 2, 4),
        blocks=(1, 2, 2),
        attention=(2, 4),
        head_channels=32,
        norm_groups=8,
        resample="plain",
        coordinates=True,
        in_channels=3,
        out_channels=3,
    )


def openai(
    network: UNetConfig,
    size: int,
    *,
    classes: int | None,
    low_res: int | None,
    schedule: AnySchedule,
    steps: str,
) -> DiffusionConfig:
    """A model of square pictures as OpenAI's code has them: ε with a learned range of variances, ImageNet's classes or none.

    network: but for its channels. low_res: the side of the pictures that it enlarges, or None. Sampled with the ancestral chain.
    """
    denoiser = DenoiserConfig(
        network=network,
        variance="learned_range",
        channels=3,
        conditions=conditions(classes, None if low_res is None else (low_res, low_res)),
    )
    names = NAMES if classes is not None else None
    return DiffusionConfig(denoiser=denoiser, schedule=schedule, size=(size, size), names=names, sampler=Ancestral(), steps=steps)


def denoise(
    model: DiffusionConfig,
    train: TrainConfig,
    *,
    objective: AnyObjective = _HYBRID,
    levels: AnyLevels = _UNIFORM,
    flip: bool = True,
    source: str = "pictures",
) -> Run:
    """A published diffusion model's run."""
    return Run(
        task=TrainDenoiser(
            model=model, objective=objective, levels=levels, conditional=model.denoiser.classes is not None, label_drop=0.0
        ),
        data=DataConfig(source=source, transforms=Transforms(size=model.size, flip=flip)),
        train=train,
    )


def loop(
    iterations: int,
    batch_size: int,
    rate: float = 1e-4,
    *,
    warmup_images: int = 0,
    clip: float | None = None,
    decay: float = 0.9999,
) -> TrainConfig:
    """The loop of a published run of so many steps: AdamW without weight decay, one plain average.

    It logs every 10 steps, and saves and previews every 10,000, as OpenAI's code does.
    """
    return TrainConfig(
        images=batch_size * iterations,
        batch_size=batch_size,
        optimizer=OptimizerConfig(rate=rate, warmup_images=warmup_images, clip=clip),
        ema=(Decay(decay=decay),),
        log_every=10 * batch_size,
        save_every=10_000 * batch_size,
        preview_every=10_000 * batch_size,
    )


def model_of(run: Callable[[], Run]) -> Callable[[], ModelConfig]:
    """The configuration of a run's model, made on demand."""

    def model() -> ModelConfig:
        task = run().task
        assert isinstance(task, TrainDenoiser | TrainClassifier)
        return task.model

    return model
