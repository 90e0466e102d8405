"""Training a diffusion model: random levels and noise for each picture, and a loss of the denoiser's output."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal, Self, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from lodestar.codecs.autoencoder import LatentCodec
from lodestar.conditions import Ask, LabelCondition, LowRes, Masked, Texts
from lodestar.conditions.text import STYLES
from lodestar.config import Config, Problem
from lodestar.core.draws import AnyLevels, Drawn, Uniform
from lodestar.data.batch import Batch, DataFacts
from lodestar.denoiser import conditions
from lodestar.extras import need
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.request import seeded
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.precision import place
from lodestar.objectives import AnyObjective, Draw, Losses, Simple
from lodestar.tasks.base import PREVIEWS, Export, Frozen, Learner, Phase, Task, check_size
from lodestar.tasks.holes import holes
from lodestar.tasks.pairing import Pairing, optimal
from lodestar.tasks.rng import Rng

HELD_OUT = 2_000
"""Maximum number of held-out pictures in a validation: the first ones."""


T = TypeVar("T", bound=Texts)


class Pinned(Config):
    """A model that a run depends on."""

    name: str
    """Name of the model, for `lodestar.library.find`."""
    digest: str
    """SHA-256 of the model's file, as `lodestar info` shows it."""


class TrainDenoiser(Task):
    """A diffusion model of pictures, class-conditional or unconditional."""

    kind: Literal["denoise"] = "denoise"
    model: DiffusionConfig = DiffusionConfig()
    objective: AnyObjective = Simple()
    levels: AnyLevels = Uniform()
    """Distribution of training levels."""
    pairing: Pairing = "independent"
    """Pairing of pictures with noise within a batch; the optimal one is for samplers that add no noise."""
    codec: Pinned | None = None
    """Model whose weights the codec has, if it has any."""
    conditional: bool = True
    """Condition on the classes of the data."""
    label_drop: float = Field(default=0.1, ge=0, le=1)
    """Probability of dropping a picture's class in training, for classifier-free guidance; 0 if not conditional."""

    caption_drop: float = Field(default=0.2, ge=0, le=1)
    """Probability of dropping a picture's caption in training, for classifier-free guidance; without effect without captions."""

    @property
    def conditions(self) -> bool:
        return self.conditional

    @property
    def captions(self) -> bool:
        return self.model.denoiser.text is not None

    def resolve(self, facts: DataFacts) -> Self:
        if self.conditional and facts.names is None:
            raise Problem("labels are missing: this run is conditional and its data has no classes; set task.conditional=false")
        self._check_loss()
        self._check_pairing()
        denoiser = self.model.denoiser
        if denoiser.latent is not None:
            raise Problem(f"task.model.denoiser.latent is {denoiser.latent}: that is for task 'ddgan', and not for this one")
        if denoiser.network.ranged:
            raise Problem("task.model.denoiser.network.ranges are not trained: lodestar quantize finds them afterwards")
        channels, *size = self._space(facts)
        names = facts.names if self.conditional else None
        usual = {each.kind: each for each in conditions(None if names is None else len(names))}
        if isinstance(small := denoiser.condition("low_res"), LowRes):
            # An upsampler keeps its factor: the data's size is that of the large pictures.
            small = small.replace(size=_scaled(small.size, self.model.size, facts.size))
            small.degradation.check(facts.channels, facts.size, small.size)
            usual["low_res"] = small
        if self.captions:
            assert denoiser.text is not None
            text = settled(denoiser.text, facts)
            usual[text.kind] = text
        given = {each.kind: each for each in denoiser.conditions if each.kind != "label" or names is not None}
        # A condition that is there keeps its place, since planes follow each other in this order.
        new = [each for kind, each in usual.items() if kind not in given]
        kept = [usual.get(kind, each) for kind, each in given.items()]
        denoiser = denoiser.replace(channels=channels, conditions=(*new, *kept))
        label_drop = 0.0 if names is None else self.label_drop
        drops = [drop for drop, used in ((label_drop, names is not None), (self.caption_drop, self.captions)) if used]
        droppable = bool(drops) and min(drops) > 0
        model = self.model.replace(denoiser=denoiser, size=tuple(size), names=names, droppable=droppable)
        return self.replace(model=model, label_drop=label_drop)

    def _space(self, facts: DataFacts) -> tuple[int, ...]:
        """Shape of the data as its codec encodes them. Raises Problem where codec or network do not fit."""
        codec, denoiser = self.model.codec, self.model.denoiser
        if not isinstance(codec, LatentCodec):
            check_size(facts.size, denoiser.network)
            return codec.code_shape((facts.channels, *facts.size))
        if self.codec is None:
            raise Problem(
                f"codec {codec.kind!r} has weights, and no model is named that has them: --codec MODEL, or codec= in Python"
            )
        if planes := [each.kind for each in denoiser.conditions if each.planes(1)]:
            raise Problem(f"condition {planes[0]!r} is of pixels, and the codec makes latents: leave one of them out")
        space = codec.code_shape((facts.channels, *facts.size))
        try:
            denoiser.network.check_size((space[1], space[2]))
        except Problem as problem:
            raise Problem(f"latents of codec {self.codec.name}: {problem}; take a network with fewer resolutions") from None
        return space

    def _check_loss(self) -> None:
        """Raise Problem where objective, levels, prediction and variance mean nothing together."""
        denoiser = self.model.denoiser
        self.objective.check(learned=denoiser.variance != "fixed")
        self.levels.check(self.model.schedule)
        neighbours = f"objective {self.objective.kind!r}" if self.objective.stepwise else "prediction 'previous'"
        if self.levels.continuous and (self.objective.stepwise or denoiser.prediction.kind == "previous"):
            raise Problem(
                f"levels {self.levels.kind!r} lie between those of the chain, and {neighbours} is about its steps: "
                "take levels 'uniform' or 'loss_second_moment'"
            )

    def _check_pairing(self) -> None:
        """Raise Problem where noise cannot be paired with pictures."""
        if self.pairing == "independent":
            return
        need("scipy.optimize")
        others = [each.kind for each in self.model.denoiser.conditions if not isinstance(each, LabelCondition)]
        if others:
            raise Problem(
                f"pairing {self.pairing!r} is within classes, and condition {others[0]!r} differs from picture to picture: "
                "take pairing 'independent'"
            )

    def build(self, device: torch.device, dtype: torch.dtype) -> DenoiseLearner:
        return DenoiseLearner(self, device, dtype)


class DenoiseLearner(Learner):
    """The learner of `TrainDenoiser`."""

    def __init__(self, task: TrainDenoiser, device: torch.device, dtype: torch.dtype) -> None:
        self.task, self.device = task, device
        self.module = self.model = place(Diffusion(task.model), device)
        self.model.denoiser.dtype = dtype
        if task.codec is not None:
            codec = self.model.codec.requires_grad_(False)
            self.frozen = {task.codec.name: Frozen(codec, task.model.codec.kind, task.codec.digest)}
        self._captions: tuple[str, ...] = ()
        """Captions that previews are made of: those of the last batch."""
        self._memory = task.levels.memory(task.model.schedule)

    def phases(self) -> list[Phase]:
        return [Phase("denoise", [each for each in self.module.parameters() if each.requires_grad], self.loss, self.remember)]

    def loss(self, batch: Batch, rng: Rng) -> Losses:
        """The objective of a batch, at levels, with noise and dropped labels drawn from rng."""
        drawn = rng.draw(partial(self.task.levels.draw, self.task.model.schedule, self._memory))
        losses = self._grade(batch, drawn, rng)
        noted = {} if drawn.index is None else {"index": drawn.index, "loss": losses.total.detach()}
        if drawn.factor is None:
            return replace(losses, noted=noted)
        factor = drawn.factor.to(losses.total)
        return Losses(factor * losses.total, {name: factor * term for name, term in losses.terms.items()}, noted)

    def remember(self, noted: Mapping[str, Tensor]) -> None:
        """Update the state of the draws with the losses of a step, if they have any."""
        if noted:
            self.task.levels.remember(self._memory, noted["index"], noted["loss"])

    def memory(self) -> Mapping[str, Tensor]:
        return self._memory

    def _grade(self, batch: Batch, drawn: Drawn, rng: Rng) -> Losses:
        """The objective of a batch at given levels."""
        task, denoiser, schedule = self.task, self.model.denoiser, self.task.model.schedule
        x0 = self.model.codec.encode(self.data(batch).to(self.device))
        eps = rng.normal(*x0.shape[1:])
        cond, keep = self.condition(batch, x0, rng)
        if task.pairing == "optimal":
            assert len(x0) == rng.count, "a batch is paired as a whole"
            eps = optimal(x0, eps, _group(cond, keep, x0))
        x = schedule.forward(x0, drawn.level, eps)
        output = denoiser.output(x, drawn.level, denoiser.encode(cond, keep))
        return task.objective(Draw(x0, eps, drawn.level, x), output, task.model.denoiser.prediction, schedule)

    def data(self, batch: Batch) -> Tensor:
        """The data of a batch, as the model's codec takes them."""
        return batch.image

    def condition(self, batch: Batch, x0: Tensor, rng: Rng) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The conditions of a batch, encoded as x0, and masks of those kept, drawn from rng: as for `Denoiser.encode`."""
        known = self.model.denoiser.config.conditions
        keep = rng.uniform() >= self.task.label_drop
        fields, keeps = dict(batch.fields), {condition.kind: keep for condition in known if condition.optional}
        if (text := self.model.denoiser.config.text) is not None:
            keeps[text.kind] = rng.uniform() >= self.task.caption_drop
            self._captions = tuple(map(str, batch.fields["caption"]))
        if any(isinstance(condition, Masked) for condition in known):
            fields["mask"] = rng.draw(partial(holes, size=(x0.shape[2], x0.shape[3])))
        if isinstance(small := self.model.denoiser.config.condition("low_res"), LowRes):
            # Pictures in training may be windows of those that the model is for.
            size = _scaled(small.size, self.model.config.size, (x0.shape[2], x0.shape[3]))
            made = small.degradation(x0, rng.draw(small.degradation.draw), size)
            fields["low_res"] = small.noised(made, small.augment * rng.uniform(), rng.normal(*made.shape[1:]))
        return {condition.kind: condition.seen(fields, x0) for condition in known}, keeps

    def check(self) -> None:
        """Raise Problem where the model cannot be sampled as its own settings say."""
        text, small = "" if self.task.captions else None, self.task.model.denoiser.low_res
        asked = seeded([Ask(label=label, text=text) for label in self.model.labels(None, PREVIEWS)])
        handed = {} if small is None else {"low_res": torch.zeros(PREVIEWS, self.model.shape[0], *small, dtype=torch.uint8)}
        try:
            self.model.check(asked, None, handed)
        except Problem as problem:
            raise Problem(f"{problem}: previews are made with task.model.steps and task.model.sampler") from None

    def preview(self) -> Tensor | None:
        if self.task.model.denoiser.low_res:
            return None
        text = self.task.model.denoiser.text
        prompts = None if text is None else [text.cut(caption) or None for caption in self._captions[:PREVIEWS]]
        return self.model.sample(count=PREVIEWS, prompt=prompts or None).images

    def validate(self, batches: Callable[[], Iterable[Batch]]) -> Mapping[str, float]:
        """Means of the objective's terms; levels, noise and dropped labels are the same in every validation."""
        generator = torch.Generator(device=self.device).manual_seed(0)
        # Validation neither changes the state of the draws nor draws by it.
        fresh = self.task.levels.memory(self.task.model.schedule)
        terms: dict[str, list[Tensor]] = defaultdict(list)
        seen = 0
        for batch in batches():
            rng = Rng(generator, len(batch))
            drawn = rng.draw(partial(self.task.levels.draw, self.task.model.schedule, fresh))
            for name, values in self._grade(batch, drawn, rng).terms.items():
                terms[name].append(values)
            seen += len(batch)
            if seen >= HELD_OUT:
                break
        return {f"held_out/{name}": torch.cat(parts)[:HELD_OUT].double().mean().item() for name, parts in terms.items()}

    def compile(self) -> None:
        self.model.denoiser.network.compile()

    def exports(self) -> Mapping[str, Export]:
        return {"model": Export(self.module, "diffusion", self.task.model.to_json())}


def settled(text: T, facts: DataFacts) -> T:
    """A condition on captions, ready for this data. Raises Problem."""
    if not facts.captions:
        raise Problem("captions are missing: this run is told texts, and its data has none")
    if len(facts.styles) > STYLES:
        raise Problem(f"data.style_column: {len(facts.styles):,} styles are in the data, and {STYLES:,} is the most")
    return text.settled(facts.texts).replace(styles=facts.styles or text.styles)


def _group(cond: Mapping[str, Tensor], keep: Mapping[str, Tensor], x0: Tensor) -> Tensor:
    """The class that the denoiser is told of each picture, int64 [B]; −1 for none."""
    none = torch.full((len(x0),), -1, device=x0.device)
    return torch.where(keep["label"], cond["label"], none) if "label" in cond else none


def _scaled(small: tuple[int, int], large: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Height and width with the ratio of `small` to `large`, applied to `size`; at least 1."""
    height, width = (max(round(a * c / b), 1) for a, b, c in zip(small, large, size, strict=True))
    return height, width
