"""A model under one batch's asks, with guidance and its guides."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.conditions import Ask, Composed, LowRes, signs
from lodestar.config import Note, Problem
from lodestar.core.estimate import Denoise
from lodestar.core.level import Level
from lodestar.core.noise import SeededNoise, derived
from lodestar.core.transition import Transition
from lodestar.denoiser import Bound
from lodestar.generators.guide import (
    AUGMENT,
    EPS,
    NOTHING,
    Comparing,
    Critic,
    Featured,
    Guide,
    Guides,
    Handed,
    Reader,
    Reference,
    Rival,
)
from lodestar.guidance import (
    REFERENCE,
    Composition,
    Context,
    Guidance,
    Interval,
    Likeness,
    LogP,
    Observer,
    Sees,
    Steering,
    compose,
)
from lodestar.models.diffusion import DiffusionModel
from lodestar.samplers import Sampler


@dataclass(frozen=True)
class Guided:
    """A model with its guidance and guides."""

    model: DiffusionModel
    guidance: Sequence[Guidance] = ()
    guides: Guides = field(default_factory=dict)
    reuse: int = 1
    """Number of steps from one whole evaluation of the network to the next."""
    augment: float = 0.0
    """Noise level of the small pictures that are enlarged."""

    def denoise(self, asks: Sequence[Ask], handed: Handed = NOTHING) -> Denoise:
        """The `Denoise` of one batch, for one sampling run: some guidance has memory.

        handed: the conditions' pictures. Raises Problem for models that cannot guide.
        """
        return compose(self.guidance, self.context(asks, handed))

    def between(self, ends: tuple[Ask, Ask], weights: Sequence[float]) -> Denoise:
        """The `Denoise` of a batch between two asks: weight 0 is the first, 1 the second.

        The asks' embeddings and the critics' log-probabilities are interpolated.
        """
        assert not any(isinstance(end.label, Composed) for end in ends), "a composed label has no one embedding"
        first, second = (self.context([end] * len(weights)) for end in ends)
        with torch.inference_mode(False):
            weight = torch.tensor(weights, device=self.model.device)
        bound = _toward(first.plain, second.plain, weight)
        context = replace(
            first,  # whose references and features are those of both
            plain=bound,
            pair=first.pair and bound.pair,
            critics={key: _mixed(logp, second.critics[key], weight) for key, logp in first.critics.items()},
            denoisers={role: _toward(each, second.denoisers[role], weight) for role, each in first.denoisers.items()},
            perturbed=bound.perturbed(),
            attended=bound.watched(),
        )
        return compose(self.guidance, context)

    def context(self, asks: Sequence[Ask], handed: Handed = NOTHING) -> Context:
        """The context of the guidance, bound to one batch's asks. Raises Problem for models that cannot guide."""
        model = self.model
        small = model.config.denoiser.low_res
        if small is not None and "low_res" not in handed:
            raise Problem(
                f"this model enlarges pictures of {small[0]}×{small[1]}, and is given none: lodestar upsample gives it some"
            )
        if self.augment:
            handed = {**handed, AUGMENT: torch.full((len(asks),), self.augment)}
        # Ordinary tensors: gradients of a classifier, and through the model, are taken inside of inference mode.
        with torch.inference_mode(False), torch.no_grad():
            bound = bind(model, asks, handed).reusing(self.reuse)
            return Context(
                plain=bound,
                null=None if bound.null is None else bound.unconditional(),
                pair=None if bound.null is None else bound.pair,
                critics=self._critics(asks),
                denoisers=self._rivals(asks, handed),
                perturbed=bound.perturbed(),
                attended=bound.watched(),
                observers=self._observers(asks),
                seeds=[ask.seed for ask in asks],
            )

    def _observers(self, asks: Sequence[Ask]) -> dict[tuple[str, Sees], Observer]:
        """The features of guides beside those of the reference pictures, which have the asks' own initial noise."""
        observers: dict[tuple[str, Sees], Observer] = {}
        reference = self.guides.get(REFERENCE)
        for each in (each for each in self.guidance if isinstance(each, Likeness)):
            guide = self.guides.get(each.by)
            if guide is None or reference is None:
                continue
            if not isinstance(guide, Featured):
                raise Problem(
                    f"guidance {each.kind}: {_called(guide)} tells no features of pictures: give a classifier or a CLIP"
                )
            guide.suit(self.model.config, each.sees)
            assert isinstance(reference, Reference), "checked where guides are given"
            observers[each.by, each.sees] = Observer(guide.observe, self._diffused(reference, asks))
        return observers

    def _diffused(self, reference: Reference, asks: Sequence[Ask]) -> Callable[[Level], Tensor]:
        """The reference picture of each ask at a level."""
        model, there = self.model, len(reference.pictures)
        if tuple(reference.pictures.shape[1:]) != model.shape:
            raise Problem(f"the reference picture is {tuple(reference.pictures.shape[1:])}: the model's are {model.shape}")
        for ask in asks:
            if ask.reference >= there:
                raise Problem(f"reference {ask.reference}: there are 0 to {there - 1} of them")
        x0 = model.codec.encode(reference.pictures[[ask.reference for ask in asks]].to(model.device))
        eps = SeededNoise([ask.seed for ask in asks]).start(model.space, model.device)
        return lambda level: model.config.schedule.forward(x0, level, eps)

    def _critics(self, asks: Sequence[Ask]) -> dict[tuple[str, Sees], LogP]:
        critics: dict[tuple[str, Sees], LogP] = {}
        for each in self.guidance:
            guide = self.guides.get(each.role or "")
            if isinstance(each, Steering) and each.role is not None and guide is not None:
                suits = each.compares == isinstance(guide, Comparing) and (isinstance(guide, Reader) or not each.prompted)
                if not isinstance(guide, Critic) or not suits:
                    other = "a discriminator of real and made pictures" if each.compares else "a classifier"
                    raise Problem(
                        f"guidance {each.kind}: {_called(guide)} is of another kind: give {'a CLIP' if each.prompted else other}"
                    )
                if isinstance(guide, Comparing) and guide.opponent and self.model.digest not in ("", guide.opponent):
                    told = f"guidance {each.kind}: {_called(guide)} knows the errors of another model than {self.model.name}"
                    warnings.warn(Note(told), stacklevel=2)
                guide.agree(self.model.config, each.looks_at)
                critics[each.role, each.looks_at] = guide.logp(asks, each.looks_at, self.model.device)
        return critics

    def _rivals(self, asks: Sequence[Ask], handed: Handed) -> dict[str, Denoise]:
        rivals: dict[str, Denoise] = {}
        for each in self.guidance:
            guide = self.guides.get(each.role or "")
            if not isinstance(each, Steering) and each.role is not None and guide is not None:
                if not isinstance(guide, Rival):
                    raise Problem(f"guidance {each.kind}: {_called(guide)} makes no pictures: give a diffusion model")
                guide.stand_beside(self.model.config, asks)
                rivals[each.role] = guide.bound(asks, handed)
        return rivals


def check_intervals(guidance: Sequence[Guidance], sampler: Sampler, steps: Sequence[Transition], what: str) -> None:
    """Raise Problem if an interval of guidance contains no step; what: names the steps.

    The steps of an adaptive sampler may be anywhere in between.
    """
    ratios = sorted(float(step.t.ratio) for step in steps)
    for each in guidance:
        if not isinstance(each, Interval):
            continue
        across = sampler.adaptive and each.low < ratios[-1] and ratios[0] <= each.high
        if not across and not any(each.holds(step.t) for step in steps):
            raise Problem(
                f"guidance interval:{each.low:g},{each.high:g} has no step inside: {what} have σ/α from {ratios[0]:.3g} "
                f"to {ratios[-1]:.3g}"
            )


def bind(model: DiffusionModel, asks: Sequence[Ask], handed: Handed = NOTHING) -> Bound:
    """The denoiser bound to the asks of one batch, and to the pictures that its conditions are handed."""
    pictures = _pictures(model, asks, handed)
    free = model.config.droppable and any(condition.optional for condition in model.config.denoiser.conditions)
    null = model.denoiser.null(pictures, len(asks)) if free else None
    width, seeds = model.config.denoiser.latent, [ask.seed for ask in asks]
    latents = None if width is None else lambda level: latent_noise(seeds, level, width).to(model.device)
    composition = _composition(model, asks)
    if composition is not None:
        rows, labels = composition
        asks = [asks[row].replace(label=number) for row, number in zip(rows.rows.tolist(), labels, strict=True)]
        pictures = {name: picture[rows.rows] for name, picture in pictures.items()}
    cond, keep = dict(pictures), {}
    for condition in model.config.denoiser.conditions:
        if condition.kind in pictures:
            continue
        given, kept = condition.asked(asks)
        cond[condition.kind] = given.to(model.device)
        if kept is not None:
            keep[condition.kind] = kept.to(model.device)
    return model.denoiser.bind(cond, keep, null, None if composition is None else composition[0], latents)


def latent_noise(seeds: Sequence[int], level: Level, width: int) -> Tensor:
    """The latents of a level, float32 [B, width]: of each ask's seed and the level alone."""
    return SeededNoise([derived(seed, f"latent {level.time}") for seed in seeds]).start((width,))


def small_noise(asks: Sequence[Ask], shape: tuple[int, ...]) -> Tensor:
    """The noise of the small pictures that are enlarged, float32 [B, *shape]: of each ask's seed alone."""
    return SeededNoise([derived(ask.seed, 0) for ask in asks]).start(shape)


def _pictures(model: DiffusionModel, asks: Sequence[Ask], handed: Handed) -> dict[str, Tensor]:
    """The pictures that the conditions are handed, as their encoders take them."""
    channels, *size = model.space
    known = [condition.kind for condition in model.config.denoiser.conditions]
    pictures = {name: picture.to(model.device) for name, picture in handed.items() if name in known}
    if "low_res" in pictures:
        small = model.config.denoiser.condition("low_res")
        assert isinstance(small, LowRes)
        level, eps, seen = handed.get(AUGMENT), None, pixels.encode(pictures["low_res"])
        if level is not None:
            noise = handed[EPS] if EPS in handed else small_noise(asks, tuple(seen.shape[1:]))
            level, eps = level.to(model.device), noise.to(model.device)
        # Resized here, once for the batch, and not in every step.
        pictures["low_res"] = small.enlarge(small.noised(seen, level, eps), size)
    if "masked" in known and "masked" not in pictures:
        pictures["masked"] = torch.zeros(len(asks), channels + 1, *size, device=model.device)
    return pictures


def _composition(model: DiffusionModel, asks: Sequence[Ask]) -> tuple[Composition, list[int]] | None:
    """The composition of the asks' labels and the single labels themselves; None if no label is composed, or without classes."""
    if model.config.denoiser.classes is None or not any(isinstance(ask.label, Composed) for ask in asks):
        return None
    terms = [(row, *term) for row, ask in enumerate(asks) for term in signs(ask.label).items()]
    rows, numbers, sign = zip(*terms, strict=True)
    return Composition(torch.tensor(rows, device=model.device), torch.tensor(sign, device=model.device)), list(numbers)


def _called(guide: Guide) -> str:
    return guide.name or "a model that was built in code"


def _toward(first: Denoise, second: Denoise, weight: Tensor) -> Bound:
    assert isinstance(first, Bound) and isinstance(second, Bound)
    return first.toward(second, weight)


def _mixed(first: LogP, second: LogP, weight: Tensor) -> LogP:
    def logp(x: Tensor, level: Level) -> Tensor:
        return (1 - weight) * first(x, level) + weight * second(x, level)

    return logp
