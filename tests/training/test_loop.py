from __future__ import annotations

import gc
import io
import itertools
import json
import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode

from lodestar import checkpoint
from lodestar.config import Problem
from lodestar.data import Batch, DataFacts, Transforms, divide
from lodestar.denoiser import conditions
from lodestar.files import lock, write_text
from lodestar.objectives import Losses, Simple
from lodestar.presets import RUNS
from lodestar.progress import Forecast
from lodestar.tasks import OptimizerConfig, TrainClassifier, TrainDenoiser
from lodestar.tasks.classify import ClassifyLearner
from lodestar.training.ema import Power
from lodestar.training.inputs import open_data
from lodestar.training.log import Log
from lodestar.training.loop import passed, train
from lodestar.training.names import LOCK, LOG
from lodestar.training.run import DataConfig, Run, TrainConfig
from lodestar.training.start import start
from lodestar.training.state import TrainState
from lodestar.training.step import Step, learning_rate

from ..data.pictures import png, write_table
from .runs import classifying, denoising, logged, saved, write_pictures

FACTS = DataFacts(3, (8, 8), ("a", "b", "c"))


def begin(run: Run, folder: Path) -> tuple[TrainState, Step]:
    run = run.replace(task=run.task.resolve(FACTS))
    state = start(run, folder)
    return state, Step(run, state)


def batch(count: int = 8) -> Batch:
    rng = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=rng)
    return Batch({"image": image, "label": torch.randint(0, 3, (count,), generator=rng)})


def weights(state: TrainState) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in state.learner.module.parameters()]


# Steps


@pytest.mark.parametrize("microbatch", [1, 3, 4, 8])
def test_accumulated_gradients_are_those_of_the_whole_batch(microbatch: int, tmp_path: Path) -> None:
    unclipped = OptimizerConfig(clip=None)
    found = []
    for size in (None, microbatch):
        state, step = begin(classifying("", microbatch=size, optimizer=unclipped), tmp_path)
        logs = step(batch())
        gradients = [parameter.grad for parameter in state.learner.module.parameters() if parameter.grad is not None]
        found.append((gradients, logs))
    (whole, whole_logs), (pieces, piece_logs) = found
    assert sum(float(gradient.abs().sum()) for gradient in whole) > 1
    for gradient, other in zip(whole, pieces, strict=True):
        assert torch.allclose(gradient, other, atol=1e-6, rtol=1e-5)
    # What is logged is per sample, all of them, whatever the pieces.
    assert piece_logs["loss"].shape == (8,)
    assert torch.allclose(whole_logs["loss"], piece_logs["loss"], atol=1e-6)


def test_gradients_are_clipped_to_their_norm(tmp_path: Path) -> None:
    state, step = begin(classifying("", optimizer=OptimizerConfig(clip=1e-3)), tmp_path)
    norm = float(step(batch())["gradient"])
    assert norm > 1e-2, "what is logged is the norm before it was clipped"
    gradients = [parameter.grad for parameter in state.learner.module.parameters() if parameter.grad is not None]
    assert float(torch.nn.utils.get_total_norm(gradients)) == pytest.approx(1e-3, rel=1e-3)


def spoil(losses: Losses) -> Losses:
    return replace(losses, total=losses.total * math.nan)


def spoil_one(losses: Losses) -> Losses:
    return replace(losses, total=losses.total + torch.tensor([math.inf] + [0.0] * (len(losses.total) - 1)))


def spoil_gradient(losses: Losses) -> Losses:
    """A finite loss whose gradient is 0·∞."""
    return replace(losses, total=losses.total + (0 * losses.total).sqrt())


def spoil_when(monkeypatch: pytest.MonkeyPatch, spoiled: Callable[[Losses], Losses], bad: Callable[[int], bool]) -> None:
    """Spoil the loss of the steps, counted from 0, that `bad` names."""
    loss, calls = ClassifyLearner.loss, iter(range(1000))

    def wrapped(self: ClassifyLearner, *args: Any) -> Losses:
        losses = loss(self, *args)
        return spoiled(losses) if bad(next(calls)) else losses

    monkeypatch.setattr(ClassifyLearner, "loss", wrapped)


@pytest.mark.parametrize("spoiled", [spoil, spoil_one, spoil_gradient])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counters(
    spoiled: Callable[[Losses], Losses], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_when(monkeypatch, spoiled, lambda call: call == 1)
    state, step = begin(classifying(""), tmp_path)
    assert step(batch())
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    assert step(batch()) == {}
    assert not step.finite
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())
    counters = state.counters
    assert (counters.images_seen, counters.steps, counters.skipped) == (16, 2, 1)
    assert step(batch())
    assert step.finite
    assert not all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())


def test_skipped_steps_are_counted_in_the_log_and_told_at_the_end(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seven bad steps, never three in a row.
    spoil_when(monkeypatch, spoil, lambda call: call % 3 != 0)
    console = Console(record=True, file=io.StringIO())
    train(classifying(pictures, patience=3, images=88), tmp_path / "run", console)
    assert logged(tmp_path / "run")[-1]["skipped"] == 7
    losses = [line["loss"] for line in logged(tmp_path / "run") if "loss" in line]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    assert "skipped 7 steps whose loss or gradient was not finite" in console.export_text()


def test_a_loss_that_stays_nan_stops_the_run_and_names_the_last_good_state(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    spoil_when(monkeypatch, spoil, lambda call: call >= 5)
    with pytest.raises(Problem) as caught:
        train(classifying(pictures, patience=4), folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("4 steps in a row, to image 72, had a loss or gradient that was not finite")
    # At 64 the third bad step had been, but each of them left the weights as they were.
    assert f"the last good state, of image 64, is {folder / 'state.safetensors'}" in message
    assert all(bool(tensor.isfinite().all()) for tensor in saved(folder)[1].values())


def test_a_loss_that_is_nan_from_the_start_says_that_nothing_is_saved(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_when(monkeypatch, spoil, lambda _: True)
    with pytest.raises(Problem, match=r"2 steps in a row, to image 16, .* there is no checkpoint yet"):
        train(classifying(pictures, patience=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_logged_keeps_its_log_when_it_fails(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_when(monkeypatch, spoil, lambda step: step >= 4)
    with pytest.raises(Problem, match="there is no checkpoint yet"):
        train(classifying(pictures, patience=2, save_every=10_000), tmp_path / "run")
    assert "loss" in (tmp_path / "run" / LOG).read_text()


def test_compile_reaches_the_network(tmp_path: Path) -> None:
    for run in (classifying("", compile=True), denoising("", compile=True)):
        state, _ = begin(run, tmp_path)
        assert any(module._compiled_call_impl is not None for module in state.learner.module.modules())


@pytest.mark.parametrize("run", [classifying("", noised=True), denoising("")])
def test_a_step_asks_the_device_once(run: Run, tmp_path: Path) -> None:
    if isinstance(run.task, TrainDenoiser):
        denoiser = run.task.model.denoiser
        denoiser = denoiser.replace(network=denoiser.network.replace(out_channels=3), variance="fixed")
        run = run.replace(task=run.task.replace(objective=Simple(), model=run.task.model.replace(denoiser=denoiser)))
    asked = []

    class Asked(TorchDispatchMode):
        def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if call is torch.ops.aten._local_scalar_dense.default:
                asked.append(call)
            return call(*args, **(kwargs or {}))

    _, step = begin(run, tmp_path)
    log = Log(tmp_path, 0)
    step(batch())  # the first one makes tables that are kept
    with Asked():
        log.add(step(batch()))
        log.add(step(batch()))
    log.close()
    assert len(asked) == 2


def test_steps_of_a_run_hold_no_more_memory_as_they_go(tmp_path: Path) -> None:
    state, step = begin(classifying(""), tmp_path)
    log = Log(tmp_path, 0)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    counts = []
    for _ in range(4):
        for _ in range(5):
            log.add(step(batch()))
        log.write(state.counters.images_seen)
        counts.append(tensors())
    log.close()
    assert counts[1] == counts[2] == counts[3]
    assert not log.sums


# Schedules


def test_learning_rate_rises_stays_and_falls() -> None:
    def rate(images_seen: int, **settings: Any) -> float:
        return learning_rate(OptimizerConfig(rate=2.0, **settings), images_seen, 1000)

    assert rate(0) == rate(999) == 2.0
    assert rate(49, warmup_images=100) == pytest.approx(1.0)
    assert rate(0, warmup_images=100) > 0
    assert rate(100, warmup_images=100) == 2.0
    assert rate(250, fall="linear") == pytest.approx(1.5)
    assert rate(0, fall="cosine") == 2.0
    assert rate(500, fall="cosine") == pytest.approx(1.0)
    assert rate(250, fall="cosine") == pytest.approx(2 * (0.5 + 0.5 * math.cos(math.pi / 4)))
    for fall in ("linear", "cosine"):
        assert rate(1000, fall=fall) == rate(1200, fall=fall) == 0


def test_the_step_uses_the_rate_of_where_it_begins(tmp_path: Path) -> None:
    state, step = begin(classifying("", optimizer=OptimizerConfig(rate=1e-3, fall="linear"), images=80), tmp_path)
    step(batch())
    step(batch())
    assert step.rates == {"rate": pytest.approx(1e-3 * 0.9)}
    assert state.optimizers["classify"].param_groups[0]["lr"] == step.rates["rate"]


def test_batches_double_at_shares_of_the_run() -> None:
    config = TrainConfig(images=1000, batch_size=8, batch_doublings=(0.5, 0.75))
    assert [config.batch_at(seen) for seen in (0, 499, 500, 749, 750, 1000, 2000)] == [8, 8, 16, 16, 32, 32, 32]
    assert TrainConfig(batch_size=8).batch_at(10**9) == 8
    for shares, message in (((1.0,), "batch_doublings"), ((0.0,), "batch_doublings"), ((0.5,) * 20, "batches of 8,388,608")):
        with pytest.raises(Problem, match=message):
            config.replace(batch_doublings=shares)


def test_steps_averages_and_logs_know_the_size_of_each_batch(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, kept = [], Power.keep
    monkeypatch.setattr(Power, "keep", lambda self, *numbers: (told.append(numbers), kept(self, *numbers))[1])
    run = denoising(pictures, images=64, batch_doublings=(0.25, 0.5), log_every=16)
    train(run, tmp_path)
    sizes = [8, 8, 16, 32]
    assert told == list(zip(itertools.accumulate(sizes), sizes, strict=True))
    assert [line["images"] for line in logged(tmp_path)] == [16, 32, 64]
    counters, _ = saved(tmp_path)
    assert (counters["images_seen"], counters["steps"], counters["skipped"]) == (64, 4, 0)


def test_passed_tells_each_multiple_once() -> None:
    seen = [now for now in range(8, 105, 8) if passed(20, now - 8, now)]
    assert seen == [24, 40, 64, 80, 104]
    assert passed(1, 0, 8)
    assert not passed(1000, 0, 8)


# Folders


def test_intervals_of_one_length_do_not_hinder_each_other(pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are written where previews and log lines are due at the same image."""
    saves: list[int] = []
    monkeypatch.setattr(TrainState, "save", lambda self, *_: saves.append(self.counters.images_seen))
    train(classifying(pictures, log_every=16, save_every=16, preview_every=16, images=48), tmp_path / "run")
    assert saves == [16, 32, 48]
    assert [line["images"] for line in logged(tmp_path / "run")] == [16, 32, 48]


def test_validations_and_previews_land_in_the_folder(pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClassifyLearner, "preview", lambda _: torch.full((4, 3, 8, 8), 200, dtype=torch.uint8))
    folder = tmp_path / "run"
    held_out = write_pictures(tmp_path / "held out", 9)
    run = classifying(pictures, noised=True, images=64, preview_every=32, log_every=16)
    train(run.replace(data=run.data.replace(validation=held_out)), folder)
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ["000000032.png", "000000064.png"]
    assert np.asarray(Image.open(folder / "samples" / "000000032.png")).shape == (272, 272, 3)
    validations = [line for line in logged(folder) if any(name.startswith("accuracy/time") for name in line)]
    assert [line["images"] for line in validations] == [32, 64]
    assert not any("loss" in line for line in validations)
    losses = [line for line in logged(folder) if "loss" in line]
    assert [line["images"] for line in losses] == [16, 32, 48, 64]
    assert losses[0].keys() == {"images", "loss", "accuracy", "gradient", "rate", "skipped"}
    assert any((folder / "tensorboard").iterdir())


def test_what_goes_wrong_in_a_report_does_not_lose_the_run(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out, folder = write_pictures(tmp_path / "held out", 9), tmp_path / "run"
    run = classifying(pictures, images=48, save_every=1000, preview_every=24)
    run = run.replace(data=run.data.replace(validation=held_out))
    for path in sorted(Path(held_out).rglob("*.png"))[4:]:
        path.write_bytes(b"broken")
    for images_seen in (24, 48):
        with pytest.raises(Problem, match="cannot be decoded"):
            train(run, folder)
        assert saved(folder)[0]["images_seen"] == images_seen
    train(run, folder)
    assert checkpoint.peek(folder / "model.safetensors").provenance["images_seen"] == 48


def test_a_share_of_the_pictures_is_held_out_and_validated_on(pictures: str, tmp_path: Path) -> None:
    run = classifying(pictures, images=16)
    run = run.replace(data=run.data.replace(held_out=0.2))
    source, held_out = open_data(run)
    kept, apart = divide(20, 0.2)
    assert held_out is not None
    for part, indices in ((source, kept), (held_out, apart)):
        whole = open_data(classifying(pictures))[0]
        assert [image.tobytes() for image, _ in map(part.__getitem__, range(len(part)))] == [
            whole[index][0].tobytes() for index in indices
        ]
    console = Console(record=True, width=60, file=io.StringIO())
    train(run, tmp_path / "run", console)
    assert "16 pictures and 4 held out, 3 classes" in console.export_text()
    assert logged(tmp_path / "run")[-1].keys() == {"images", "accuracy/clean"}
    with pytest.raises(Problem, match=r"^held_out is 0.2 and validation '.*': give one of them$"):
        run.data.replace(validation=pictures)


def test_held_out_pictures_are_as_large_as_those_trained_on(pictures: str) -> None:
    transforms = Transforms(size=4, crop="random")
    for apart in ({"held_out": 0.2}, {"validation": pictures}):
        source, held_out = open_data(Run(data=DataConfig(source=pictures, transforms=transforms, **apart)))
        assert held_out is not None
        assert (source.size, held_out.size) == ((5, 5), (4, 4))


def test_classifier_presets_report_accuracy_by_themselves(tmp_path: Path) -> None:
    presets = [make() for make in RUNS.values()]
    assert all(run.data.held_out for run in presets if isinstance(run.task, TrainClassifier))
    run = RUNS["digits_classifier"]()
    train(run.replace(train=run.train.replace(images=8, batch_size=8)), tmp_path / "run")
    assert sum(name.startswith("accuracy/time") for name in logged(tmp_path / "run")[-1]) == 4


def test_columns_are_named_by_the_run(tmp_path: Path) -> None:
    images = [png(np.full((8, 8, 3), row, np.uint8)) for row in range(4)]
    spec = write_table(tmp_path / "t.parquet", images, list("xyxy"), image="first", label="kind")
    data = DataConfig(source=spec, validation=spec, image_column="first", label_column="kind")
    for source in open_data(Run(data=data)):
        assert source is not None
        assert source.names == ("x", "y")
    with pytest.raises(Problem, match="did you mean 'first'"):
        open_data(Run(data=data.replace(image_column="frist")))


def test_the_model_is_the_first_average_and_others_are_beside_it(uninterrupted: Path) -> None:
    _, tensors = saved(uninterrupted)
    for file, label in (("model.safetensors", "half_life50"), ("model-power0.1.safetensors", "power0.1")):
        header, model = checkpoint.load(uninterrupted / file, "diffusion")
        assert header.provenance["images_seen"] == 96
        assert all(torch.equal(value, tensors[f"ema/{label}/{name}"]) for name, value in model.items())
        assert not all(torch.equal(value, tensors[f"weights/{name}"]) for name, value in model.items())


def test_the_plan_and_the_end_say_where_things_are(pictures: str, tmp_path: Path) -> None:
    console = Console(record=True, width=60, file=io.StringIO())
    folder = tmp_path / "run"
    train(classifying(pictures, images=16), folder, console)
    said = console.export_text()
    assert "20 pictures, 3 classes (a, b, c), to 16 images seen, from the start" in said
    for path in ("log.jsonl", "tensorboard", "model.safetensors"):
        assert str(folder / path) in said
    assert "samples" not in said, "a classifier makes none"
    console = Console(record=True, width=60, file=io.StringIO())
    train(classifying(pictures, images=32), folder, console)
    assert "going on at 16" in console.export_text()


def test_long_runs_say_beforehand_how_long_they_take_here(pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of eight pictures that take 50 seconds each: after the second, 80 of 96 images are left, 500 seconds."""
    seconds = itertools.count(0, 50)
    monkeypatch.setattr("lodestar.progress.Forecast", partial(Forecast, clock=lambda: float(next(seconds))))
    for following, text in (
        (0, "about 8.3 minutes to go here, previews and validation not counted\n"),
        (3, "8.3 minutes to go here, about 38 minutes with 3 more like it, previews and validation not counted\n"),
    ):
        console = Console(record=True, width=200, file=io.StringIO())
        train(classifying(pictures), tmp_path / str(following), console, following=following)
        assert text in console.export_text()


def test_a_folder_with_another_run_is_refused_with_the_setting_that_differs(pictures: str, tmp_path: Path) -> None:
    train(classifying(pictures, images=8), tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(Problem, match=r"holds another run \(its train.batch_size is 8, yours 16\): choose another --out"):
        train(classifying(pictures, images=8, batch_size=16), tmp_path / "run")
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_run_goes_on_with_settings_that_have_no_part_in_its_weights(pictures: str, tmp_path: Path) -> None:
    steady = denoising(pictures).train.optimizer.replace(fall="none")
    run = classifying(pictures, images=16, optimizer=steady)
    train(run, tmp_path / "run")
    changed = classifying(pictures, images=32, optimizer=steady, log_every=8, save_every=8, preview_every=16)
    train(changed.replace(data=changed.data.replace(workers=0, validation=pictures)), tmp_path / "run")
    train(run.replace(train=run.train.replace(images=32)), tmp_path / "whole")
    (_, tensors), (_, others) = saved(tmp_path / "run"), saved(tmp_path / "whole")
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
    with pytest.raises(Problem, match=r"its data.held_out is 0.0, yours 0.2"):
        train(run.replace(data=run.data.replace(held_out=0.2)), tmp_path / "run")


def test_a_second_process_leaves_everything_as_it_is(pictures: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(classifying(pictures, images=8), folder)
    before = (folder / "run.json").read_bytes()
    unfinished = folder / ".model.safetensors.123.tmp"
    unfinished.write_bytes(b"half")
    with lock(folder / LOCK, "unused"), pytest.raises(Problem, match="another process is training in"):
        train(classifying(pictures, images=16), folder)
    assert unfinished.read_bytes() == b"half"
    assert (folder / "run.json").read_bytes() == before
    train(classifying(pictures, images=16), folder)
    assert not unfinished.exists()


def test_a_lock_alone_does_not_make_a_folder_foreign(pictures: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with lock(folder / LOCK, "unused"), pytest.raises(Problem, match="another process is training in"):
        train(classifying(pictures, images=8), folder)
    assert [path.name for path in folder.iterdir()] == [LOCK]
    train(classifying(pictures, images=8), folder)


@pytest.mark.parametrize("settings", [{"steps": "trailing:21"}, {"steps": "at:0"}])
def test_a_run_that_cannot_be_previewed_is_refused_before_its_first_step(
    settings: dict[str, Any], pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Step, "__call__", None)
    run = denoising(pictures)
    run = run.replace(task=run.task.replace(model=run.task.model.replace(**settings)))
    with pytest.raises(Problem, match=r": previews are made with task\.model\.steps and task\.model\.sampler$") as caught:
        train(run, tmp_path / "new" / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_an_upsampler_is_tried_with_a_small_picture(tmp_path: Path) -> None:
    run = denoising(str(tmp_path))
    small = run.task.model.denoiser.replace(conditions=conditions(3, (4, 4)))
    for steps, wrong in (("5", False), ("21", True)):
        task = run.task.replace(model=run.task.model.replace(denoiser=small, steps=steps))
        with pytest.raises(Problem, match="21 of them") if wrong else nullcontext():
            task.build(torch.device("cpu"), torch.float32).check()


def test_a_picture_that_turns_out_to_be_damaged_leaves_no_folder_behind(tmp_path: Path) -> None:
    source = Path(write_pictures(tmp_path / "pictures"))
    victim = sorted(source.rglob("*.png"))[3]
    victim.write_bytes(victim.read_bytes()[:60])
    (tmp_path / "runs").mkdir()
    with pytest.raises(Problem, match=victim.name):
        train(classifying(str(source)), tmp_path / "runs" / "mine")
    assert not list((tmp_path / "runs").iterdir())


def test_what_somebody_has_put_into_a_folder_meanwhile_stays(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        for name in ("notes.txt", "tensorboard/notes.txt"):
            write_text(tmp_path / "run" / name, "mine")
        raise Problem("no")

    monkeypatch.setattr(Step, "__call__", fail)
    with pytest.raises(Problem, match="no"):
        train(classifying(pictures), tmp_path / "run")
    left = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert left == {LOCK, "notes.txt", "tensorboard/notes.txt"}


def test_what_is_refused_before_it_is_saved_leaves_an_old_folder_as_it_was(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(classifying(pictures, images=8, patience=2), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    spoil_when(monkeypatch, spoil, lambda _: True)
    with pytest.raises(Problem, match="2 steps in a row"):
        train(classifying(pictures, images=800, patience=2), tmp_path)
    run = (tmp_path / "run.json", before[tmp_path / "run.json"].replace(b'"images":8,', b'"images":800,'))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} | dict([run]) == before | dict([run])


def test_what_has_begun_stays_where_it_goes_wrong_later(pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_when(monkeypatch, spoil, lambda call: call >= 5)
    with pytest.raises(Problem, match="4 steps in a row"):
        train(classifying(pictures, patience=4), tmp_path)
    assert {"run.json", "log.jsonl", "tensorboard", "state.safetensors"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("file", ["model.safetensors", "state.safetensors", "log.jsonl", "run.json", ".lock"])
def test_a_folder_or_a_pipe_in_the_place_of_a_file_is_told_before_the_first_step(
    file: str, pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Step, "__call__", None)
    run = classifying(pictures)
    for make in (Path.mkdir, os.mkfifo):
        folder = tmp_path / make.__name__
        write_text(folder / "run.json", run.replace(task=run.task.resolve(FACTS)).to_json())
        (folder / file).unlink(missing_ok=True)
        make(folder / file)
        before = {*folder.rglob("*"), folder / LOCK}  # which stays in the folder of a run that had begun
        if (file, make) == ("model.safetensors", os.mkfifo):
            continue  # the model takes its place
        with pytest.raises(Problem, match=file):
            train(run, folder)
        assert {*folder.rglob("*"), folder / LOCK} == before


def test_a_log_that_is_no_text_is_named(pictures: str, tmp_path: Path) -> None:
    train(classifying(pictures, images=8), tmp_path)
    (tmp_path / "log.jsonl").write_bytes(b'{"images": 8}\n\xff\n')
    with pytest.raises(Problem, match=r"log\.jsonl cannot be read: 'utf-8' codec can't decode"):
        train(classifying(pictures, images=16), tmp_path)
    (tmp_path / "log.jsonl").write_text('{"images": {}}\n{"images": 8}\n{"images": 1' + "0" * 400 + "}\n")
    train(classifying(pictures, images=16), tmp_path)
    assert [line["images"] for line in logged(tmp_path)] == [8, 16]


def test_names_are_told_as_they_are(pictures: str, tmp_path: Path) -> None:
    """Not as the markup of what prints them."""
    folder, console = tmp_path / "[red]x[/y] :car:", Console(record=True, width=200, file=io.StringIO())
    train(classifying(pictures, images=8), folder, console)
    said = console.export_text()
    assert f"{folder}: 0." in said
    assert f"the model is {folder / 'model.safetensors'}" in said
    assert f"{folder} ━" in said


def test_a_folder_with_other_things_in_it_is_refused(pictures: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(Problem, match="exists and holds no run: choose another --out"):
        train(classifying(pictures), tmp_path)
    with pytest.raises(Problem, match="exists and holds no run: choose another --out"):
        train(classifying(pictures), tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_damaged_run_file_is_refused(pictures: str, tmp_path: Path) -> None:
    for damaged in (b"\xff{", b"{", b"[" * 100_000, b"{}x"):
        (tmp_path / "run.json").write_bytes(damaged)
        with pytest.raises(Problem, match=r"run.json cannot be read as a run of this version"):
            train(classifying(pictures), tmp_path)


def test_held_out_pictures_must_have_the_runs_size_and_classes(pictures: str, tmp_path: Path) -> None:
    two = write_pictures(tmp_path / "two", 2)
    run = classifying(pictures)
    with pytest.raises(Problem, match=r"two has 2 classes \(a, b\), .* has 3 classes \(a, b, c\): they must be the same"):
        train(run.replace(data=DataConfig(source=pictures, validation=two)), tmp_path / "run")
    for path in Path(two).rglob("*.png"):
        Image.new("RGB", (16, 16)).save(path)
    with pytest.raises(Problem, match=r"two has pictures of 16×16, the run trains on 8×8"):
        train(run.replace(data=DataConfig(source=pictures, validation=two)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# The log


def test_lines_after_the_checkpoint_and_a_cut_one_are_dropped(tmp_path: Path) -> None:
    lines = [json.dumps({"images": images, "loss": 1.0}) for images in (8, 16, 24)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"images": 8, "lo')
    log = Log(tmp_path, 16)
    log.add({"loss": torch.tensor([1.0, 3.0])})
    log.add({"loss": torch.tensor([5.0])})
    assert log.write(24, rate=0.1)["loss"] == 3.0
    log.close()
    assert [line["images"] for line in logged(tmp_path)] == [8, 16, 24]
    assert logged(tmp_path)[-1] == {"images": 24, "loss": 3.0, "rate": 0.1}


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    log = Log(tmp_path, 0)
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(Problem, match=r"^cannot write .*log\.jsonl: Is a directory$"):
        log.write(8)
    log.close()
