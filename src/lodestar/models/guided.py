"""A model under the labels of one batch, with guidance around it and whatever that needs: a classifier, a weaker model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.conditions import Composed, Label, sign_table, signs
from lodestar.config import Problem
from lodestar.core.estimate import Denoise
from lodestar.core.level import Level
from lodestar.core.transition import Transition
from lodestar.denoiser import Bound
from lodestar.guidance import AnyGuidance, Classifier, Composition, Context, Interval, compose
from lodestar.models.agreement import check_guide, check_weak
from lodestar.models.classifier import PLAIN, PictureClassifier
from lodestar.samplers import AnySampler

if TYPE_CHECKING:
    from lodestar.models.diffusion import Diffusion

LogP = Callable[[Tensor, Level], Tensor]
"""(x [B, C, H, W], level) → a log-probability [B]."""


def guided(
    model: Diffusion,
    guidance: Sequence[AnyGuidance],
    labels: Sequence[Label],
    classifier: PictureClassifier | None,
    low_res: Tensor | None = None,
    weak: Diffusion | None = None,
) -> Denoise:
    """The `Denoise` of one batch, for one sampling: some guidance remembers what it said on the way.

    low_res: the pictures uint8 [B, C, h, w] that an upsampler enlarges. Raises Problem for models that cannot guide.
    """
    return compose(guidance, _context(model, guidance, labels, classifier, low_res, weak))


def between(
    model: Diffusion,
    guidance: Sequence[AnyGuidance],
    ends: tuple[Label, Label],
    weights: Sequence[float],
    classifier: PictureClassifier | None,
    weak: Diffusion | None = None,
) -> Denoise:
    """The `Denoise` of a batch whose samples are somewhere between two labels: weight 0 is the first, 1 the second.

    The labels' embeddings are interpolated, and a classifier's log-probabilities of them.
    """
    assert not any(isinstance(end, Composed) for end in ends), "a composed label has no one embedding"
    first, second = (_context(model, guidance, [end] * len(weights), classifier, weak=weak) for end in ends)
    assert isinstance(first.plain, Bound) and isinstance(second.plain, Bound)
    with torch.inference_mode(False):
        weight = torch.tensor(weights, device=model.device)

    def mixed(one: LogP | None, other: LogP | None) -> LogP | None:
        if one is None or other is None:
            return None
        return lambda x, level: (1 - weight) * one(x, level) + weight * other(x, level)

    bound, worse = first.plain.toward(second.plain, weight), None
    if first.weak is not None:
        assert isinstance(first.weak, Bound) and isinstance(second.weak, Bound)
        worse = first.weak.toward(second.weak, weight)
    context = replace(
        first,
        plain=bound,
        pair=first.pair and bound.pair,
        critic=mixed(first.critic, second.critic),
        clean=mixed(first.clean, second.clean),
        weak=worse,
        perturbed=bound.perturbed(),
        attended=bound.attended,
    )
    return compose(guidance, context)


def check_intervals(guidance: Sequence[AnyGuidance], sampler: AnySampler, steps: Sequence[Transition], what: str) -> None:
    """Raise Problem where an interval of guidance has none of the steps inside; what: names the steps.

    An adaptive sampler has steps anywhere between.
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


def _context(
    model: Diffusion,
    guidance: Sequence[AnyGuidance],
    labels: Sequence[Label],
    classifier: PictureClassifier | None,
    low_res: Tensor | None = None,
    weak: Diffusion | None = None,
) -> Context:
    """What this guidance may need, bound to the labels of one batch. Raises Problem for models that cannot guide."""
    small = model.config.denoiser.low_res
    if small is not None and low_res is None:
        raise Problem(
            f"this model enlarges pictures of {small[0]}×{small[1]}, and is given none: lodestar upsample gives it some"
        )
    # Ordinary tensors: gradients of a classifier, and through the model, are taken inside of inference mode.
    with torch.inference_mode(False), torch.no_grad():
        picture = {} if low_res is None else {"low_res": pixels.encode(low_res.to(model.device))}
        bound = bind(model, labels, picture)
        critic, clean = _critics(model, guidance, labels, classifier)
        worse = None
        if weak is not None:
            check_weak(model.config, weak.config)
            for label in dict.fromkeys(labels):
                weak.check_label(label, classifier)
            worse = bind(weak, labels, picture)
    free = model.config.denoiser.classes is not None and model.config.droppable
    return Context(
        plain=bound,
        null=model.denoiser.bind(picture) if free else None,
        pair=bound.pair if free else None,
        critic=critic,
        clean=clean,
        weak=worse,
        perturbed=bound.perturbed(),
        attended=bound.attended,
    )


def bind(model: Diffusion, labels: Sequence[Label], picture: Mapping[str, Tensor]) -> Bound:
    """The denoiser under the labels of one batch, and the pictures that it enlarges."""
    if model.config.denoiser.classes is None:
        return model.denoiser.bind(picture)
    if not any(isinstance(label, Composed) for label in labels):
        numbers = torch.tensor([label or 0 for label in labels], device=model.device)
        keep = torch.tensor([label is not None for label in labels], device=model.device)
        return model.denoiser.bind({**picture, "label": numbers}, {"label": keep})
    terms = [(row, *term) for row, label in enumerate(labels) for term in signs(label).items()]
    rows, numbers, sign = (torch.tensor(values, device=model.device) for values in zip(*terms, strict=True))
    return model.denoiser.bind({**picture, "label": numbers}, composition=Composition(rows, sign))


def _critics(
    model: Diffusion, guidance: Sequence[AnyGuidance], labels: Sequence[Label], classifier: PictureClassifier | None
) -> tuple[LogP | None, LogP | None]:
    """log p(labels | x) of noisy and of clean pictures; the former None where the classifier knows no noise."""
    if classifier is None:
        return None, None
    noisy = any(isinstance(each, Classifier) and each.sees == "noisy" for each in guidance)
    check_guide(model.config, classifier.config, noisy)
    table = sign_table(labels, classifier.config.network.classes).to(model.device)

    def critic(x: Tensor, level: Level) -> Tensor:
        return classifier.logp(x, level, table)

    return critic if noisy else None, lambda x, level: classifier.logp(x, PLAIN, table)
