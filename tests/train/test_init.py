"""Beginning with another model's weights."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from lodestar import checkpoint, library
from lodestar.config import Problem
from lodestar.denoiser import conditions
from lodestar.train.init import initialize
from lodestar.train.loop import train
from lodestar.train.run import Run
from tests.train.runs import SMALL, denoising, write_pictures

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three classes, its model random."""
    folder = tmp_path_factory.mktemp("given")
    model = denoising("digits").task.model.build()
    for number, parameter in enumerate(model.parameters()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    checkpoint.save(folder / "model.safetensors", "diffusion", model.config.to_json(), model.state_dict(), {})
    return folder / "model.safetensors"


def learner(classes: int | None = 3, channels: int = 3, **network: Any) -> Any:
    task = denoising("digits").task
    denoiser = task.model.denoiser
    changed = denoiser.network.replace(in_channels=channels, out_channels=2 * channels, **network)
    model = task.model.replace(denoiser=denoiser.replace(network=changed, channels=channels, conditions=conditions(classes)))
    return task.replace(model=model).build(torch.device("cpu"), torch.float32)


def test_all_of_a_like_model_is_taken(given: Path) -> None:
    ours = learner()
    told = initialize(ours, str(given))
    theirs = checkpoint.load(given)[1]
    assert told == f"begins with {len(theirs)} of {given}'s {len(theirs)} tensors, which are 100.0% of the parameters here"
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.module.state_dict().items())


def test_other_classes_and_channels_stay_as_built_and_are_told(given: Path) -> None:
    ours = learner(classes=5, channels=1)
    built = {name: tensor.clone() for name, tensor in ours.module.state_dict().items()}
    told = initialize(ours, str(given))
    theirs, now = checkpoint.load(given)[1], ours.module.state_dict()
    fresh = ["label.table.weight", "network.stem.weight", "network.head.weight", "network.head.bias"]
    for name in (f"denoiser.{name}" for name in fresh):
        assert torch.equal(now[name], built[name])
        assert f"{name} {list(built[name].shape)} (there {list(theirs[name].shape)})" in told
    assert "4 as built" in told
    assert torch.equal(now["denoiser.network.time.linear1.weight"], theirs["denoiser.network.time.linear1.weight"])
    told = initialize(learner(classes=None), str(given))
    assert "1 left out: denoiser.label.table.weight" in told


def test_where_nothing_fits_or_means_the_same_it_is_refused(given: Path) -> None:
    with pytest.raises(Problem, match=f"--init {given}: none of its weights fits this run"):
        initialize(learner(classes=5, width=24, norm_groups=4), str(given))
    with pytest.raises(Problem, match=r"layout is 'qkv_first'.*set task.model.denoiser.network.layout=qkv_first"):
        initialize(learner(layout="heads_first"), str(given))
    with pytest.raises(Problem, match="its attention has 2 heads at 16 channels, this run's 4"):
        initialize(learner(head_channels=4), str(given))
    with pytest.raises(Problem, match="holds a diffusion, and a classifier is needed here"):
        initialize(_classifier(), str(given))


def _classifier() -> Any:
    from tests.train.runs import classifying

    return classifying("digits").task.build(torch.device("cpu"), torch.float32)


def test_a_run_that_cannot_begin_so_leaves_its_folder_to_one_that_can(given: Path, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "pictures", 12)
    for init in (str(tmp_path / "nothing"), str(given)):
        run = denoising(source, images=8, microbatch=None, init=init)
        if init == str(given):
            train(run, tmp_path / "run")
            continue
        with pytest.raises(Problem, match="no model"):
            train(run, tmp_path / "run")


def test_a_run_says_what_it_begins_with(given: Path, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "pictures", 12)
    run: Run = denoising(source, images=8, microbatch=None, init=str(given))
    console = Console(record=True, width=200, file=io.StringIO())
    train(run, tmp_path / "run", console)
    assert "tensors, which are 100.0% of the parameters here" in console.export_text()
    assert library.config(tmp_path / "run").names == ("a", "b", "c")
    assert SMALL["width"] == 8
