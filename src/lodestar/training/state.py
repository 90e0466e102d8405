"""The state of a run on disk: everything needed to resume.

Two files in the run's folder, each whole or absent: ``state.safetensors`` (weights, averages, optimizer, memory, counters), and
``model.safetensors`` (the first average, for sampling). Randomness and data order are functions of the seed and of the images
seen, so the counters determine both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from lodestar import __version__, checkpoint
from lodestar.config import Problem
from lodestar.files import check_writable
from lodestar.tasks import Export, Learner
from lodestar.training.ema import Average
from lodestar.training.names import STATE
from lodestar.training.run import Run
from lodestar.training.saving import Saving, keep
from lodestar.training.sharding import Shards
from lodestar.world import whole

T = TypeVar("T")


@dataclass
class Counters:
    """Progress of a run."""

    images_seen: int = 0
    steps: int = 0
    skipped: int = 0
    """Number of steps skipped for a loss or gradient that was not finite."""
    seconds: float = 0.0
    """Training time, over all resumptions."""
    precision: str | None = None
    """Number format of the networks' torsos: the fastest where the run began, and the same wherever it goes on."""


@dataclass
class TrainState:
    """The objects of a run in progress."""

    learner: Learner
    optimizers: dict[str, torch.optim.Optimizer]
    averages: list[Average]
    counters: Counters
    shards: Shards | None = None
    """The division of weights, optimizers and averages among processes; None where each has all of them."""

    def run(self, call: Callable[[], T], last: bool = True) -> T:
        """The result of a call that uses the weights; see `Shards.run`."""
        return call() if self.shards is None else self.shards.run(call, last)

    def tensors(self) -> dict[str, Tensor]:
        """All saved tensors, by name. All processes ask for those in shards, which are joined on the CPU."""
        tensors = {f"weights/{name}": value for name, value in self.learner.module.state_dict().items()}
        for average in self.averages:
            values = zip(self.averaged(), average.values, strict=True)
            tensors |= {f"ema/{average.profile.label}/{name}": value for name, value in values}
        tensors |= {f"memory/{name}": value for name, value in self.learner.memory().items()}
        for phase, optimizer in self.optimizers.items():
            for index, slots in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{phase}/{index}/{slot}": value for slot, value in slots.items()}
        return tensors if self.shards is None else {name: whole(value).cpu() for name, value in tensors.items()}

    def restore(self, tensors: dict[str, Tensor], path: Path) -> None:
        """Restore saved tensors. Raises Problem if any is missing, left over or of another shape."""
        split: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            split.setdefault(part, {})[rest] = value
        checkpoint.fill(self.learner.module, split.get("weights", {}), path)
        for average in self.averages:
            for name, value in zip(self.averaged(), average.values, strict=True):
                saved = split.get("ema", {}).get(f"{average.profile.label}/{name}")
                if saved is None or saved.shape != value.shape:
                    raise Problem(f"{path}: the average {average.profile.label} of {name!r} is missing or of another shape")
                value.copy_(saved)
        for name, value in self.learner.memory().items():
            saved = split.get("memory", {}).get(name)
            if saved is None or saved.shape != value.shape:
                raise Problem(f"{path}: what the run remembers, {name!r}, is missing or of another shape")
            value.copy_(saved)
        slots = split.get("optimizer", {})
        if self.counters.steps > self.counters.skipped and not slots:
            raise Problem(f"{path}: the optimizer's state is missing")
        for phase, optimizer in self.optimizers.items():
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            saved_state: dict[int, dict[str, Tensor]] = {}
            for name, value in slots.items():
                owner, index, slot = name.split("/")
                if owner == phase:
                    saved_state.setdefault(int(index), {})[slot] = _laid_out_as(parameters[int(index)], value)
            optimizer.load_state_dict({**optimizer.state_dict(), "state": saved_state})

    def check(self, folder: Path) -> None:
        """Raise Problem where a run with this state would be refused later on: at its first preview, or its first checkpoint."""
        self.learner.check()
        for file in (*(path for path, _, _ in self._models(folder)), folder / STATE):
            check_writable(file)

    def save(self, folder: Path, run: Run, first: bool = True, saving: Saving = Saving()) -> None:  # noqa: B008 (at once)
        """Write both files, each atomically; the state last, so that a model is never older than the state beside it says.

        first: this is the process that writes; others have a part where the state is in shards. saving: who writes.
        """
        saving.wait()
        if not first and self.shards is None:
            return
        for path, average, export in self._models(folder):
            self._save_model(path, run, average, export, first, saving)
        tensors = self.tensors()
        if first:
            saving(partial(keep, folder, run.train.keep))
            told = (run.to_json(), saving.copied(tensors), asdict(self.counters))
            saving(partial(checkpoint.save, folder / STATE, "state", *told))

    def _models(self, folder: Path) -> Iterator[tuple[Path, Average, Export]]:
        """The files of the models that are made, and what each holds."""
        for number, average in enumerate(self.averages):
            for name, export in self.learner.exports().items():
                file = name if number == 0 else f"{name}-{average.profile.label}"
                yield folder / f"{file}.safetensors", average, export

    def _save_model(self, path: Path, run: Run, average: Average, export: Export, first: bool, saving: Saving) -> None:
        with self.swapped(average):
            tensors = {name: whole(value).clone() for name, value in export.module.state_dict().items()}
        if not first:
            return
        provenance: dict[str, Any] = {
            **asdict(self.counters),
            "ema": json.loads(average.profile.to_json()),
            "data": run.data.source,
            "lodestar": __version__,
            "torch": torch.__version__,
        }
        saving(partial(checkpoint.save, path, export.kind, export.config, saving.copied(tensors), provenance))

    def averaged(self) -> dict[str, torch.nn.Parameter]:
        """The averaged parameters: those of the exported models, by their names in the learner's module."""
        made = {id(parameter) for export in self.learner.exports().values() for parameter in export.module.parameters()}
        return {name: parameter for name, parameter in self.learner.module.named_parameters() if id(parameter) in made}

    def swapped(self, average: Average) -> Swapped:
        """A context in which the module has the average's weights."""
        return Swapped(list(self.averaged().values()), average.values)


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` in the parameter's memory layout, which a fused optimizer requires (and a file does not keep)."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value


class Swapped:
    """A context in which two lists of tensors have exchanged values."""

    def __init__(self, parameters: list[torch.nn.Parameter], values: list[Tensor]) -> None:
        self.parameters, self.values = parameters, values

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()

    def _swap(self) -> None:
        for parameter, value in zip(self.parameters, self.values, strict=True):
            kept = parameter.data.clone()
            parameter.data.copy_(value)
            value.copy_(kept)
