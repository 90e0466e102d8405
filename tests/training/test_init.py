"""Beginning with another model's weights."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from lodestar import checkpoint, library
from lodestar.conditions import LowRes, Masked
from lodestar.config import Problem
from lodestar.core.prediction import Velocity
from lodestar.core.schedule import Cosine
from lodestar.data.shapes import ShapeRows
from lodestar.denoiser import conditions
from lodestar.models.clip import ClipModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.clip import ClipConfig
from lodestar.nets.clip_image import ViTConfig
from lodestar.objectives import Simple
from lodestar.presets import shapes
from lodestar.tasks import TrainUnclip
from lodestar.text import LanguageModel, OwnTokenizer
from lodestar.training.init import initialize, match_classes, match_tokens, tokenizer_of
from lodestar.training.loop import train
from lodestar.training.run import Run
from tests.training.runs import SMALL, classifying, denoising, write_pictures


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
    whole = f"begins with {len(theirs)} of {given}'s {len(theirs)} tensors, which are 100.0% of the parameters here"
    assert told == f"{whole}; classes by number, as there are no names on either side"
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


def test_an_inpainting_model_begins_as_the_plain_one(given: Path) -> None:
    ours = learner()
    denoiser = ours.task.model.denoiser
    wider = denoiser.replace(conditions=(Masked(), *denoiser.conditions))
    inpainting = ours.task.replace(model=ours.task.model.replace(denoiser=wider)).build(torch.device("cpu"), torch.float32)
    assert "inputs for masked begin at zero" in initialize(inpainting, str(given))
    initialize(ours, str(given))
    x, label = torch.randn(2, 3, *ours.task.model.size), torch.tensor([0, 1])
    known = torch.randn(2, 4, *ours.task.model.size)
    with torch.no_grad():
        plain = ours.model.eval()(x, 3.0, {"label": label}).x0
        told = inpainting.model.eval()(x, 3.0, {"label": label, "masked": known}).x0
    assert torch.allclose(told, plain, atol=1e-4)
    small = denoiser.replace(conditions=(LowRes(size=(4, 4)), *denoiser.conditions))
    inpainting.model.save(given.with_name("inpainting.safetensors"))
    other = ours.task.replace(model=ours.task.model.replace(denoiser=small)).build(torch.device("cpu"), torch.float32)
    assert "at zero" not in initialize(other, str(given.with_name("inpainting.safetensors")))


def test_a_network_with_coordinates_begins_as_the_plain_one(given: Path) -> None:
    ours, told = learner(), learner(coordinates=True)
    assert "2 as built: denoiser.network.coordinates.weight" in initialize(told, str(given))
    initialize(ours, str(given))
    x = torch.randn(2, 3, *ours.task.model.size)
    with torch.no_grad():
        estimates = [each.model.eval()(x, 3.0, {"label": torch.tensor([0, 1])}).x0 for each in (ours, told)]
    torch.testing.assert_close(*estimates, rtol=0, atol=1e-5)


def named(config: Any, names: tuple[str, ...] | None, count: int | None = None) -> Any:
    """The configuration of a model with classes of these names, or with so many without names."""
    count = len(names or ()) or count
    if config.kind == "diffusion":
        return config.replace(denoiser=config.denoiser.replace(conditions=conditions(count)), names=names)
    return config.model_copy(update={"network": config.network.replace(classes=count), "names": names})


def saved(path: Path, config: Any) -> dict[str, torch.Tensor]:
    """A model of this configuration in a file, each row of its classes' tables counted; its tensors."""
    state = config.build().state_dict()
    for key, tensor in state.items():
        if key.startswith(("denoiser.label.table", "network.head")) and len(tensor) == len(config.names or ()) > 0:
            tensor += torch.arange(1.0, len(tensor) + 1).reshape(-1, *[1] * (tensor.ndim - 1))
    checkpoint.save(path, config.kind, config.to_json(), state, {})
    return state


@pytest.mark.parametrize("pool", [None, "adaptive", "attention", "spatial", "spatial_v2"])
def test_rows_of_classes_are_taken_by_name(pool: Any, tmp_path: Path) -> None:
    run = denoising("digits") if pool is None else classifying("digits")
    config = run.task.model if pool is None else run.task.model.replace(network=run.task.model.network.replace(pool=pool))
    theirs = saved(tmp_path / "there.safetensors", named(config, ("ship, boat", "Tabby", "dog", "car")))
    task = run.task.model_copy(update={"model": named(config, ("dog", "boat, vessel", "plane", "tabby, tabby cat"))})
    ours = task.build(torch.device("cpu"), torch.float32)
    built = {key: tensor.clone() for key, tensor in ours.module.state_dict().items()}
    told = initialize(ours, str(tmp_path / "there.safetensors"))
    assert "classes by name: 3 of 4, as built: plane" in told
    now, tables = ours.module.state_dict(), 0
    for key, tensor in now.items():
        if len(tensor) == 4 and (key.startswith("network.head") or "label.table" in key):
            tables += 1
            assert torch.equal(tensor[[0, 1, 3]], theirs[key][[2, 0, 1]])
            assert torch.equal(tensor[2], built[key][2])
    assert tables == (1 if pool is None else 2)


@pytest.mark.parametrize(
    ("there", "here", "pairs", "told"),
    [
        (("a", "b", "c"), ("c", "a", "b"), {0: 2, 1: 0, 2: 1}, "classes by name: 3 of 3"),
        (("a", "b"), ("b", "x", "a", "y"), {0: 1, 2: 0}, "classes by name: 2 of 4, as built: x, y"),
        (12, ("0", "1", "10", "11", "2"), {0: 0, 1: 1, 2: 10, 3: 11, 4: 2}, "classes by name: 5 of 5"),
        (("0", "10", "2"), 12, {0: 0, 2: 2, 10: 1}, "classes by name: 3 of 12, as built: 1, 3, 4, 5, 6, …"),
        (3, ("a", "b", "c"), {0: 0, 1: 1, 2: 2}, "classes by number, as there are no names there"),
        (("a", "b", "c"), 3, {0: 0, 1: 1, 2: 2}, "classes by number, as there are no names here"),
        (3, 3, {0: 0, 1: 1, 2: 2}, "classes by number, as there are no names on either side"),
        (4, 3, {}, None),
        (4, ("a", "b", "c"), {}, None),
        (("cat", "dog"), ("0", "dog"), {1: 1}, "classes by name: 1 of 2, as built: 0"),
        (("crane, bird", "crane, machine"), ("crane", "crane, machine"), {1: 1}, "classes by name: 1 of 2, as built: crane"),
    ],
)
def test_classes_are_matched(there: Any, here: Any, pairs: dict[int, int], told: str | None) -> None:
    model = denoising("digits").task.model
    sides = [named(model, *((None, side) if isinstance(side, int) else (side,))) for side in (there, here)]
    assert match_classes(*sides) == (pairs, [] if told is None else [told])


def test_another_meaning_of_the_output_is_told(given: Path) -> None:
    task = denoising("digits").task
    other = task.model.replace(
        denoiser=task.model.denoiser.replace(prediction=Velocity(), variance="learned"), schedule=Cosine(timesteps=50)
    )
    told = initialize(task.replace(model=other, objective=Simple()).build(torch.device("cpu"), torch.float32), str(given))
    assert "its prediction was epsilon, here it is v" in told and "its variance was learned_range, here it is learned" in told
    assert "its last time that the network is told was 19, here it is 49" in told


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


def test_rows_of_tokens_are_taken_by_their_text(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    network = shapes.text().task.model  # type: ignore[attr-defined]

    def model(*captions: str) -> DiffusionConfig:
        (words,) = network.denoiser.conditions
        learned = words.replace(tokenizer=OwnTokenizer(size=262).learned(captions))
        found: DiffusionConfig = network.replace(denoiser=network.denoiser.replace(conditions=(learned,)))
        return found

    there, here = model("a red star, a red star"), model("a blue star, a blue star")
    before, key = there.build(), "denoiser.text.network.embedding.weight"
    checkpoint.save(tmp_path / "model.safetensors", "diffusion", there.to_json(), before.state_dict(), {})
    ours = shapes.text().task.replace(model=here).build(torch.device("cpu"), torch.float32)
    built = ours.module.state_dict()[key].clone()
    told = initialize(ours, str(tmp_path / "model.safetensors"))
    theirs, mine = (tokenizer_of(each) for each in (there, here))
    assert isinstance(theirs, OwnTokenizer) and isinstance(mine, OwnTokenizer) and theirs.symbols != mine.symbols
    known = [symbol in theirs.symbols for symbol in mine.symbols]
    assert f"tokens by text: {sum(known)} of {mine.vocabulary}" in told and not all(known)
    for token, symbol in enumerate(mine.symbols):
        row = before.state_dict()[key][theirs.symbols.index(symbol)] if known[token] else built[token]
        assert torch.equal(ours.module.state_dict()[key][token], row)


def test_columns_of_another_language_models_states_are_not_taken() -> None:
    first, second = (LanguageModel(model=name, digest=digest * 64, width=8) for name, digest in (("a", "0"), ("b", "1")))
    assert match_tokens(first, second) == {} == match_tokens(first, OwnTokenizer())
    assert match_tokens(first, first.replace(model="elsewhere")) is match_tokens(first, first) is None


def test_a_decoder_begins_as_a_text_model_without_a_text(tmp_path: Path) -> None:
    text = library.load("shapes", "cpu", "diffusion", "float32")
    network = ClipConfig(image=ViTConfig(size=(32, 32), embed=12, patch=16, width=16, layers=1, heads=2))
    task = shapes.decoder().task
    assert isinstance(task, TrainUnclip)
    ours = task.joined(ClipModelConfig(network=network), "0" * 64).build(torch.device("cpu"), torch.float32)
    told = initialize(ours, "shapes")
    assert "of embeddings it says at first what was said of no text" in told
    rng, count = torch.Generator().manual_seed(0), 8
    rows = ShapeRows("test", size=32)
    x0 = torch.stack([torch.tensor(np.asarray(rows.picture(number))) for number in range(count)]).permute(0, 3, 1, 2) / 127.5 - 1
    eps = torch.randn(x0.shape, generator=rng)
    seen = ours.model.denoiser.encode({"embedding": torch.randn(count, 12, generator=rng)})
    apart = said = 0.0
    with torch.no_grad():
        star = text.denoiser.encode({"text": text.config.denoiser.text.read(["a red star"] * count)})
        for time in (100, 300, 500, 700, 900):
            level = text.config.schedule.table[torch.full((count,), time)]
            x = text.config.schedule.forward(x0, level, eps)
            theirs = text.denoiser.output(x, level, text.denoiser.null({}, count)).value
            apart += (ours.model.denoiser.output(x, level, seen).value - theirs).square().mean().item()
            said += (text.denoiser.output(x, level, star).value - theirs).square().mean().item()
    assert apart < 0.01 * said  # not to the bit: its few tokens stand for as many as the longest text has
    ours.model.denoiser.output(x, level, ours.model.denoiser.encode({"embedding": torch.ones(count, 12)})).value.sum().backward()
    encoder = ours.model.denoiser.embedding
    assert all(layer.weight.grad.abs().max() > 0 for layer in (encoder.vector, encoder.tokens))
