"""`lodestar.compare`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypedDict, Unpack

import numpy as np
from pydantic import Field, InstanceOf

from lodestar import bundle, library
from lodestar.codecs import Embeddings
from lodestar.codecs.autoencoder import LatentCodec
from lodestar.config import Problem, checked, edit, nearest
from lodestar.data import Source, part
from lodestar.evaluation.captions import CaptionsOf
from lodestar.evaluation.extractors import Extractor
from lodestar.evaluation.kept import Kept, kept
from lodestar.evaluation.reference import Reference, choose_extractor, open_reference
from lodestar.evaluation.run import Measurement
from lodestar.evaluation.trilemma import METRICS, TABLE, Trilemma
from lodestar.files import write_text
from lodestar.generators.base import Generator
from lodestar.generators.request import Settings, settings
from lodestar.generators.spelled import Spelled
from lodestar.presets import RUNS
from lodestar.python.desk import Desk
from lodestar.python.train import Changes, configured, trained
from lodestar.results import results_folder
from lodestar.tasks import TrainUnclip
from lodestar.training.folder import check_folder, run_in
from lodestar.training.inputs import facts_of, open_data
from lodestar.training.pace import pace
from lodestar.training.run import Run

COUNT = 2_000
"""Default number of pictures of each model."""
HELD_OUT = 0.2
"""Share of the data held out here by presets without validation pictures, to be measured against."""
_MOST = 10_000
"""Maximum number of held-out pictures that are a reference."""
_NUMBERS = ("clamp", "temperature", "reuse", "augment", "truncation", "top_k", "top_p")
_MODELS = ("codec", "codes", "init")
"""Settings of training that name a model."""
_Images = Annotated[int, Field(ge=1, le=10**12)] | None
_Seconds = Annotated[float, Field(gt=0, le=10**9)] | None

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Contender:
    """A model of a comparison: its name, or a preset's, with settings of its own."""

    text: str
    spelled: Spelled
    how: Settings
    """Settings of sampling."""

    @classmethod
    def read(cls, text: str) -> Contender:
        """A contender in text: ``MODEL,steps=20``; of presets also ``codec=``, ``codes=`` and ``init=``. Raises Problem."""
        spelled = Spelled.read(text, "", _NUMBERS, _MODELS)
        told = {name: getattr(spelled.numbers, name) for name in _NUMBERS}
        try:
            how = settings(steps=spelled.steps, sampler=spelled.sampler, guidance=spelled.guidance, **told)
        except Problem as problem:
            raise Problem(f"{text}: {problem}") from None
        found, name = cls(text, spelled, how), spelled.model
        if not found.preset:
            if not (name.startswith("hf:") or name in bundle.embedded() or os.path.exists(name)):
                raise Problem(
                    f"no model or preset {name!r}: give a run's folder, a file, an embedded model "
                    f"({', '.join(bundle.embedded())}) or a preset of lodestar train{nearest(name, [*bundle.embedded(), *RUNS])}"
                )
            for other in spelled.others:
                raise Problem(f"{text}: {other} has no effect on a model that is trained already")
        return found

    @property
    def preset(self) -> bool:
        """True for a preset, which is to be trained. An embedded model goes before a preset of its name."""
        return self.spelled.model in RUNS and self.spelled.model not in bundle.embedded()

    @property
    def folder(self) -> str:
        """Name of a preset's folder."""
        told = "".join(f"-{name}-{value}" for name, value in self.spelled.others.items())
        return re.sub(r"[^0-9A-Za-z._+-]", "-", self.spelled.model + told)

    @property
    def parts(self) -> list[Contender]:
        """The presets with which this one is trained."""
        return [each for each in map(Contender.read, self.spelled.others.values()) if each.preset]


@dataclass(frozen=True)
class Trainer:
    """The training of what is missing: folder, budget, data and seed, the same for all presets."""

    out: Path
    images: int | None
    seconds: float | None
    data: str | Path | None
    validation: str | Path | None
    seed: int
    device: str | None

    @property
    def budget(self) -> str:
        """The budget in words."""
        return f"presets trained for {self.images:,} images" if self.images else f"presets trained for {self.seconds:g} seconds"

    def check(self, contenders: Sequence[Contender]) -> None:
        """Raise Problem for a budget that is missing, or has nothing to train."""
        presets = [each.text for each in contenders if each.preset]
        given = [name for name in ("images", "seconds", "data", "validation") if getattr(self, name) is not None]
        if presets and (self.images is None) == (self.seconds is None):
            which = "and both are given" if self.images else "and none is given"
            raise Problem(f"{', '.join(presets)}: presets are trained under one budget of images or of seconds, {which}")
        if given and not presets:
            raise Problem(f"{given[0]} has no effect: all of these models are trained already")

    def run(self, contender: Contender, *, alone: bool = False) -> Run:
        """The run of a preset, whose length is its own. alone: without the models that it is trained with. Raises Problem."""
        changes: Changes = {"data": self.data, "validation": self.validation, "seed": self.seed}
        for name, value in ({} if alone else contender.spelled.others).items():
            one = Contender.read(value)
            changes[name] = str(self.out / one.folder) if one.preset else value  # type: ignore[literal-required]
        run = configured(contender.spelled.model, **changes)
        return run if run.data.validation is not None else run.replace(data=run.data.replace(held_out=HELD_OUT))

    def candidate(self, contender: Contender) -> Generator:
        """The model, with random weights if it is to be trained. Raises Problem for one that cannot be."""
        if not contender.preset:
            return library.load_generator(contender.spelled.model, self.device)
        missing = [each for each in contender.parts if not (self.out / each.folder / library.MODEL).exists()]
        planned = [self.candidate(each) for each in missing]
        try:
            run = self.run(contender, alone=bool(missing))
            build = _builder(run)
            for name, value in contender.spelled.others.items() if missing else ():
                if name != "init":
                    run = _coded(run, next((each for each, of in zip(planned, missing, strict=True) if of.text == value), value))
            source, _ = open_data(run)
            run = run.replace(task=run.task.resolve(facts_of(run, source)))
            if not missing:
                check_folder(self.out / contender.folder, run)
            return build(_config(run))
        except Problem as problem:
            raise Problem(f"{contender.text}: {problem}") from None

    def held_out(self, contender: Contender) -> Source | None:
        """The pictures that a preset, or a run in a folder, holds out; None where there are none."""
        run = self.run(contender, alone=True) if contender.preset else run_in(Path(contender.spelled.model))
        if run is None or (run.data.validation is None and not run.data.held_out):
            return None
        _, held_out = open_data(run)
        assert held_out is not None
        if len(held_out) > _MOST:
            held_out = part(held_out, np.arange(_MOST) * len(held_out) // _MOST, held_out.size)
        return held_out

    def trained(self, contender: Contender) -> str:
        """The name to load a model by; a preset is trained, after its parts. Raises Problem."""
        if not contender.preset:
            return contender.spelled.model
        for each in contender.parts:
            self.trained(each)
        folder, run, images = self.out / contender.folder, self.run(contender), self.images
        if self.seconds is not None:  # a run that has begun keeps the length that was found then
            begun = run_in(folder)
            found = None if begun is not None else round(self.seconds * pace(run, folder, self.device))
            images = begun.train.images if begun is not None else max(found or 0, run.train.batch_size)
        return str(trained(run, {"train.images": images}, out=folder, device=self.device))


def _config(run: Run) -> Any:
    """The configuration of a run's model; None of a task with another structure."""
    return getattr(run.task, "model", None)


def _coded(run: Run, codec: Generator | str) -> Run:
    """The run with a codec that is not trained yet, or has this name. Raises Problem for one that does not suit it."""
    found = library.config(codec) if isinstance(codec, str) else getattr(codec, "config", None)
    if not isinstance(found, LatentCodec):
        raise Problem("codec and codes are autoencoders")
    return edit(run, [{"task.model.codec": found, "task.codec": {"name": "planned", "digest": "0" * 64}}])


def _builder(run: Run) -> Callable[[Any], Generator]:
    """The builder of a run's model. Raises Problem for one that makes no pictures of its own."""
    config = _config(run)
    built = next((kind.build for kind in library.KINDS.values() if isinstance(config, kind.config)), None)
    embeds = isinstance(run.task, TrainUnclip) or isinstance(getattr(config, "codec", None), Embeddings)
    if embeds or not (isinstance(built, type) and issubclass(built, Generator)):
        raise Problem(f"the model of a task {run.task.kind!r} makes no pictures of its own")
    return built


class Comparing(TypedDict, total=False):
    """Data of a comparison."""

    data: str | Path | None
    """Pictures to train presets on; default each preset's own."""
    validation: str | Path | None
    """Held-out pictures; default a part of the data."""
    captions: CaptionsOf
    """Captions to make pictures of, for models of texts; see `lodestar.evaluate`."""


def compare(
    models: str | Sequence[str],
    reference: Reference = None,
    *,
    images: int | None = None,
    seconds: float | None = None,
    extractor: str | Path | Extractor | None = None,
    count: int = COUNT,
    seed: int = 0,
    batch_size: int = 64,
    device: str | None = None,
    out: str | Path = "out/compare",
    **given: Unpack[Comparing],
) -> Trilemma:
    """Compare models in one table and one picture: ``print(lodestar.compare(["digits.vae", "digits"], images=20_000))``.

    models: presets, runs, files and embedded models, each with settings of its own after commas ("digits,steps=trailing:20").
    Presets are trained in the folder `out`, one after another, for `images` images or about `seconds` seconds of steps, and hold
    out the same pictures. reference: as in `evaluate`; default the pictures held out by presets, else an embedded model's own,
    or the pictures held out by runs. count: number of pictures of each model. out: a folder, or its address, for
    compare.json, compare.md and compare.png; the same call again goes on with what is there. given: data, validation and
    captions. Raises Problem, mostly before any work.
    """
    for name in given:
        if name not in (known := Comparing.__annotations__):
            raise Problem(f"unknown setting {name!r}: choose from {', '.join(known)}{nearest(name, known)}")
    named = [models] if isinstance(models, str) else checked("models", models, InstanceOf[Iterable[Any]])
    contenders = [Contender.read(checked("model", text, str)) for text in dict.fromkeys(named)]
    if not contenders:
        raise Problem("no models are given to compare")
    images, seconds = checked("images", images, _Images), checked("seconds", seconds, _Seconds)
    trainer = Trainer(results_folder(out), images, seconds, given.get("data"), given.get("validation"), seed, device)
    trainer.check(contenders)
    candidates = [trainer.candidate(each) for each in contenders]
    shape = _shape(contenders, candidates)
    measured_with = choose_extractor(extractor, reference, device)
    against, pictures = _against(reference, contenders, trainer, measured_with, shape)
    how = Measurement(metrics=METRICS, batch_size=batch_size)
    desk = Desk(against, pictures, measured_with, how, count, seed, given.get("captions"))
    for contender, candidate in zip(contenders, candidates, strict=True):
        desk.check(contender.text, candidate, contender.how, contender.spelled.guides)
    del candidates
    found = desk.blank(trainer.budget if any(each.preset for each in contenders) else "")
    rows = found.kept(trainer.out)
    how.comparison(against, measured_with, count)  # too few pictures are told before the work
    for contender in contenders:
        model = library.load_generator(trainer.trained(contender), device)
        rows[contender.text] = desk.row(contender.text, model, contender.how, contender.spelled.guides, rows.get(contender.text))
        found = replace(found, rows=tuple(rows.values()))
        write_text(trainer.out / TABLE, found.to_json() + "\n")
    found.save(trainer.out)
    return found


def _shape(contenders: Sequence[Contender], candidates: Sequence[Generator]) -> Shape:
    """The shape of all models' pictures. Raises Problem where they differ."""
    shapes = [each.shape for each in candidates]
    told = [f"{each.text} makes pictures of {'×'.join(map(str, it))}" for each, it in zip(contenders, shapes, strict=True)]
    for text, shape in zip(told, shapes, strict=True):
        if shape != shapes[0]:
            raise Problem(f"{told[0]}, {text} (channels, height, width): compare models of one size")
    return shapes[0]


def _against(
    spec: Reference, contenders: Sequence[Contender], trainer: Trainer, extractor: Extractor, shape: Shape
) -> tuple[Source | Kept, Source | None]:
    """The reference of features, and the pictures to find likely and to reconstruct, if there are any. Raises Problem."""
    size = shape[1:]
    own = next((each.spelled.model for each in contenders if not each.preset and kept(each.spelled.model) is not None), None)
    presets = [each for each in contenders if each.preset]
    held: list[tuple[str, Source]] = []
    if spec is None and (presets or own is None):
        for each in presets or contenders:
            source = trainer.held_out(each)
            held += [] if source is None else [(each.text, source)]
    if not held:
        opened = open_reference(spec, own, extractor, size, metrics=METRICS)
        return opened, opened if isinstance(opened, Source) else None
    first, source = held[0]
    for name, other in held[1:]:
        if other.pictured != source.pictured:
            raise Problem(f"{first} and {name} hold out other pictures, of {source.spec} and {other.spec}: give --reference")
        source = source if source.names is not None else other  # classes help to find pictures likely
    return open_reference(source, None, extractor, size, metrics=METRICS), source
