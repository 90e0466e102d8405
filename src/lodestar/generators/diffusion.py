"""A diffusion model as a generator of frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import InstanceOf
from torch import Tensor

from lodestar.conditions import Ask, Composed, Label, Texts, signs
from lodestar.config import Problem, checked
from lodestar.core.estimate import check_shifting
from lodestar.core.level import Level
from lodestar.core.noise import SeededNoise
from lodestar.core.plan import Optimized, parse_plan
from lodestar.core.transition import Transition
from lodestar.denoiser import Bound
from lodestar.generators.agreement import check_augment, check_reuse, check_rival, note_sampler, note_unasked
from lodestar.generators.editor import Editor
from lodestar.generators.edits import AnyEdit
from lodestar.generators.edits.arrange import gather
from lodestar.generators.edits.editing import PreparedEdit, check_material, handed_of, note_tiles, sampler_of, shape_of
from lodestar.generators.edits.request import EditRequest, Material
from lodestar.generators.guide import (
    NOTHING,
    Critic,
    Guides,
    Handed,
    Reference,
    chosen,
)
from lodestar.generators.guided import Guided, bind, check_intervals
from lodestar.generators.optima import best
from lodestar.generators.request import Frame, Request, Settings
from lodestar.guidance import Guidance, Interval, Sees, Steering
from lodestar.models.diffusion import DiffusionModel
from lodestar.models.labels import spell
from lodestar.models.look import look
from lodestar.nets.precision import Precision, name_of
from lodestar.samplers import Sampler

_AT_ONCE = 32
"""Number of asks that are checked at once: pictures are enlarged for each."""


@dataclass(frozen=True)
class PreparedSampling:
    """A checked request to a diffusion model."""

    guided: Guided
    request: Request
    sampler: Sampler
    steps: Sequence[Transition]
    handed: Handed = field(default_factory=dict)
    """Pictures handed over to the model's conditions, one for each of the request."""

    @property
    def length(self) -> int:
        return len(self.steps)

    @torch.inference_mode()
    def frames(self, batch_size: int = 32, start: Tensor | None = None) -> Iterator[Frame]:
        """The answer, a frame for every step; see `Prepared`.

        An adaptive sampler gets one picture at a time, independent of the rest of the batch.
        """
        model, asks, steps = self.guided.model, self.request.asks, self.steps
        model.eval()
        size = 1 if self.sampler.adaptive else batch_size
        for first in range(0, len(asks), size):
            rows = asks[first : first + size]
            denoise = self.guided.denoise(rows, {name: each[first : first + size] for name, each in self.handed.items()})
            noise = SeededNoise([ask.seed for ask in rows], self.request.settings.temperature)
            given = noise.start(model.space, model.device) if start is None else start[first : first + size].to(model.device)
            # The noisiest level of a chain is nearly but not exactly pure noise; published samplers begin at unit noise too.
            for state in self.sampler(denoise, given * model.config.schedule.start_sigma, steps, noise):
                done = state.index + 1
                x = state.x if done == len(steps) else state.estimate.x0
                yield Frame(first, done, len(steps), x, model.codec.decode)


class Diffusion(DiffusionModel, Editor):
    """A diffusion model that answers requests. As a module it is the model: `forward`, parameters and states are its weights'."""

    def __repr__(self) -> str:
        return look(self, self.shape, self.config.denoiser.classes, self.denoiser.dtype)

    @property
    def precision(self) -> Precision:
        return name_of(self.denoiser.dtype)

    @property
    def known(self) -> tuple[tuple[str, ...], int | None]:
        return self.config.names or (), self.config.denoiser.classes

    @property
    def text(self) -> Texts | None:
        return self.config.denoiser.text

    @property
    def droppable(self) -> bool:
        return self.config.droppable

    @property
    def defaults(self) -> Settings:
        return Settings(steps=self.config.steps, sampler=self.config.sampler)

    def resolved(self, how: Settings) -> Settings:
        plan = parse_plan(how.steps or self.config.steps)
        if not isinstance(plan, Optimized):
            return how
        found = best(self.provenance, plan.count, how.sampler or self.config.sampler, how.guidance, self.name)
        return how.replace(steps=found.plan)

    def agree(self, guide: Critic, sees: Sees) -> None:
        guide.agree(self.config, sees)

    def prepare(self, asked: Request, guides: Guides | None = None, handed: Handed = NOTHING) -> PreparedSampling:
        guided, sampler, steps = self.check(asked, guides, handed)
        note_unasked(guided.guidance, asked.asks, handed)
        return PreparedSampling(guided, asked, sampler, steps, handed)

    def reference(self, pictures: Any) -> Reference:
        if isinstance(pictures, Reference):
            return pictures
        read = gather(self.shape, self.config.size, pictures)
        if not len(read.pictures):
            raise Problem("reference: no picture is given")
        return Reference(read.pictures, ", ".join(read.names))

    def check(
        self, asked: Request, guides: Guides | None = None, handed: Handed = NOTHING
    ) -> tuple[Guided, Sampler, list[Transition]]:
        """The guided model, the sampler and the steps for a request. Raises Problem if it cannot be answered.

        handed: the conditions' pictures, one for each of the request.
        """
        checked("request", asked, InstanceOf[Request])
        if asked.later:
            raise Problem(
                f"settings are given for {1 + len(asked.later)} stages: {self.name or 'this model'} is one, and no cascade"
            )
        if (bound := asked.settings.truncation) is not None:
            raise Problem(f"truncation is {bound:g}: it bounds a GAN's latents, and {self.name or 'this model'} has none")
        how = self.complete(asked.settings)
        if self.config.denoiser.latent is not None and self.transitions(how) != self.transitions(self.defaults):
            name, own = self.name or "this model", self.config.steps
            raise Problem(f"steps {how.steps!r}: {name} draws its pictures at the levels of {own!r} alone, as it was trained")
        steps, sampler, guidance = self.transitions(how), how.sampler, how.complete(self.limit)
        assert sampler is not None
        guided = Guided(self, guidance, chosen(guidance, guides or {}, self.companions), how.reuse, how.augment)
        check_augment(how.augment, self.config)
        for name in ("top_k", "top_p"):
            if getattr(how, name) != getattr(Settings(), name):
                raise Problem(f"{name} has no effect on {self.name or 'this model'}: it draws noise, and no codes")
        few = list({(ask.label, ask.reference, ask.text is None): ask for ask in reversed(asked.asks)}.values())
        for ask in few:
            self.check_label(ask.label, guided.guides)
        for text in dict.fromkeys(ask.text for ask in asked.asks):
            self.check_text(text, guided.guides)
        for first in range(0, len(few), _AT_ONCE):
            part = few[first : first + _AT_ONCE]
            guided.denoise(part, {name: pictures[: len(part)] for name, pictures in handed.items()})
        check_intervals(guidance, sampler, steps, f"those of plan {how.steps!r}")
        renoising = next((f"guidance {each.kind}" for each in guidance if each.renoises), None)
        learned = self.config.denoiser.variance != "fixed"
        sampler.check(steps, renoiser=renoising, shifted=_shifted(guidance, steps[0].t), learned=learned)
        check_reuse(how.reuse, self.config.denoiser.network, sampler, steps, guidance)
        note_sampler(self.config, sampler)
        return guided, sampler, steps

    def check_label(self, label: Label, guides: Guides | None = None) -> None:
        """Raise Problem unless the model, or a guide of an unconditional model, supports a label."""
        names, classes = self.classes(guides)
        for number in signs(label):
            if classes is None or not 0 <= number < classes:
                known = "no classes" if classes is None else f"classes 0 to {classes - 1}"
                raise Problem(f"label {number}: this model knows {known}")
        if isinstance(label, Composed) and self.config.denoiser.classes is not None and not self.config.droppable:
            raise Problem(
                f"label {spell(label, names)!r}: composed labels need a model that was also trained without its classes"
            )

    def transitions(self, how: Settings) -> list[Transition]:
        """The steps of settings. Raises Problem if they begin at a level with hardly any noise, where noise is no picture."""
        plan = how.steps or self.config.steps
        steps = parse_plan(plan).steps(self.config.schedule)
        start = steps[0].t
        if start.ratio < 1:
            raise Problem(
                f"steps {plan!r} begin where pictures are hardly noisy (σ/α = {start.ratio:.2g}): try trailing:{len(steps)}"
            )
        return steps

    def prepare_edit(self, asked: EditRequest, material: Material, guides: Guides | None = None) -> PreparedEdit:
        """Check a request for edited pictures, before any work is done. Raises Problem if it cannot be answered."""
        checked("request", asked, InstanceOf[EditRequest])
        check_material(self, asked.edit, checked("material", material, InstanceOf[Material]), self.name)
        if (material.digests, material.mask_digest) != (asked.pictures, asked.mask):
            raise Problem("these are not the pictures that the request is made of: their values have changed since")
        how = asked.edit
        how.check_asks(asked)
        if asked.settings.temperature != 1 and not how.draws(len(asked.pictures)):
            given = asked.settings.temperature
            raise Problem(f"temperature is {given:g}: {how.kind} of pictures draws no noise that it could change")
        if asked.settings.reuse != 1 and not how.reuses:
            raise Problem(f"reuse is {asked.settings.reuse}: {how.kind} does not go once from noise to clean data: leave it out")
        sampler = sampler_of(self.config, asked)
        settled = asked.replace(settings=asked.settings.replace(sampler=sampler))
        guided, sampler, steps = self.check(settled, guides, handed := handed_of(asked, material))
        note_unasked(guided.guidance, (*asked.asks, *asked.origins), handed)
        how.check(asked, sampler, steps, material.mask)
        note_tiles(self, asked, material, how.length(steps))
        return PreparedEdit(guided, asked, material, sampler, steps)

    def source_shape(self, how: AnyEdit) -> tuple[int, int, int]:
        return shape_of(self, how, self.name)

    def stand_beside(self, model: Any, asks: Sequence[Ask]) -> None:
        """Raise Problem unless it supports the asks of another model (given its `DiffusionConfig`)."""
        check_rival(model, self.config)
        for label in dict.fromkeys(ask.label for ask in asks):
            self.check_label(label)
        for text in dict.fromkeys(ask.text for ask in asks):
            self.check_text(text)

    def bound(self, asks: Sequence[Ask], handed: Handed = NOTHING) -> Bound:
        """The denoiser of the asks, for inference; see `lodestar.generators.guided.bind`."""
        self.eval()
        return bind(self, asks, handed)


def _shifted(guidance: Sequence[Guidance], level: Level) -> bool:
    """True if a gradient is collected, and not applied, at this level. Raises Problem if it has to be applied and cannot be."""
    at_once: set[bool] = set()
    for each in guidance:
        if isinstance(each, Steering) and each.active:
            at_once.add(each.at_once)
        elif isinstance(each, Interval) and not each.holds(level):
            at_once.clear()
    if True in at_once:
        check_shifting(level)
    return False in at_once
