"""A training run as a configuration: task, data and loop."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lodestar.config import Config, Seed
from lodestar.data import Transforms
from lodestar.tasks import AnyTask, OptimizerConfig, TrainDenoiser
from lodestar.tasks.base import check_size
from lodestar.training.ema import AnyProfile, HalfLife


class DataConfig(Config):
    """Source and preprocessing of the pictures."""

    source: str = "digits"
    """A parquet, .npz, .zip or tar file, tars by a pattern, a folder, a hub data set, "digits", "shapes"; a split after an @."""
    validation: str | None = None
    """Source of validation pictures, specified like `source`."""
    held_out: float = Field(default=0.0, ge=0, lt=1)
    """Share of the source held out for validation, the same pictures in every run."""
    image_column: str | None = None
    """Column of the pictures in a table; None: the first column of pictures."""
    label_column: str | None = None
    """Column of the classes in a table; None: the column "label", or the first column of classes."""
    caption_column: str | None = None
    """Columns of the captions in a table, with commas and patterns (``caption*``), one being drawn each time; None: the column
    "caption", or "text". Captions are read for tasks that need them, or if their column is named."""
    style_column: str | None = None
    """Column of texts or classes in a table that is the field "style", and a word of every second caption; None: none."""
    labels: bool = True
    """Read the classes. Otherwise, or for an unconditional task, the column of classes is not looked at."""
    transforms: Transforms = Transforms()
    channels: Literal[1, 3] | None = None
    """Channels to convert to, grey or RGB; None: grey where all pictures are stored as grey, RGB where any is in colour."""
    skip_bad: bool = False
    """Skip and count pictures that cannot be decoded, or have no caption, instead of stopping."""
    workers: int = Field(default=1, ge=0, le=1_024)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.held_out and self.validation is not None:
            raise ValueError(f"held_out is {self.held_out} and validation {self.validation!r}: give one of them")
        return self


_LARGEST = 1_000_000
"""Maximum number of samples in a batch."""


class TrainConfig(Config):
    """Settings of the training loop."""

    images: int = Field(default=1_000_000, ge=1, le=10**12)
    """Length of the run in images, repeats counted."""
    batch_size: int = Field(default=64, ge=1, le=_LARGEST)
    batch_doublings: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(), max_length=20)
    """Shares of the run after each of which the batch is twice as large: (0.5, 0.75) ends with four times `batch_size`."""
    microbatch: int | None = Field(default=None, ge=1, le=1_000_000)
    """Samples in each piece of gradient accumulation, which saves memory; None is the whole batch."""
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: tuple[AnyProfile, ...] = Field(default=(HalfLife(),), min_length=1, max_length=100)
    """Averages of the weights; the first is sampled from and saved as the model."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the networks' torsos; auto is the device's fastest."""
    compile: bool = False
    """Compile the training step with torch.compile."""
    shard: Literal["none", "full"] = "none"
    """Division of weights, gradients, optimizer and averages among processes (FSDP), or a copy on each."""
    reduce: Literal["float32", "bfloat16"] = "float32"
    """Number format in which gradients are sent and summed over processes; bfloat16 halves what is sent, and rounds each gradient
    to 8 bits, as the torsos' are in training in bfloat16."""
    seed: Seed = 0
    init: str | None = None
    """Name of a model (embedded, a run's folder, a file) whose weights, as far as they fit, initialize the run."""
    log_every: int = Field(default=2_000, ge=1, le=10**12)
    """Images between lines of the log."""
    save_every: int = Field(default=50_000, ge=1, le=10**12)
    """Images between checkpoints."""
    keep: int = Field(default=1, ge=1, le=10_000)
    """Number of states that are kept; earlier ones are called by their images seen."""
    save_behind: bool | None = None
    """Write checkpoints while training goes on, from a copy of the state on the CPU; None: on GPUs."""
    preview_every: int = Field(default=50_000, ge=1, le=10**12)
    """Images between sample grids, and validations."""
    patience: int = Field(default=8, ge=1, le=1_000_000)
    """Maximum number of consecutive steps without a finite loss or gradient, before the run stops."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        (label, count), *_ = Counter(profile.label for profile in self.ema).most_common(1)
        if count > 1:
            raise ValueError(f"ema has {count} averages called {label!r}, which is also their file's name: keep one of them")
        if (largest := self.batch_at(self.images)) > _LARGEST:
            raise ValueError(f"batch_doublings end with batches of {largest:,}: at most {_LARGEST:,}")
        return self

    def batch_at(self, images_seen: int) -> int:
        """Size of the batch that begins at images_seen."""
        return self.batch_size << sum(images_seen >= share * self.images for share in self.batch_doublings)


class Run(Config):
    """A whole training run."""

    task: AnyTask = TrainDenoiser()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        pairing = self.task.pairing if isinstance(self.task, TrainDenoiser) else "independent"
        if pairing != "independent" and self.train.microbatch is not None:
            raise ValueError(f"task.pairing is {pairing!r}, of the whole batch: train.microbatch must be null")
        if (window := self.data.transforms.window) is not None:
            denoiser = self.task.model.denoiser if isinstance(self.task, TrainDenoiser) else None
            if denoiser is None or denoiser.low_res is None:
                raise ValueError("data.transforms.whole is for upsamplers, which make the whole of what they learn of windows")
            check_size(window, denoiser.network)
        return self
