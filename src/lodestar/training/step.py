"""A training step: the phases of a task on one batch, in pieces, by one process or several; all or nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from lodestar.data import Batch
from lodestar.nets import dropout
from lodestar.nets.precision import PRECISIONS
from lodestar.objectives import Losses
from lodestar.tasks import Coupled, OptimizerConfig, Phase, Rng
from lodestar.training.muon import Muon
from lodestar.training.run import Run
from lodestar.training.state import TrainState
from lodestar.training.update import Move, update
from lodestar.world import World, whole

T = TypeVar("T")


class Step:
    """A training step on one batch; phases take turns, each with the earlier phases' updated weights.

    If the loss or the gradient of any phase is not finite, the step is skipped and the earlier phases' updates are undone.
    """

    def __init__(self, run: Run, state: TrainState, world: World = World()) -> None:  # noqa: B008 (it has no state)
        self.run, self.state, self.world = run, state, world
        self.phases = state.learner.phases()
        for optimizer in state.optimizers.values():
            if isinstance(optimizer, Muon):
                optimizer.world = world
        if run.train.compile:
            state.learner.compile()
        self.device = next(state.learner.module.parameters()).device
        self.averaged = list(state.averaged().values())
        self.whose = dropout.number(state.learner.module, self.device)
        self.finite = True
        self.last: Move | None = None
        """The movement of the step's last phase, which is made together with that of the averages."""
        self.rates: dict[str, float] = {}
        """Learning rates of the last step, by their names in the log."""

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take the step on this process's share of a batch.

        Returns the whole batch's per-sample losses, by their names in the log; empty if the step was skipped.
        """
        counters, size = self.state.counters, self._size
        seed = _mix(self.run.train.seed, counters.images_seen)
        torch.manual_seed(seed)  # for modules with their own draws, which cannot be per picture
        generator = torch.Generator(device=self.device).manual_seed(seed)
        self.rates = {self._name(phase, "rate"): self._rate(phase) for phase in self.phases}
        self.state.learner.module.train()
        logged = self._phases(batch, generator)
        self.finite = logged is not None
        counters.images_seen += size
        counters.steps += 1
        if logged is None:
            counters.skipped += 1
            return {}
        averages = [(average, average.share(counters.images_seen, size)) for average in self.state.averages]
        update(self.last, self.averaged, averages)
        return logged

    def _phases(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor] | None:
        """Gradients of the phases in their turn, and updates but the last; None, all restored, if a value is not finite."""
        self.last = None
        turn = [phase for phase in self.phases if self.state.counters.steps % phase.every == 0]
        before = [Snapshot(list(self.state.learner.module.buffers()))]
        done: list[tuple[Phase, Losses]] = []
        logged: dict[str, Tensor] = {}
        for phase in turn:
            losses = self._gradient(phase, batch, Rng(generator, self._size))
            norm = whole(torch.nn.utils.get_total_norm([each.grad for each in phase.parameters if each.grad is not None]))
            # A single query of the device, since each waits for its queue.
            if not bool(norm.isfinite() & losses.total.isfinite().all()):
                for each in turn:
                    self.state.optimizers[each.name].zero_grad(set_to_none=True)
                for snapshot in before:
                    snapshot.restore()
                return None
            move = self._move(phase, norm)
            if phase is turn[-1]:
                self.last = move
            else:
                before.append(Snapshot(phase.parameters, move.optimizer))
                update(move)
            done.append((phase, losses))
            values = {"loss": losses.total, **losses.terms, "gradient": norm.detach().reshape(1)}
            logged |= {self._name(phase, name): value for name, value in values.items()}
        for phase, losses in done:
            if phase.note is not None:
                phase.note(losses.noted)
        return logged

    def _gradient(self, phase: Phase, batch: Batch, rng: Rng) -> Losses:
        """The gradient of a phase, summed over pieces and processes; returns the losses of the whole batch."""
        config, size = self.run.train, self._size
        share = self.world.share(size)
        assert len(batch) == share.stop - share.start, "a process is given its share of a batch"
        self.state.optimizers[phase.name].zero_grad(set_to_none=True)
        # Other phases' weights get no gradient, whatever the loss depends on.
        only = None if len(self.phases) == 1 else list(phase.parameters)
        self.whose[0].fill_(_signed(_mix(config.seed, self.phases.index(phase))))

        def run(call: Callable[[Batch, Rng], T], rows: slice) -> T:
            self.whose[1].fill_(self.state.counters.images_seen + rows.start)
            piece = batch[rows.start - share.start : rows.stop - share.start]
            return self.state.run(lambda: call(piece, rng.piece(rows)), last=rows.stop == share.stop)

        parts = list(pieces(share, config.microbatch))
        if isinstance(phase.loss, Coupled):
            coupled = phase.loss
            graded = self._coupled(coupled, lambda rows: run(coupled.encode, rows), parts, only)
        else:
            losses: list[Losses] = []
            for rows in parts:
                part = run(phase.loss, rows)
                # The mean over the batch for any pieces: each is weighted by its share of the samples.
                (part.total.sum() / size).backward(inputs=only)
                losses.append(replace(part, total=part.total.detach()))
            graded = self._joined(losses)
        if self.state.shards is None:  # else they are summed as they come
            self.world.sum(self._gradients(phase), PRECISIONS[config.reduce])
        return graded

    def _gradients(self, phase: Phase) -> list[Tensor]:
        """This process's gradients, with zeros for parameters that have one on other processes alone."""
        if self.world.size > 1:
            there = torch.tensor([float(each.grad is not None) for each in phase.parameters])
            self.world.sum([there])
            for parameter, anywhere in zip(phase.parameters, there.tolist(), strict=True):
                if anywhere and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in phase.parameters if parameter.grad is not None]

    def _coupled(
        self, loss: Coupled, encode: Callable[[slice], Tensor], parts: Sequence[slice], only: list[torch.nn.Parameter] | None
    ) -> Losses:
        """The gradient of a coupled loss, of which every process has the pieces' share; returns the losses of the whole batch."""
        if len(parts) == 1:
            codes = [encode(parts[0])]
        else:
            with torch.no_grad():
                codes = [encode(rows) for rows in parts]
        whole = self.world.gather(torch.cat([each.detach() for each in codes])).requires_grad_()
        losses = loss.grade(whole)
        # Each process takes the same gradient of the loss itself, which is then summed over all of them.
        share = losses.total.sum() / (self._size * self.world.size)
        share.backward(inputs=None if only is None else [whole, *only])
        assert whole.grad is not None
        for rows in parts:
            code = codes[0] if len(parts) == 1 else encode(rows)
            (code * whole.grad[rows] * self.world.size).sum().backward(inputs=only)
        return replace(losses, total=losses.total.detach())

    def _joined(self, parts: Sequence[Losses]) -> Losses:
        """The losses of pieces, and of all processes, joined as a batch's."""

        def join(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
            return {name: self.world.gather(torch.cat([part[name] for part in parts])) for name in parts[0]}

        total = self.world.gather(torch.cat([part.total for part in parts]))
        return Losses(total, join([part.terms for part in parts]), join([part.noted for part in parts]))

    def _move(self, phase: Phase, norm: Tensor) -> Move:
        """The movement of a phase's weights along its gradient, clipped."""
        settings, optimizer = phase.optimizer or self.run.train.optimizer, self.state.optimizers[phase.name]
        for group in optimizer.param_groups:
            group["lr"] = self.rates[self._name(phase, "rate")]
        return Move(optimizer, settings.clip, norm)

    @property
    def _size(self) -> int:
        """Size of the whole batch of the step that is being taken."""
        return self.run.train.batch_at(self.state.counters.images_seen)

    def _rate(self, phase: Phase) -> float:
        settings = phase.optimizer or self.run.train.optimizer
        return learning_rate(settings, self.state.counters.images_seen, self.run.train.images)

    def _name(self, phase: Phase, name: str) -> str:
        """A number's name in the log, prefixed by its phase if there are several."""
        return name if len(self.phases) == 1 else f"{phase.name}/{name}"


class Snapshot:
    """A copy of tensors and of their optimizer state, to be restored."""

    def __init__(self, tensors: Sequence[Tensor], optimizer: torch.optim.Optimizer | None = None) -> None:
        self.optimizer = optimizer
        known = {} if optimizer is None else optimizer.state
        self.unknown = [tensor for tensor in tensors if tensor not in known]
        slots = [slot for state in known.values() for slot in state.values()]
        self.values = [(tensor, tensor.detach().clone()) for tensor in (*tensors, *slots)]

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the copy."""
        for tensor, value in self.values:
            tensor.copy_(value)
        if self.optimizer is not None:
            for tensor in self.unknown:
                self.optimizer.state.pop(tensor, None)


def learning_rate(config: OptimizerConfig, images_seen: int, images: int) -> float:
    """The learning rate of the step that begins at images_seen."""
    rate = config.rate
    if config.warmup_images:
        rate *= min(1.0, (images_seen + 1) / config.warmup_images)
    left = max(1 - images_seen / images, 0.0)
    match config.fall:
        case "cosine":
            rate *= 0.5 * (1 - math.cos(math.pi * left))
        case "linear":
            rate *= left
    return rate


def pieces(rows: slice, size: int | None) -> Iterator[slice]:
    """The rows of a batch in pieces of at most `size`."""
    size = size or rows.stop - rows.start
    for begin in range(rows.start, rows.stop, size):
        yield slice(begin, min(begin + size, rows.stop))


def _mix(seed: int, number: int) -> int:
    """A seed for each number (of a step, of a phase), far from its neighbours' and other runs' (splitmix64's finisher)."""
    value = (seed * 0x9E3779B97F4A7C15 + number + 1) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


def _signed(value: int) -> int:
    """An unsigned 64-bit value as a signed integer, for tensors."""
    return value - 2**64 if value >= 2**63 else value
