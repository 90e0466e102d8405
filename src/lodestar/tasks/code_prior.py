"""Training a prior of codes: of every level of a VQ-VAE, the likelihood of codes that are kept on disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lodestar.conditions import Cond, LabelCondition
from lodestar.config import Problem
from lodestar.data.batch import Batch, DataFacts
from lodestar.generators.code_prior import CodePrior
from lodestar.models.code_prior import CodePriorConfig
from lodestar.nets.precision import place
from lodestar.objectives import Losses
from lodestar.tasks.base import PREVIEWS, Export, Frozen, Learner, Phase, Task
from lodestar.tasks.denoise import Pinned, settled
from lodestar.tasks.rng import Rng


class TrainCodePrior(Task):
    """A prior of the codes of a VQ-VAE, which stays as it is."""

    kind: Literal["code_prior"] = "code_prior"
    model: CodePriorConfig = CodePriorConfig()
    codec: Pinned | None = None
    """The VQ-VAE."""
    kept: int = Field(default=100_000, ge=2, le=10**9)
    """Number of pictures, from the first, whose codes are learned from; all of smaller data."""
    conditional: bool = True
    """Condition on the classes of the data."""
    label_drop: float = Field(default=0.1, ge=0, le=1)
    """Probability of dropping a picture's class in training, for classifier-free guidance."""
    caption_drop: float = Field(default=0.1, ge=0, le=1)
    """Probability of dropping its caption; without effect without captions."""

    @property
    def conditions(self) -> bool:
        return self.conditional

    @property
    def captions(self) -> bool:
        return self.model.text is not None

    def resolve(self, facts: DataFacts) -> Self:
        if self.codec is None:
            raise Problem("no VQ-VAE is named whose codes are learned: --codes MODEL, or codes= in Python")
        if self.conditional and facts.names is None:
            raise Problem("labels are missing: this run is conditional and its data has no classes; set task.conditional=false")
        self.model.codec.check_shape((facts.channels, *facts.size))
        names, text = facts.names if self.conditional else None, self.model.text
        labels = () if names is None else (LabelCondition(classes=len(names)),)
        texts = () if text is None else (settled(text, facts),)
        drops = [*([self.label_drop] if labels else []), *([self.caption_drop] if texts else [])]
        model = self.model.replace(conditions=(*labels, *texts), names=names, droppable=bool(drops) and min(drops) > 0)
        return self.replace(model=model)

    def build(self, device: torch.device, dtype: torch.dtype) -> CodePriorLearner:
        return CodePriorLearner(self, device, dtype)


class CodePriorLearner(Learner):
    """The learner of `TrainCodePrior`: a phase for each level."""

    def __init__(self, task: TrainCodePrior, device: torch.device, dtype: torch.dtype) -> None:
        assert task.codec is not None
        self.task, self.device = task, device
        self.module = self.model = place(CodePrior(task.model), device)
        self.model.dtype = dtype
        codec = self.model.codec.requires_grad_(False)
        self.frozen = {task.codec.name: Frozen(codec, task.model.codec.kind, task.codec.digest)}
        self.names = task.model.codec.network.names
        self._captions: tuple[str, ...] = ()
        """Captions that previews are made of: those of the last batch."""

    def phases(self) -> list[Phase]:
        return [
            Phase(name, list(self.model.level(number).parameters()), partial(self.loss, number))
            for number, name in enumerate(self.names)
        ]

    def loss(self, level: int, batch: Batch, rng: Rng) -> Losses:
        """The mean cross-entropy of the codes of a level, in nats; conditions are dropped by draws from rng."""
        codes = [self._codes(batch, name) for name in self.names]
        keep = {"label": rng.uniform() >= self.task.label_drop, "text": rng.uniform() >= self.task.caption_drop}
        if self.task.captions:
            self._captions = tuple(map(str, batch.fields["caption"]))
        cond: Cond = {str(each.kind): each.seen(batch.fields, codes[0]) for each in self.task.model.conditions}
        logits = self.model.logits(level, codes, cond, keep)
        each = F.cross_entropy(logits, codes[level], reduction="none").flatten(1).mean(dim=1)
        return Losses(each, {"bits": each.detach() / math.log(2.0)})

    def _codes(self, batch: Batch, name: str) -> Tensor:
        """The codes of a level, int64 [B, h, w]."""
        codes = batch.fields[name]
        assert isinstance(codes, Tensor), "codes are numbers"
        return codes.to(self.device, torch.int64)

    def preview(self) -> Tensor:
        text = self.task.model.text
        prompts = None if text is None else [text.cut(caption) or None for caption in self._captions[:PREVIEWS]]
        return self.model.sample(count=PREVIEWS, prompt=prompts or None).images

    def validate(self, batches: Callable[[], Iterable[Batch]]) -> Mapping[str, float]:
        """Mean bits of a code by level; the same conditions are dropped in every validation."""
        generator = torch.Generator(device=self.device).manual_seed(0)
        bits: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for batch in batches():
            for level, name in enumerate(self.names):
                bits[name].append(self.loss(level, batch, Rng(generator, len(batch))).terms["bits"].cpu())
        return {f"held_out/bits/{name}": torch.cat(found).double().mean().item() for name, found in bits.items()}

    def compile(self) -> None:
        for number in range(len(self.names)):
            self.model.level(number).network.compile()

    def exports(self) -> Mapping[str, Export]:
        return {"model": Export(self.module, "code_prior", self.task.model.to_json())}
