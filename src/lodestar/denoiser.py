"""A network with its conditions and its parameterization: the only place where mathematics and networks meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.conditions import Cond, LabelCondition, Signals
from lodestar.conditions.low_res import beside
from lodestar.config import CLASSES, Config, Problem, Side
from lodestar.core.estimate import Estimate
from lodestar.core.level import Level, spread
from lodestar.core.prediction import AnyPrediction, Epsilon, Output
from lodestar.guidance.composition import Composition
from lodestar.nets.attention import Gather, Watch, stay
from lodestar.nets.unet import Part, UNetConfig

Variance = Literal["fixed", "learned", "learned_range"]
"""What the network says of the reverse variance: nothing, its logarithm, or a fraction between its bounds (Improved DDPM)."""


class DenoiserConfig(Config):
    """A denoiser."""

    network: UNetConfig = UNetConfig()
    prediction: AnyPrediction = Epsilon()
    variance: Variance = "fixed"
    classes: int | None = Field(default=None, ge=1, le=CLASSES)
    """Number of classes it may be conditioned on, or None."""
    low_res: tuple[Side, Side] | None = None
    """Height and width of the pictures that it enlarges, or None where it makes pictures from noise alone."""

    @property
    def channels(self) -> int:
        """Channels of the data; the network is given as many more where it enlarges a picture."""
        return self.network.in_channels if self.low_res is None else self.network.in_channels // 2

    @model_validator(mode="after")
    def _channels(self) -> Self:
        if self.low_res is not None and self.network.in_channels % 2:
            raise Problem(f"network.in_channels is {self.network.in_channels}: with low_res it is twice the data's channels")
        expected = self.channels * (1 if self.variance == "fixed" else 2)
        if self.network.out_channels != expected:
            raise Problem(
                f"network.out_channels is {self.network.out_channels}: {self.channels} channels with variance "
                f"{self.variance!r} need {expected}"
            )
        return self

    def build(self) -> Denoiser:
        return Denoiser(self)


class Denoiser(nn.Module):
    """Predicts clean data from noisy data [B, C, H, W] under conditions."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.network = config.network.build()
        self.label = None if config.classes is None else LabelCondition(config.classes, config.network.emb_width)
        self.dtype = torch.float32
        """Precision of the network's torso; in- and outputs are float32."""

    def encode(self, cond: Cond, keep: Mapping[str, Tensor] | None = None) -> Signals:
        """Conditions to signals, once per sample.

        cond: {"label": int64 [B], "low_res": float32 [B, C, h, w] in [−1, 1]} or fewer of them; an upsampler needs its picture.
        keep: bool [B] by name, False where a sample loses its condition.
        """
        unknown = set(cond) - ({"label"} if self.label else set()) - ({"low_res"} if self.config.low_res else set())
        assert not unknown, f"this denoiser takes no condition {sorted(unknown)}"
        assert self.config.low_res is None or "low_res" in cond, "an upsampler needs a picture to enlarge"
        label = self.label(cond["label"], (keep or {}).get("label")) if self.label and "label" in cond else None
        return Signals(label, cond.get("low_res"))

    def output(self, x: Tensor, level: Level, signals: Signals, gather: Mapping[Part, Gather] | None = None) -> Output:
        """The network's word at x [B, C, H, W]. gather: what the attention of a part does instead of its own."""
        scale = self.config.prediction.input_scale(level)
        time = level.time
        times = time.to(x) if isinstance(time, Tensor) else torch.full((len(x),), time, device=x.device)
        seen = x if isinstance(scale, float) and scale == 1.0 else spread(scale, x) * x
        seen = seen if signals.planes is None else beside(seen, signals.planes)
        value = self.network(seen, times, signals.emb, self.dtype, gather)
        if self.config.variance == "fixed":
            return Output(value)
        value, variance = value.chunk(2, dim=1)
        return Output(value, frac=variance) if self.config.variance == "learned_range" else Output(value, logvar=variance)

    def forward(self, x: Tensor, level: Level, signals: Signals, gather: Mapping[Part, Gather] | None = None) -> Estimate:
        """The belief at x [B, C, H, W]."""
        return self.output(x, level, signals, gather).estimate(x, level, self.config.prediction)

    def bind(self, cond: Cond, keep: Mapping[str, Tensor] | None = None, composition: Composition | None = None) -> Bound:
        """A `Denoise` under these conditions; see `encode`. With a composition of T labels, there are T of them."""
        return Bound(self, self.encode(cond, keep), composition)

    def lower(self, dtype: torch.dtype) -> Self:
        """Keep and compute the torso in `dtype`, for inference. The last norm, the head and the embeddings stay in float32."""
        self.dtype = dtype
        network = self.network
        for part in (network.stem, network.down, network.middle, network.up):
            part.to(dtype)
        return self


class Bound:
    """A denoiser under given conditions: a `Denoise` that can also say what it would believe without them, or inattentively."""

    def __init__(
        self,
        denoiser: Denoiser,
        signals: Signals,
        composition: Composition | None = None,
        gather: Mapping[Part, Gather] | None = None,
    ) -> None:
        self.denoiser, self.signals, self.composition, self.gather = denoiser, signals, composition, gather

    def __call__(self, x: Tensor, level: Level) -> Estimate:
        if self.composition is not None:
            return self.pair(x, level)[0]
        return self.denoiser(x, level, self.signals, self.gather)

    def toward(self, other: Bound, weight: Tensor) -> Bound:
        """The conditions between these (weight 0) and another's (1), by their embeddings; weight float32 [B]."""
        if self.signals.emb is None or other.signals.emb is None:
            assert self.signals.emb is other.signals.emb, "one of the two is unconditional"
            return self
        # The two products, and not lerp, are exactly the one or the other at the ends.
        weight = weight[:, None]
        emb = (1 - weight) * self.signals.emb + weight * other.signals.emb
        return Bound(self.denoiser, replace(self.signals, emb=emb))

    def pair(self, x: Tensor, level: Level) -> tuple[Estimate, Estimate]:
        """The conditional and the unconditional estimate at x [B, C, H, W], from one doubled batch; of T labels, from T + B."""
        assert self.signals.emb is not None, "nothing is bound: both estimates are the same"
        each, planes = x, self.signals.planes
        if self.composition is not None:
            each = x[self.composition.rows]
        emb = torch.cat([self.signals.emb, self.signals.emb.new_zeros(len(x), self.signals.emb.shape[1])])
        if planes is not None:
            planes = torch.cat([planes if self.composition is None else planes[self.composition.rows], planes])
        output = self.denoiser.output(torch.cat([each, x]), level, Signals(emb, planes), self.gather)
        count, prediction = len(each), self.denoiser.config.prediction
        halves = (
            Output(
                output.value[rows],
                None if output.frac is None else output.frac[rows],
                None if output.logvar is None else output.logvar[rows],
            ).estimate(of, level, prediction)
            for of, rows in ((each, slice(None, count)), (x, slice(count, None)))
        )
        conditional, unconditional = halves
        return conditional if self.composition is None else self.composition(conditional, unconditional), unconditional

    def perturbed(self) -> dict[str, Bound]:
        """The same with the attention maps of one part replaced by the identity, for every part that attends."""
        parts = self.denoiser.config.network.attending
        return {part: Bound(self.denoiser, self.signals, self.composition, {part: stay}) for part in parts}

    def attended(self, x: Tensor, level: Level) -> tuple[Estimate, Tensor]:
        """The estimate at x [B, C, H, W], and how much each place is attended to in the middle: float32 [B, 1, h, w] of mean 1.

        Of composed labels, what the unconditional model attends to.
        """
        watch = Watch()
        estimate = Bound(self.denoiser, self.signals, self.composition, {"middle": watch})(x, level)
        height, width = (side // self.denoiser.config.network.divisor for side in x.shape[2:])
        return estimate, watch.seen[-len(x) :].view(len(x), 1, height, width)
