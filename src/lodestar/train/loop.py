"""The training loop: one for every task.

It knows phases, accumulation, averages, counters in images, checkpoints and resumption, and no model. The random state of a step
is a function of (seed, images seen), and so is the order of the data: to resume is to run the same command again.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor

from lodestar import checkpoint, library
from lodestar.config import Problem, decode
from lodestar.data import Batch, Source, batches, divide, open_source, part, sequential
from lodestar.data.transforms import Size, show
from lodestar.files import is_temporary, lock, write_text
from lodestar.images import save_grid
from lodestar.nets import dropout
from lodestar.nets.precision import PRECISIONS, best_dtype, choose_device
from lodestar.objectives import Losses
from lodestar.progress import progress
from lodestar.tasks import DataFacts, Phase, Rng
from lodestar.train.ema import Average
from lodestar.train.init import initialize
from lodestar.train.interrupt import Interrupt
from lodestar.train.log import Log
from lodestar.train.names import LOCK, LOG, MODEL, RUN, STATE
from lodestar.train.run import DataConfig, OptimizerConfig, Run
from lodestar.train.state import Counters, TrainState
from lodestar.train.world import World

CHANGEABLE = {
    "train.images", "train.log_every", "train.save_every", "train.preview_every", "data.workers", "data.validation",
}  # fmt: skip
"""Settings that may change when a run is gone on with: its length, and what has no part in the weights."""


def train(run: Run, folder: str | Path, console: Console | None = None, device: str | None = None) -> Path:
    """Train until the run has seen its images, going on from the folder's checkpoint where there is one.

    Returns the path of the model. Raises Problem for whatever the user can mend: data that cannot be read, a folder that holds
    another run, a full disk, a loss that stays NaN. The last checkpoint is whole at any moment; Ctrl-C saves one and interrupts.
    """
    folder, console = Path(folder), console or Console(stderr=True)
    source, held_out = open_data(run)
    transforms = run.data.transforms
    run = run.replace(task=run.task.resolve(DataFacts(source.channels, transforms.result_size(source.size), source.names)))
    check_folder(folder, run)  # nothing is put into a folder that is not this run's, not even the lock
    with lock(folder / LOCK, f"another process is training in {folder}"):
        state = start(run, folder, device, console)
        claim(folder, run)  # after all that can be refused: a folder is a run's once it has begun
        counters, config = state.counters, run.train
        console.print(_plan(run, source, held_out, state, folder), soft_wrap=True)
        if counters.images_seen < config.images:
            _loop(run, state, source, held_out, folder, console)
    for count, what in (
        (len(source.bad), "pictures that could not be decoded"),
        (counters.skipped, "steps whose loss or gradient was not finite"),
    ):
        if count:
            console.print(f"skipped {count:,} {what}")
    end = f": {counters.images_seen:,} images seen; the model is {folder / MODEL}"
    console.print(Text.assemble(("done", "green"), end), soft_wrap=True)
    return folder / MODEL


def _loop(run: Run, state: TrainState, source: Source, held_out: Source | None, folder: Path, console: Console) -> None:
    """From the state's images seen to the run's."""
    counters, config, bad_steps = state.counters, run.train, 0
    stream: Any = batches(  # a generator, which can be closed
        source,
        config.batch_size,
        seed=config.seed,
        images_seen=counters.images_seen,
        transforms=run.data.transforms,
        workers=run.data.workers,
    )
    step, log, loss = Step(run, state), Log(folder, counters.images_seen), ""
    bar = progress(str(folder), config.images, done=counters.images_seen, console=console, transient=False)
    with contextlib.closing(log), contextlib.closing(stream), Interrupt() as interrupt, bar as tick:
        while counters.images_seen < config.images:
            before, began = counters.images_seen, time.perf_counter()
            log.add(step(next(stream)))
            elapsed = time.perf_counter() - began
            counters.seconds += elapsed
            tick(counters.images_seen, f"{config.batch_size / elapsed:.0f} images/s {loss}")
            bad_steps = 0 if step.finite else bad_steps + 1
            if bad_steps >= config.patience:
                raise Problem(
                    f"{bad_steps} steps in a row, to image {counters.images_seen:,}, had a loss or gradient that was not finite: "
                    f"{_last_good(folder)}; try a lower train.optimizer.rate"
                )
            last = counters.images_seen >= config.images
            showing = last or passed(config.preview_every, before, counters.images_seen)
            saving = showing or interrupt.asked or passed(config.save_every, before, counters.images_seen)
            # What is logged is the mean since the last line; one ends at every checkpoint, because nothing resumes half a line.
            if saving or passed(config.log_every, before, counters.images_seen):
                speed = counters.images_seen / counters.seconds
                line = log.write(counters.images_seen, rate=step.rate, images_per_second=speed, skipped=counters.skipped)
                loss = f"loss {line['loss']:.4f}" if "loss" in line else ""
            if saving:
                state.save(folder, run)
            # After it is saved, so that whatever goes wrong in a report costs the report alone.
            if showing:
                report(run, state, held_out, folder, log)
            if interrupt.asked and saving and not last:
                console.print(f"interrupted after {counters.images_seen:,} images; run the same command to go on")
                raise KeyboardInterrupt


def open_data(run: Run) -> tuple[Source, Source | None]:
    """The pictures that a run trains on, and those that it validates on, if any, of the size that it trains on.

    Raises Problem, also if the two differ in size or classes.
    """
    data, transforms = run.data, run.data.transforms
    source = _open(data, data.source, transforms.source_size, data.channels)
    size = transforms.result_size(source.size)
    fitted = None if transforms.size is None else size
    if data.held_out:
        kept, apart = divide(len(source), data.held_out)
        source, held_out = part(source, kept, transforms.source_size), part(source, apart, fitted)
    elif data.validation is not None:
        held_out = _open(data, data.validation, fitted, source.channels)
    else:
        return source, None
    if held_out.size != size:
        raise Problem(
            f"to validate on, {held_out.spec} has pictures of {show(held_out.size)}, "
            f"the run trains on {show(size)} (height×width)"
        )
    if held_out.names != source.names:
        raise Problem(
            f"to validate on, {held_out.spec} has {_classes(held_out)}, {source.spec} has {_classes(source)}: "
            "they must be the same"
        )
    return source, held_out


def _open(data: DataConfig, spec: str, size: Size | None, channels: int | None) -> Source:
    return open_source(
        spec,
        size=size,
        channels=channels,
        image_column=data.image_column,
        label_column=data.label_column,
        skip_bad=data.skip_bad,
    )


def check_folder(folder: Path, run: Run) -> None:
    """Raise Problem if the folder holds another run, or something that is no run."""
    path = folder / RUN
    if path.exists():
        try:
            there = decode(Run, path.read_text(encoding="utf-8"))
        except (Problem, UnicodeDecodeError):
            raise Problem(f"{path} cannot be read as a run of this version: choose another --out, or move it away") from None
        difference = _difference(there, run)
        if difference is not None:
            raise Problem(f"{folder} holds another run ({difference}): choose another --out, or give the same settings")
    elif folder.exists() and (not folder.is_dir() or not all(map(_is_ours, folder.iterdir()))):
        raise Problem(f"{folder} exists and holds no run: choose another --out")


def _is_ours(entry: Path) -> bool:
    """Whether this is what a run has in its folder before it has written anything."""
    return entry.name == LOCK or is_temporary(entry)


def claim(folder: Path, run: Run) -> None:
    """Make the folder this run's. To be called by who holds its lock: files that others had not finished are removed."""
    check_folder(folder, run)  # again, since who held the lock before may have begun a run
    for entry in filter(is_temporary, folder.rglob("*.tmp")):
        entry.unlink()
    write_text(folder / RUN, run.to_json())


def start(run: Run, folder: Path, device: str | None = None, console: Console | None = None) -> TrainState:
    """A fresh state, or the folder's checkpoint. Raises Problem if the checkpoint is damaged."""
    place = choose_device(device)
    dtype = best_dtype(place) if run.train.precision == "auto" else PRECISIONS[run.train.precision]
    torch.manual_seed(run.train.seed)
    learner = run.task.build(place, dtype)
    path = folder / STATE
    for name, module in learner.frozen.items():
        found = library.find(name)
        checkpoint.fill(module, checkpoint.load(found, learner.export()[0])[1], found)
    if run.train.init is not None and not path.exists():
        told = initialize(learner, run.train.init)
        if console is not None:
            console.print(Text(told), soft_wrap=True)
    parameters = list(learner.module.parameters())
    optimizer = run.train.optimizer
    state = TrainState(
        learner,
        {
            phase.name: torch.optim.AdamW(
                phase.parameters, lr=optimizer.rate, betas=optimizer.betas, weight_decay=optimizer.weight_decay, fused=True
            )
            for phase in learner.phases()
        },
        [Average(profile, parameters) for profile in run.train.ema],
        Counters(),
    )
    if path.exists():
        header, tensors = checkpoint.load(path, "state")
        state.counters = Counters(**header.provenance)
        state.restore(tensors, path)
    return state


class Step:
    """One optimizer step on one batch."""

    def __init__(self, run: Run, state: TrainState, world: World = World()) -> None:  # noqa: B008 (it has no state)
        self.run, self.state, self.world = run, state, world
        self.phases = state.learner.phases()
        if run.train.compile:
            state.learner.compile()
        self.device = next(state.learner.module.parameters()).device
        self.parameters = list(state.learner.module.parameters())
        self.whose = dropout.number(state.learner.module, self.device)
        self.finite = True
        self.rate = 0.0

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take the step. Returns per-sample losses for the log; empty if the step was skipped."""
        config, counters = self.run.train, self.state.counters
        seed = _mix(config.seed, counters.images_seen)
        torch.manual_seed(seed)  # for modules of others, whose draws cannot be the pictures' own
        generator = torch.Generator(device=self.device).manual_seed(seed)
        self.rate = learning_rate(config.optimizer, counters.images_seen, config.images)
        self.state.learner.module.train()
        logged: dict[str, Tensor] = {}
        self.finite = True
        for phase in self.phases:
            losses = self._phase(phase, batch, generator)
            self.finite = self.finite and bool(losses)
            logged |= losses
        counters.images_seen += config.batch_size
        counters.steps += 1
        if not self.finite:
            counters.skipped += 1
            return {}
        for average in self.state.averages:
            average.update(self.parameters, counters.images_seen, config.batch_size)
        return logged

    def _phase(self, phase: Phase, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Gradient and update of one phase; nothing is changed, and nothing returned, where they are not finite."""
        config, optimizer = self.run.train, self.state.optimizers[phase.name]
        for group in optimizer.param_groups:
            group["lr"] = self.rate
        optimizer.zero_grad(set_to_none=True)
        losses = self._accumulate(phase, batch, Rng(generator, config.batch_size))
        gradients = [parameter.grad for parameter in phase.parameters if parameter.grad is not None]
        self.world.sum(gradients)
        norm = torch.nn.utils.get_total_norm(gradients)
        values = {"loss": losses.total, **losses.terms}
        # One question to the device, because each waits until it has caught up.
        if not bool(norm.isfinite() & losses.total.isfinite().all()):
            optimizer.zero_grad(set_to_none=True)
            return {}
        if config.optimizer.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(phase.parameters, config.optimizer.clip, norm)
        optimizer.step()
        if phase.note is not None:
            phase.note(losses.noted)
        return values | {"gradient": norm.detach().reshape(1)}

    def _accumulate(self, phase: Phase, batch: Batch, rng: Rng) -> Losses:
        """Add up the gradient of this process's pictures, piece by piece; returns the losses of all processes'."""
        config, share = self.run.train, self.world.share(self.run.train.batch_size)
        assert len(batch.image) == share.stop - share.start, "a process is given its share of a batch"
        self.whose[0].fill_(_signed(_mix(config.seed, 0)))
        pieces: list[Losses] = []
        for rows in pieces_of(share, config.microbatch):
            piece = slice(rows.start - share.start, rows.stop - share.start)
            self.whose[1].fill_(self.state.counters.images_seen + rows.start)
            losses = phase.loss(cut(batch, piece), rng.piece(rows))
            # The mean over the batch whatever the pieces: each counts by its share of the samples.
            (losses.total.sum() / config.batch_size).backward()
            pieces.append(replace(losses, total=losses.total.detach()))
        return self._joined(pieces)

    def _joined(self, pieces: Sequence[Losses]) -> Losses:
        """The losses of pieces, and of all processes, as those of one batch."""

        def join(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
            return {name: self.world.gather(torch.cat([part[name] for part in parts])) for name in parts[0]}

        total = self.world.gather(torch.cat([piece.total for piece in pieces]))
        return Losses(total, join([piece.terms for piece in pieces]), join([piece.noted for piece in pieces]))


def passed(every: int, before: int, now: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]."""
    return now // every > before // every


def report(run: Run, state: TrainState, held_out: Source | None, folder: Path, log: Log) -> None:
    """Show samples and held-out numbers of the average that is saved as the model."""
    learner, images_seen = state.learner, state.counters.images_seen
    learner.module.eval()
    with state.averaged(state.averages[0]), torch.no_grad():
        pictures = learner.preview()
        numbers = {} if held_out is None else learner.validate(lambda: sequential(held_out, run.train.batch_size))
    if pictures is not None:
        sheet = save_grid(folder / "samples" / f"{images_seen:09d}.png", pictures)
        log.picture("samples", sheet.permute(1, 2, 0).numpy(), images_seen)
    if numbers:
        log.write(images_seen, **numbers)


def learning_rate(config: OptimizerConfig, images_seen: int, images: int) -> float:
    """The rate of the step that begins at images_seen."""
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


def pieces_of(rows: slice, size: int | None) -> Iterator[slice]:
    """Rows of a batch in pieces of at most `size`."""
    for begin in range(rows.start, rows.stop, size or rows.stop - rows.start):
        yield slice(begin, min(begin + size, rows.stop) if size else rows.stop)


def cut(batch: Batch, rows: slice) -> Batch:
    """Some of the pictures of a batch."""
    return Batch(batch.image[rows], None if batch.label is None else batch.label[rows])


def _mix(seed: int, images_seen: int) -> int:
    """A seed for each step, far from those of its neighbours and of other runs (splitmix64's finisher)."""
    value = (seed * 0x9E3779B97F4A7C15 + images_seen + 1) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


def _signed(value: int) -> int:
    """Of 64 bits, as a tensor holds them."""
    return value - 2**64 if value >= 2**63 else value


def _last_good(folder: Path) -> str:
    path = folder / STATE
    if not path.exists():
        return "there is no checkpoint yet"
    return f"the last good state, of image {checkpoint.peek(path).provenance['images_seen']:,}, is {path}"


def _plan(run: Run, source: Source, held_out: Source | None, state: TrainState, folder: Path) -> Text:
    device = next(state.learner.module.parameters()).device
    parameters = sum(parameter.numel() for parameter in state.learner.module.parameters())
    apart = "" if held_out is None else f" and {len(held_out):,} held out"
    at = f"going on at {state.counters.images_seen:,}" if state.counters.images_seen else "from the start"
    return Text(
        f"{folder}: {parameters / 1e6:.1f}M parameters on {device}, {len(source):,} pictures{apart}, {_classes(source)}, "
        f"to {run.train.images:,} images seen, {at}\n"
        f"  log {folder / LOG}, TensorBoard {folder / 'tensorboard'}, grids {folder / 'samples'}, model {folder / MODEL}"
    )


def _classes(source: Source) -> str:
    if source.names is None:
        return "no classes"
    return f"{len(source.names)} classes ({', '.join(source.names[:3])}{', …' if len(source.names) > 3 else ''})"


def _difference(a: Run, b: Run) -> str | None:
    """The first setting in which two runs differ, as text; None where they are the same run."""

    def leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from leaves(inner, f"{path}.{name}" if path else name)
        elif path not in CHANGEABLE:
            yield path, value

    old, new = (dict(leaves(run.model_dump(mode="json"), "")) for run in (a, b))
    for path in old | new:
        if old.get(path) != new.get(path):
            return f"its {path} is {old.get(path)!r}, yours {new.get(path)!r}"
    return None
