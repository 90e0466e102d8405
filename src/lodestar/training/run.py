"""A training run as a configuration: what to learn, from what, and how."""

from __future__ import annotations

from collections import Counter
from typing import Literal, Self

from pydantic import Field, model_validator

from lodestar.config import Config, Seed
from lodestar.data import Transforms
from lodestar.tasks import AnyTask, OptimizerConfig, TrainDenoiser
from lodestar.training.ema import AnyProfile, HalfLife


class DataConfig(Config):
    """Where the pictures come from and what is done to them."""

    source: str = "digits"
    """A parquet, .npz, .zip or tar file, a folder, a hub data set (its split after an @: ``owner/name@test``), or "digits"."""
    validation: str | None = None
    """Pictures, named like `source`, for the numbers that a task reports on held-out ones."""
    held_out: float = Field(default=0.0, ge=0, lt=1)
    """Or the share of the source that is kept out of training for that, the same pictures in every run."""
    image_column: str | None = None
    """Of a table, the pictures; None: the first column of such."""
    label_column: str | None = None
    """Of a table, the classes; None: the column "label", or the first of classes."""
    labels: bool = True
    """Read the classes. Where they are not, or a task does not condition on them, what holds them is not looked at."""
    transforms: Transforms = Transforms()
    channels: Literal[1, 3] | None = None
    """Channels to convert to, grey or RGB; None: grey where all pictures are stored as grey, RGB where any is in colour."""
    skip_bad: bool = False
    """Skip and count pictures that cannot be decoded, instead of stopping."""
    workers: int = Field(default=1, ge=0, le=1_024)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.held_out and self.validation is not None:
            raise ValueError(f"held_out is {self.held_out} and validation {self.validation!r}: give one of them")
        return self


class TrainConfig(Config):
    """The loop."""

    images: int = Field(default=1_000_000, ge=1, le=10**12)
    """The run ends when it has seen so many, repeats counted."""
    batch_size: int = Field(default=64, ge=1, le=1_000_000)
    microbatch: int | None = Field(default=None, ge=1, le=1_000_000)
    """Accumulate the gradient over pieces of so many samples (to save memory), or None."""
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: tuple[AnyProfile, ...] = Field(default=(HalfLife(),), min_length=1, max_length=100)
    """Averages to keep; the first is the one that is sampled from and saved as the model."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the networks' torsos; auto is what the device is fastest in."""
    compile: bool = False
    """Compile the training step with torch.compile."""
    seed: Seed = 0
    init: str | None = None
    """Begin with the weights, where they fit, of this model (an embedded one's name, a run's folder, a file)."""
    log_every: int = Field(default=2_000, ge=1, le=10**12)
    """Images between lines of the log."""
    save_every: int = Field(default=50_000, ge=1, le=10**12)
    """Images between checkpoints."""
    preview_every: int = Field(default=50_000, ge=1, le=10**12)
    """Images between sample grids, and validations."""
    patience: int = Field(default=8, ge=1, le=1_000_000)
    """Stop after so many steps in a row whose loss or gradient is not finite."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        (label, count), *_ = Counter(profile.label for profile in self.ema).most_common(1)
        if count > 1:
            raise ValueError(f"ema has {count} averages called {label!r}, which is also their file's name: keep one of them")
        return self


class Run(Config):
    """A whole training run."""

    task: AnyTask = TrainDenoiser()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
