"""The training loop: one for every task.

It knows steps, counters in images, checkpoints and resumption, and no model. The random state of a step is a function of (seed,
images seen), and so is the order of the data: to resume is to run the same command again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from lodestar.config import Problem
from lodestar.data import Shuffled, Source, sequential
from lodestar.files import check_writable, lock, spelled
from lodestar.images import save_grid
from lodestar.progress import Foretold, error_console, progress
from lodestar.tasks import Learner
from lodestar.training.coding import coded
from lodestar.training.embedding import joined
from lodestar.training.folder import check_folder, check_shares, claim, last_good, leaves, nothing_left
from lodestar.training.inputs import Given, classes, facts_of, open_data
from lodestar.training.interrupt import Interrupt
from lodestar.training.log import Log, Unwritten
from lodestar.training.names import BOARD, LOCK, LOG, MODEL, STATE
from lodestar.training.run import Run
from lodestar.training.saving import Saving
from lodestar.training.sharding import check_shards
from lodestar.training.start import divide, start
from lodestar.training.state import TrainState
from lodestar.training.step import Step
from lodestar.world import World, here


def train(
    run: Run,
    folder: str | Path,
    console: Console | None = None,
    device: str | None = None,
    following: int = 0,
    given: Given = Given(),  # noqa: B008 (it is frozen)
) -> Path:
    """Train until the run has seen its images, going on from the folder's checkpoint where there is one.

    Returns the path of the model. Raises Problem for errors that the user can mend: unreadable data, a folder with another
    run, a full disk, a loss that stays NaN. The last checkpoint is whole at any moment; Ctrl-C saves one and interrupts.
    following: number of runs of this length to come, which the forecast includes. given: pictures given as Python objects, in the
    place of those named by the run.
    """
    world = here()
    folder, console = Path(folder), Console(quiet=True) if world.rank else console or error_console()
    with contextlib.ExitStack() as held:
        with world.in_turn():  # the first process claims the folder, and the others find what it is to hold
            run, state, source, held_out = _begin(run, folder, given, device, console, world, held)
        counters, config = state.counters, run.train
        world.agree({"images seen": counters.images_seen, "precision": counters.precision, **dict(leaves(run))})
        world.follow(list(state.tensors().values()))
        if world.size > 1 and run.train.shard == "full":
            divide(state, run, world)
        console.print(_plan(run, source, held_out, state, folder), soft_wrap=True)
        if counters.images_seen < config.images:
            Loop(run, state, folder, console, following, world)(source, held_out)
        world.any(False)  # the last checkpoint is there for all
    for count, what in (
        (len(source.bad), "pictures that could not be read"),
        (counters.skipped, "steps whose loss or gradient was not finite"),
    ):
        if count:
            console.print(f"skipped {count:,} {what}")
    end = f": {counters.images_seen:,} images seen; the model is {spelled(folder / MODEL)}"
    console.print(Text.assemble(("done", "green"), end), soft_wrap=True)
    return folder / MODEL


def _begin(
    run: Run, folder: Path, given: Given, device: str | None, console: Console, world: World, held: contextlib.ExitStack
) -> tuple[Run, TrainState, Source, Source | None]:
    """The whole run, its state, and its data; in `held` the folder belongs to the first process. Raises Problem."""
    first = world.rank == 0
    if first and not folder.exists():
        check_writable(folder / STATE)
    source, held_out = open_data(run, given)
    run = given.named(run, source, held_out)
    run, source, held_out = joined(run, source, held_out, device)
    facts, transforms, config = facts_of(run, source), run.data.transforms, run.train
    run = run.replace(task=run.task.resolve(facts))
    check_shares(run, world.size)
    check_folder(folder, run)  # nothing is put into a folder that is not this run's, not even the lock
    source, held_out = coded(run, source, held_out, device)
    if first:
        held.enter_context(lock(folder / LOCK, f"another process is training in {folder}"))
        held.enter_context(nothing_left(folder))
    state = start(run, folder, device, console, facts)
    state.check(folder)
    check_shards(run, state.learner, world)
    seen = state.counters.images_seen
    if seen < config.images:  # data that cannot be read are known by the first batch, or late
        next(Shuffled(source, config.batch_at, transforms, workers=0).batches(config.seed, seen, world.rank, world.size))
    if first:
        claim(folder, run)  # after all that can be refused: a folder is a run's once it has begun
    return run, state, source, held_out


class Loop:
    """Steps from the state's images seen to the run's, with all that is told and saved on the way."""

    def __init__(
        self,
        run: Run,
        state: TrainState,
        folder: Path,
        console: Console,
        following: int = 0,
        world: World = World(),  # noqa: B008 (it has no state)
    ) -> None:
        self.run, self.state, self.folder, self.console, self.world = run, state, folder, console, world
        self.step = Step(run, state, world)
        self.log = Log(folder, state.counters.images_seen) if world.rank == 0 else Unwritten()
        self.foretold = Foretold(console, run.train.images, following, "previews and validation")
        behind = run.train.save_behind
        self.saving = Saving(world.rank == 0 and (self.step.device.type == "cuda" if behind is None else behind))
        self.losses, self.bad_steps = "", 0

    def __call__(self, source: Source, held_out: Source | None) -> None:
        """Train. Raises Problem, and KeyboardInterrupt once an interrupted run is saved."""
        counters, config, data = self.state.counters, self.run.train, self.run.data
        stream = Shuffled(source, config.batch_at, data.transforms, data.workers).batches(
            config.seed, counters.images_seen, self.world.rank, self.world.size
        )
        bar = progress(spelled(self.folder), config.images, done=counters.images_seen, console=self.console, transient=False)
        closed = contextlib.ExitStack()
        for each in (self.log, stream, self.saving):
            closed.enter_context(contextlib.closing(each))
        with closed, Interrupt(self.world.size > 1) as interrupt, bar as tick:
            while counters.images_seen < config.images:
                before, began = counters.images_seen, time.perf_counter()
                self.log.add(self.step(next(stream)))
                elapsed = time.perf_counter() - began
                counters.seconds += elapsed
                tick(counters.images_seen, f"{(counters.images_seen - before) / elapsed:.0f} images/s {self.losses}")
                self._check()
                self.foretold(counters.images_seen)
                asked, last = self.world.any(interrupt.asked), counters.images_seen >= config.images
                showing = last or passed(config.preview_every, before, counters.images_seen)
                saving = showing or asked or passed(config.save_every, before, counters.images_seen)
                # What is logged is the mean since the last line; one ends at every checkpoint: nothing resumes half a line.
                if saving or passed(config.log_every, before, counters.images_seen):
                    self._write()
                first = self.world.rank == 0
                if saving:
                    self.log.keep()
                    self.state.save(self.folder, self.run, first, self.saving)
                # After it is saved, so that whatever goes wrong in a report costs the report alone.
                if showing and (first or self.state.shards is not None):
                    report(self.run, self.state, held_out, self.folder if first else None, self.log)
                if asked and saving and not last:
                    self.saving.wait()
                    self.console.print(f"interrupted after {counters.images_seen:,} images; run the same command to go on")
                    raise KeyboardInterrupt

    def _check(self) -> None:
        """Raise Problem if too many steps in a row were skipped."""
        self.bad_steps = 0 if self.step.finite else self.bad_steps + 1
        if self.bad_steps >= self.run.train.patience:
            raise Problem(
                f"{self.bad_steps} steps in a row, to image {self.state.counters.images_seen:,}, had a loss or gradient that was "
                f"not finite: {last_good(self.folder)}; try a lower train.optimizer.rate"
            )

    def _write(self) -> None:
        """Write a line of the log."""
        counters = self.state.counters
        speed = counters.images_seen / counters.seconds
        line = self.log.write(counters.images_seen, **self.step.rates, images_per_second=speed, skipped=counters.skipped)
        named = {name: value for name, value in line.items() if name.rpartition("/")[2] == "loss"}
        self.losses = " ".join(f"{name} {value:.4f}" for name, value in named.items())


def passed(every: int, before: int, now: int) -> bool:
    """True if a multiple of `every` lies in (before, now]."""
    return now // every > before // every


def report(run: Run, state: TrainState, held_out: Source | None, folder: Path | None, log: Log | Unwritten) -> None:
    """Show samples and held-out numbers of the average that is saved as the model; without a folder only make them."""
    learner, images_seen = state.learner, state.counters.images_seen
    learner.module.eval()
    with state.swapped(state.averages[0]), torch.no_grad():
        pictures = state.run(learner.preview)
        numbers: Mapping[str, float] = {}
        if held_out is not None:
            numbers = state.run(lambda: learner.validate(lambda: sequential(held_out, run.train.batch_size)))
    if pictures is not None and folder is not None:
        sheet = save_grid(folder / "samples" / f"{images_seen:09d}.png", pictures)
        log.picture("samples", sheet.permute(1, 2, 0).numpy(), images_seen)
    if numbers:
        log.write(images_seen, **numbers)


def _plan(run: Run, source: Source, held_out: Source | None, state: TrainState, folder: Path) -> Text:
    device = next(state.learner.module.parameters()).device
    parameters = sum(parameter.numel() for parameter in state.learner.module.parameters())
    apart = "" if held_out is None else f" and {len(held_out):,} held out"
    at = f"going on at {state.counters.images_seen:,}" if state.counters.images_seen else "from the start"
    grids = "" if type(state.learner).preview is Learner.preview else f"grids {folder / 'samples'}, "
    told = (
        f"{folder}: {parameters / 1e6:.1f}M parameters on {device}, {len(source):,} pictures{apart}, {classes(source)}, "
        f"to {run.train.images:,} images seen, {at}\n"
        f"  log {folder / LOG}, TensorBoard {folder / BOARD}, {grids}model {folder / MODEL}"
    )
    return Text(spelled(told))
