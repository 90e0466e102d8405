"""Denoisers: a network with its conditions and its prediction, the only place where mathematics and networks meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.conditions import AnyCondition, Cond, Condition, Embedding, Encoder, LabelCondition, LowRes, Signals, Texts
from lodestar.conditions.low_res import beside
from lodestar.config import Channels, Config, Problem
from lodestar.core.estimate import Estimate
from lodestar.core.level import Level, spread
from lodestar.core.prediction import AnyPrediction, Epsilon, Output
from lodestar.guidance.composition import Composition
from lodestar.nets import AnyNetwork, Part, UNetConfig
from lodestar.nets.attention import Gather, Watch, stay
from lodestar.nets.base import Kept
from lodestar.nets.layers import Linear

Variance = Literal["fixed", "learned", "learned_range"]
"""Kind of reverse variance predicted by the network: none, its logarithm, or a fraction between its bounds (Improved DDPM)."""


class DenoiserConfig(Config):
    """A denoiser: a network with its prediction and its conditions."""

    network: AnyNetwork = UNetConfig()
    """The network. The denoiser sets its channels: inputs for the data and the conditions' planes, outputs by `variance`."""
    prediction: AnyPrediction = Epsilon()
    variance: Variance = "fixed"
    channels: Channels = 3
    """Channels of the data; by default the network's."""
    conditions: tuple[AnyCondition, ...] = Field(default=(), max_length=100)
    """Conditions of the network, at most one of each kind."""
    latent: Channels | None = None
    """Numbers of a random latent at each level, with which x̂₀ is a draw from p(x₀ | x), and no expectation (denoising diffusion
    GANs, Xiao et al. 2022); None for no latent."""
    latent_layers: int = Field(default=3, ge=1, le=100)
    """Affine maps of a latent's embedding."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        names, told = [condition.kind for condition in self.conditions], self._tokens()
        for name in (name for name in names if names.count(name) > 1 or name in _RESERVED):
            raise Problem(f"condition {name!r} is given twice, or its name is taken: each has a name of its own")
        channels = self.channels if "channels" in self.model_fields_set else self._told()
        planes = sum(condition.planes(channels) for condition in self.conditions)
        outputs = channels * (1 if self.variance == "fixed" else 2)
        network = self.network.replace(in_channels=channels + planes, out_channels=outputs)
        if network.told != told:
            network = network.listening(told)
        # The only place where a configuration is completed: it is frozen once this returns.
        object.__setattr__(self, "channels", channels)
        object.__setattr__(self, "network", network)
        return self

    def _tokens(self) -> int | None:
        """Width of the conditions' tokens; None without any. Raises Problem where widths differ."""
        widths = {each.kind: each.told for each in self.conditions if each.told is not None}
        if len(set(widths.values())) > 1:
            each = ", ".join(f"{kind} {width}" for kind, width in widths.items())
            raise Problem(f"the conditions' tokens have different widths ({each}): a network attends to tokens of one width")
        return next(iter(widths.values()), None)

    def _told(self) -> int:
        """The data's channels, by those of the network. Raises Problem where none fit."""
        given = self.network.in_channels
        for channels in range(1, given + 1):
            if channels + sum(condition.planes(channels) for condition in self.conditions) == given:
                return channels
        raise Problem(f"network.in_channels is {given}: no number of channels and their conditions' planes add up to that")

    def condition(self, name: str) -> Condition | None:
        """The condition of this name, or None."""
        return next((condition for condition in self.conditions if condition.kind == name), None)

    @property
    def classes(self) -> int | None:
        """Number of classes, or None for an unconditional network."""
        label = self.condition("label")
        return label.classes if isinstance(label, LabelCondition) else None

    @property
    def text(self) -> Texts | None:
        """The condition on texts, or None."""
        return next((each for each in self.conditions if isinstance(each, Texts)), None)

    @property
    def embedding(self) -> Embedding | None:
        """The condition on a picture's embedding, or None."""
        return next((each for each in self.conditions if isinstance(each, Embedding)), None)

    @property
    def low_res(self) -> tuple[int, int] | None:
        """Height and width of an upsampler's input; None for other models."""
        small = self.condition("low_res")
        return small.size if isinstance(small, LowRes) else None

    def build(self) -> Denoiser:
        return Denoiser(self)


_RESERVED = {"network", "config", "dtype", "training", "latent"}
"""Names that a denoiser's own parts have."""


def conditions(classes: int | None = None, low_res: tuple[int, int] | None = None) -> tuple[Condition, ...]:
    """The conditions of the usual models: of so many classes, and of a small picture of this height and width."""
    label: list[Condition] = [] if classes is None else [LabelCondition(classes=classes)]
    return (*label, *([] if low_res is None else [LowRes(size=low_res)]))


class LatentEncoder(nn.Module):
    """An embedding of latents [B, latent], each scaled to unit mean square."""

    def __init__(self, latent: int, width: int, layers: int) -> None:
        super().__init__()
        further = [each for _ in range(layers - 1) for each in (nn.SiLU(), Linear(width, width))]
        self.maps = nn.Sequential(Linear(latent, width), *further)

    def forward(self, z: Tensor) -> Signals:
        return Signals(self.maps(z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()))


Latents = Callable[[Level], Tensor]
"""The latents [B, latent] of a run at a level."""


class Denoiser(nn.Module):
    """Denoiser of data [B, C, H, W] under conditions."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.network = config.network.build()
        for condition in config.conditions:
            self.add_module(condition.kind, condition.build(config.network.emb_width))
        self.latent = (
            None if config.latent is None else LatentEncoder(config.latent, config.network.emb_width, config.latent_layers)
        )
        self.dtype = torch.float32
        """Precision of the network's torso; in- and outputs are float32."""

    def encode(self, cond: Cond, keep: Mapping[str, Tensor] | None = None, count: int | None = None) -> Signals:
        """Encode conditions as signals, once per sample.

        cond: by name, [B, …] each; conditions may be missing, except pictures that are handed over. keep: bool [B] by name, False
        where a sample loses its condition. count: B, where no condition tells.
        """
        known = {condition.kind: condition for condition in self.config.conditions}
        assert not set(cond) - set(known), f"this denoiser takes no condition {sorted(set(cond) - set(known))}"
        lacking = [name for name, condition in known.items() if not condition.optional and name not in cond]
        assert not lacking, f"this denoiser cannot do without {lacking}"
        count = next((len(given) for given in cond.values()), count)
        signals = Signals()
        for name in known:
            if name in cond:
                signals = signals + self._encoder(name)(cond[name], (keep or {}).get(name))
            elif count is not None:
                signals = signals + self._encoder(name).null(count)
        return signals

    def null(self, cond: Cond, count: int) -> Signals:
        """The signals of `count` unconditional samples; cond: the conditions without a null."""
        signals = Signals()
        for condition in self.config.conditions:
            encoder = self._encoder(condition.kind)
            signals = signals + (encoder.null(count) if condition.optional else encoder(cond[condition.kind]))
        return signals

    def _encoder(self, name: str) -> Encoder:
        encoder = self.get_submodule(name)
        assert isinstance(encoder, Encoder)
        return encoder

    def output(
        self, x: Tensor, level: Level, signals: Signals, gather: Mapping[Part, Gather] | None = None, kept: Kept | None = None
    ) -> Output:
        """The network's output at x [B, C, H, W]. gather: attention overrides by part (PAG, SAG). kept: deep features."""
        scale = self.config.prediction.input_scale(level)
        time = level.time
        times = time.to(x) if isinstance(time, Tensor) else torch.full((len(x),), time, device=x.device)
        seen = x if isinstance(scale, float) and scale == 1.0 else spread(scale, x) * x
        seen = seen if signals.planes is None else beside(seen, signals.planes)
        # Networks that keep nothing, or are told no text, need not know of it.
        more = {"kept": kept, "tokens": signals.tokens, "mask": signals.mask}
        given = {name: each for name, each in more.items() if each is not None}
        value = self.network(seen, times, signals.emb, self.dtype, gather, **given)
        if self.config.variance == "fixed":
            return Output(value)
        value, variance = value.chunk(2, dim=1)
        return Output(value, frac=variance) if self.config.variance == "learned_range" else Output(value, logvar=variance)

    def forward(
        self, x: Tensor, level: Level, signals: Signals, gather: Mapping[Part, Gather] | None = None, kept: Kept | None = None
    ) -> Estimate:
        """The estimate at x [B, C, H, W]."""
        return self.output(x, level, signals, gather, kept).estimate(x, level, self.config.prediction)

    def bind(
        self, cond: Cond, keep: Mapping[str, Tensor] | None = None, null: Signals | None = None,
        composition: Composition | None = None, latents: Latents | None = None,
    ) -> Bound:  # fmt: skip
        """A `Denoise` under these conditions; see `encode`. null: the unconditional signals (`Denoiser.null`).

        With a composition of T labels, there are T samples in `cond`, and B in `null`. latents: of the B samples.
        """
        return Bound(self, self.encode(cond, keep), null, composition, latents=latents)

    def lower(self, dtype: torch.dtype) -> Self:
        """Keep and compute the torso in `dtype`, for inference. The last norm, the head and the embeddings stay in float32."""
        self.dtype = dtype
        self.network.lower(dtype)
        return self


class Reuse:
    """The deep features of one run of sampling: one in so many evaluations is whole, and the others reuse its features.

    The first evaluation of another kind is whole as well, as it is inside of an interval of guidance, and outside again.
    """

    def __init__(self, every: int = 1) -> None:
        self.every, self._calls, self._asked, self._kept = every, 0, "", Kept()

    def __call__(self, asked: str) -> Kept | None:
        """The features for an evaluation, empty for a whole one; None without reuse. asked: "plain", "null", or a "pair"."""
        if self.every == 1:
            return None
        if self._calls % self.every == 0 or asked != self._asked:
            self._kept = Kept()
        self._asked, self._calls = asked, self._calls + 1
        return self._kept


class Bound:
    """A denoiser under given conditions: a `Denoise`, with its unconditional and perturbed variants for guidance."""

    def __init__(
        self,
        denoiser: Denoiser,
        signals: Signals,
        null: Signals | None = None,
        composition: Composition | None = None,
        gather: Mapping[Part, Gather] | None = None,
        latents: Latents | None = None,
    ) -> None:
        self.denoiser, self.signals, self.null, self.composition, self.gather = denoiser, signals, null, composition, gather
        self.latents = latents
        self._kind, self._reuse = "plain", Reuse()
        self._joined: Signals | None = None

    def reusing(self, every: int) -> Self:
        """The denoiser for one run of sampling, with `Reuse` of the deep features, which its unconditional variant shares."""
        self._reuse = Reuse(every)
        return self

    def __call__(self, x: Tensor, level: Level) -> Estimate:
        if self.composition is not None:
            return self._both(x, level, self._kind)[0]
        signals, kept = self._drawn(self.signals, level), self._reuse(self._kind)
        estimate: Estimate = self.denoiser(x, level, signals, self.gather, kept)
        return estimate

    def _drawn(self, signals: Signals, level: Level, twice: bool = False) -> Signals:
        """Signals with the latents of a level, if there are any. twice: those of a composition's labels, then of the samples."""
        if self.latents is None or self.denoiser.latent is None:
            return signals
        z = self.latents(level)
        if twice:
            z = torch.cat([z if self.composition is None else z[self.composition.rows], z])
        found: Signals = self.denoiser.latent(z)
        return signals + found

    def toward(self, other: Bound, weight: Tensor) -> Bound:
        """The conditions between these (weight 0) and another's (1), by their embeddings; weight float32 [B]."""
        return Bound(self.denoiser, self.signals.toward(other.signals, weight), self.null, latents=self.latents)

    def unconditional(self) -> Bound:
        """The denoiser without its conditions."""
        assert self.null is not None, "this model was never trained without its conditions"
        found = Bound(self.denoiser, self.null, self.null, None, self.gather, self.latents)
        found._kind, found._reuse = "null", self._reuse
        return found

    def pair(self, x: Tensor, level: Level) -> tuple[Estimate, Estimate]:
        """The conditional and the unconditional estimate at x [B, C, H, W], from one doubled batch; of T labels, from T + B."""
        return self._both(x, level, "pair")

    def _both(self, x: Tensor, level: Level, asked: str) -> tuple[Estimate, Estimate]:
        assert self.null is not None, "this model was never trained without its conditions"
        each = x if self.composition is None else x[self.composition.rows]
        if self._joined is None:
            self._joined = self.signals.beside(self.null)
        signals = self._drawn(self._joined, level, twice=True)
        both = self.denoiser.output(torch.cat([each, x]), level, signals, self.gather, self._reuse(asked))
        count, prediction = len(each), self.denoiser.config.prediction
        conditional, unconditional = (
            Output(
                both.value[rows],
                None if both.frac is None else both.frac[rows],
                None if both.logvar is None else both.logvar[rows],
            ).estimate(of, level, prediction)
            for of, rows in ((each, slice(None, count)), (x, slice(count, None)))
        )
        return conditional if self.composition is None else self.composition(conditional, unconditional), unconditional

    def perturbed(self) -> dict[str, Bound]:
        """Denoisers with one part's attention maps replaced by the identity, for every part with attention."""
        return {part: self._attending({part: stay}) for part in self.denoiser.config.network.attending}

    def watched(self) -> Callable[[Tensor, Level], tuple[Estimate, Tensor]] | None:
        """`attended`, where there is attention in the middle of the network; else None."""
        return self.attended if "middle" in self.denoiser.config.network.attending else None

    def attended(self, x: Tensor, level: Level) -> tuple[Estimate, Tensor]:
        """The estimate at x [B, C, H, W], and the attention received by each place in the middle: float32 [B, 1, h, w] of mean 1.

        For composed labels, the attention of the unconditional model.
        """
        watch = Watch()
        estimate = self._attending({"middle": watch})(x, level)
        height, width = (side // self.denoiser.config.network.divisor for side in x.shape[2:])
        return estimate, watch.seen[-len(x) :].view(len(x), 1, height, width)

    def _attending(self, gather: Mapping[Part, Gather]) -> Bound:
        return Bound(self.denoiser, self.signals, self.null, self.composition, gather, self.latents)
