"""The measuring of a model for a comparison: a row of its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from lodestar import library
from lodestar.codecs import pixels
from lodestar.config import Problem, short
from lodestar.data import Source, part
from lodestar.evaluation import likelihood
from lodestar.evaluation.captions import CaptionsOf
from lodestar.evaluation.extractors import Extractor
from lodestar.evaluation.kept import Kept
from lodestar.evaluation.report import digest, evenly, mean_with_error
from lodestar.evaluation.run import Measurement, measure, requested
from lodestar.evaluation.trilemma import Row, Trilemma, counting, evaluations, kind_of
from lodestar.generators.autoencoder import Latent
from lodestar.generators.base import Generator
from lodestar.generators.code_prior import CodePrior
from lodestar.generators.editor import Editor
from lodestar.generators.edits import Reconstruct
from lodestar.generators.guide import Guide, check_given, chosen
from lodestar.generators.request import Request, Settings
from lodestar.python.evaluate import bpd, captioned


@dataclass(frozen=True)
class Desk:
    """The common ground of a comparison, on which each model is measured."""

    reference: Source | Kept
    pictures: Source | None
    """Pictures to find likely and to reconstruct; None where the reference is statistics."""
    extractor: Extractor
    measurement: Measurement
    count: int
    seed: int
    captions: CaptionsOf

    def blank(self, budget: str) -> Trilemma:
        """The comparison without rows."""
        return Trilemma(
            (), self.count, self.seed, budget, self.reference.spec, len(self.reference), self.reference.fingerprint,
            self.extractor.name, self.extractor.digest, self.extractor.dtype, "" if self.captions is None else str(self.captions),
        )  # fmt: skip

    def check(self, text: str, model: Generator, how: Settings, guides: Mapping[str, str]) -> None:
        """Raise Problem for settings that a model does not take."""
        try:
            why = undrawn(model)
            if why is None:
                asked, loaded, _ = self._asked(model, how, guides)
                model.prepare(asked, loaded)
            elif how != Settings() or guides:
                raise Problem(f"settings of sampling have no effect: {why}")
        except Problem as problem:
            raise Problem(f"{text}: {problem}") from None

    def row(self, text: str, model: Generator, how: Settings, guides: Mapping[str, str], before: Row | None) -> Row:
        """The row of a model, which is measured unless `before` is of the same one."""
        loaded: Mapping[str, Guide] = {}
        why, asked, run = undrawn(model), None, self.measurement
        if why is None:
            asked, loaded, run = self._asked(model, how, guides)
        complete = model.complete(how)
        told = [
            f"steps {complete.steps}" if complete.steps else "",
            *map(short, filter(None, [complete.sampler])),
            *map(short, how.guidance),
        ]
        found = Row(
            text, kind_of(model), digest(model), model.precision, {role: digest(guide) for role, guide in loaded.items()},
            sum(each.numel() for each in model.parameters()) if isinstance(model, nn.Module) else 0,
            model.provenance.get("images_seen"), model.provenance.get("seconds"), " ".join(filter(None, told)), {},
        )  # fmt: skip
        if before is not None and before.same(found):
            return before
        numbers, notes = dict[str, float](), list[str]()
        if asked is None:
            notes.append(f"no pictures are drawn: {why}")
        else:
            with counting(model) as counted:
                report = measure(model, asked, self.reference, self.extractor, guides=loaded, run=replace(run, title=text))
            assert report.drawn_per_second is not None, "sampled, not read"
            numbers |= dict(report.numbers) | {"drawn_per_second": report.drawn_per_second}
            numbers["evaluations"] = evaluations(model, counted, self.count)
            notes += report.warnings
        for more in (self._likelihood, self._reconstruction):
            try:
                numbers |= more(model)
            except Problem as problem:
                notes.append(str(problem))
        if isinstance(model, CodePrior) and "bpd" in numbers:
            bits, _ = numbers.pop("bpd"), numbers.pop("bpd_error")
            notes.append(f"codes take {bits:.3g} bits for each dimension of the picture, which bound no likelihood")
        return replace(found, numbers=numbers, notes=tuple(notes))

    def _asked(
        self, model: Generator, how: Settings, names: Mapping[str, str]
    ) -> tuple[Request, Mapping[str, Guide], Measurement]:
        """The request for a model's pictures, its guides, and how they are measured. Raises Problem."""
        guides = library.load_guides(names, model.device)
        check_given(guides, how.guidance)
        guiding = chosen(how.guidance, guides, model.companions)
        run = self.measurement
        if model.reads:
            run, _ = captioned(run, self.captions, model, self.count, guiding)
        return requested(model, how, self.count, self.seed, guiding, run.captions), guiding, run

    def _likelihood(self, model: Generator) -> dict[str, float]:
        """Bits per dimension, and of a prior of codes the squared error of what the codes hold. Raises Problem without any."""
        if self.pictures is None:
            raise Problem("likelihood and reconstruction are of pictures, and the reference is statistics: --reference PICTURES")
        count = min(likelihood.COUNT, len(self.pictures))
        found = bpd(model, self.pictures, count=count, ode=False, seed=self.seed, batch_size=self.measurement.batch_size)  # type: ignore[arg-type]
        return {name: value for name, value in found.numbers.items() if name in ("bpd", "bpd_error", "mse", "mse_error")}

    def _reconstruction(self, model: Generator) -> dict[str, float]:
        """Mean squared error of pictures in [−1, 1] that are encoded and decoded; nothing of a model without an encoder."""
        if (
            self.pictures is None
            or not isinstance(model, Editor)
            or not (isinstance(model, Latent) or model.space != model.shape)
        ):
            return {}
        places = evenly(self.pictures, min(self.count, len(self.pictures)))
        source = part(self.pictures, places, model.shape[1:])
        originals = torch.stack([torch.from_numpy(source[index][0].copy()) for index in range(len(source))])
        again = model.edit(Reconstruct(), originals, batch_size=self.measurement.batch_size).images
        errors = (pixels.encode(again) - pixels.encode(originals)).square().flatten(1).mean(dim=1).double()
        return mean_with_error("mse", errors)


def undrawn(model: Generator) -> str | None:
    """The reason why a model draws no pictures; None where it does."""
    if isinstance(model, Latent):
        try:
            model.check_latents(drawn=True)
        except Problem as problem:
            return str(problem)
    return None
