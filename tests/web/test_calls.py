"""Every kind of request makes the same pictures by its call, by its command line and by its Python; and models are of a list."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lodestar.__main__ import main
from lodestar.bundle import embedded
from lodestar.config import Problem, decode
from lodestar.generators.request import Frame
from lodestar.images import load_png
from lodestar.web.calls import make
from lodestar.web.desk import Desk, out_of
from lodestar.web.requests import (
    BlendOrder,
    CompareOrder,
    EditOrder,
    Limits,
    Order,
    SampleOrder,
    ScalesOrder,
    TextDiffOrder,
    UpsampleOrder,
    VaryOrder,
)
from lodestar.web.shelf import Loading, Shelf

ORDERS: list[tuple[type[Order], dict[str, Any]]] = [
    (SampleOrder, {"label": ["dog", "cat"], "seed": 5, "sampler": "ddim:eta=0.5", "steps": "4", "guidance": "cfg:2\nclamp"}),
    (SampleOrder, {"guidance": "classifier:2", "guides": "classifier=critic.safetensors", "more": "temperature=0.9,clamp=false"}),
    (SampleOrder, {"model": "told.safetensors", "prompt": "a red circle\na star", "count": 3}),
    (SampleOrder, {"guidance": "style:1", "guides": "classifier=critic.safetensors", "reference": "dog.png", "count": 2}),
    (ScalesOrder, {"scales": "0, 3", "count": 2, "guidance": "cfg:rescale=0.5\nclamp"}),
    (CompareOrder, {"other": "told.safetensors", "count": 2}),
    (EditOrder, {"how": "sdedit:0.6", "picture": "dog.png", "label": ["dog"], "count": 2, "seed": 1}),
    (EditOrder, {"how": "invert", "picture": "dog.png", "origin": ["dog"], "label": ["cat"], "seed": 9, "sampler": "ddim"}),
    (EditOrder, {"how": "interpolate:3", "picture": "dog.png", "second": "dog.png", "origin": ["dog"], "label": ["cat"],
                 "sampler": "ddim"}),
    (EditOrder, {"how": "inpaint:resamples=2,jump=1", "picture": "dog.png", "mask": "mask.png", "steps": "4"}),
    (SampleOrder, {"model": "small.safetensors", "then": "up.safetensors,steps=3,guidance=cfg:2,temperature=0.9", "count": 2}),
    (ScalesOrder, {"model": "small.safetensors", "then": "up.safetensors,guidance=classifier:2,classifier=critic.safetensors",
                   "scales": "1,3", "count": 2}),
    (VaryOrder, {"model": "unclip.bundle.json", "picture": "dog.png", "count": 2, "seed": 3, "eta": 0.5, "steps": "4"}),
    (BlendOrder, {"model": "unclip.bundle.json", "picture": "dog.png", "second": "mask.png", "points": 3}),
    (TextDiffOrder, {"model": "unclip.bundle.json", "picture": "dog.png", "origin": "a dog", "to": "a star", "strength": 0.9,
                     "steps": "4"}),
    (UpsampleOrder, {"model": "up.safetensors", "picture": "dog.png", "label": ["dog"]}),
    (UpsampleOrder, {"model": "up.safetensors", "picture": "dog.png", "label": ["dog"], "fit": True}),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ORDERS)))
def test_the_line_and_python_make_the_same_pictures(
    number: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, given = ORDERS[number]
    for entry in folder.iterdir():
        if entry.is_file():
            shutil.copy(entry, tmp_path / entry.name)
    monkeypatch.chdir(tmp_path)
    order = decode(kind, {"model": "plain.safetensors", **given})
    (place := tmp_path / "job").mkdir()
    shelf = Shelf([Path(".")])
    calls = order.calls(place, Limits())
    seen: list[Frame] = []
    made = [make([call], shelf, lambda number, frame: seen.append(frame))[0] for call in calls]
    assert {frame.steps for frame in seen} == {call.prepared(shelf).length for call in calls}
    assert [call.count for call in calls] == [len(each) for each in made]
    monkeypatch.chdir(place)
    for model in (*tmp_path.glob("*.safetensors"), *tmp_path.glob("*.json")):
        shutil.copy(model, place)
    for k, (call, samples) in enumerate(zip(calls, made, strict=True)):
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(call.command(shelf.loading, out_of(calls, k)))[1:])
        assert not ended.value.code
        exec(call.python(shelf.loading, "again"), {})
        for index, image in enumerate(samples.images):
            for out in (out_of(calls, k), "again"):
                assert torch.equal(load_png(place / out / f"{index:05d}.png"), image)
        shutil.rmtree(place / "again")


def test_models_runs_and_sweeps_are_listed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.safetensors").symlink_to(folder / "plain.safetensors")
    (tmp_path / "c10").mkdir()
    shutil.copy(folder / "told.safetensors", tmp_path / "c10" / "model.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x00" * 20)
    shelf = Shelf([folder, tmp_path])
    models, guides = shelf.models(), shelf.guides()
    assert set(shelf.upsamplers()) - set(embedded()) == {str(folder / "up.safetensors")}
    assert "dalle2_shapes_up2" in shelf.upsamplers() and "dalle2_shapes" not in shelf.upsamplers()
    assert str(folder / "up.safetensors") in models and "cifar10" in models and "cifar10_classifier" not in models
    assert str(tmp_path / "c10") in models, "a folder with a model.safetensors is a run"
    assert str(folder / "critic.safetensors") in guides and "cifar10_classifier" in guides
    assert len([name for name in guides if str(tmp_path) in name]) == 1, "neither a link out of a folder nor damage"
    assert list(shelf.runs()) == [str(folder / "run")] and list(shelf.sweeps()) == [str(folder / "sweep")]
    with pytest.raises(Problem, match="unknown model '/etc/passwd': choose from cifar10"):
        shelf.generator("/etc/passwd")
    with pytest.raises(Problem, match="unknown model"):
        shelf.generator("cifar10_classifier")
    with pytest.raises(Problem, match="nowhere is no folder"):
        Shelf(["nowhere"])


def test_a_model_is_loaded_once_and_again_when_its_file_has_changed(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "told.safetensors", tmp_path / "m.safetensors")
    shelf, name = Shelf([tmp_path]), str(tmp_path / "m.safetensors")
    first = shelf.generator(name)
    assert shelf.generator(name) is first
    shutil.copy(folder / "up.safetensors", tmp_path / "m.safetensors")
    assert shelf.generator(name).digest != first.digest


def test_the_way_of_loading_is_told(folder: Path) -> None:
    (call,) = SampleOrder(model="cifar10", count=2).calls(folder, Limits())
    how = Loading("cpu", "float32")
    assert call.command(how, "o") == "lodestar sample cifar10 --count 2 --device cpu --precision float32 --out o"
    assert "lodestar.load('cifar10', device='cpu', dtype='float32')" in call.python(how, "o")


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (SampleOrder, {"seed": -1}, "seed is -1: input should be greater than or equal to 0"),
        (SampleOrder, {"steps": 4}, "steps is 4: input should be a valid string"),
        (SampleOrder, {"pictures": 4}, "unknown field 'pictures': choose from model"),
        (SampleOrder, {"more": "temperatur=1"}, "did you mean 'temperature'?"),
        (SampleOrder, {"guides": "classifier"}, "write it as ROLE=MODEL"),
        (ScalesOrder, {"guidance": "cgf:3"}, "did you mean 'cfg'?"),
        (ScalesOrder, {"scales": "much"}, "scale"),
        (ScalesOrder, {"scales": " , "}, "numbers, such as 0,1,3,10"),
        (SampleOrder, {"then": "up.safetensors,stops=3"}, "then up.safetensors,stops=3: unknown setting 'stops'"),
        (SampleOrder, {"then": "/etc/passwd"}, "unknown model '/etc/passwd'"),
        (SampleOrder, {"then": "cifar10"}, "enlarges none"),
        (BlendOrder, {"points": 1}, "points is 1: input should be greater than or equal to 2"),
        (BlendOrder, {"picture": "dog.png"}, "cifar10 is no bundle of a decoder and its CLIP, which blend needs"),
        (BlendOrder, {"model": "unclip.bundle.json", "picture": "dog.png"}, "between two pictures, and the number given is 1"),
        (TextDiffOrder, {"model": "unclip.bundle.json", "picture": "dog.png"}, "have the same embedding: give two texts"),
        (TextDiffOrder, {"strength": 2}, "strength is 2: input should be less than or equal to 1"),
        (EditOrder, {"how": "vary"}, "vary is a tab and an endpoint of its own"),
        (EditOrder, {"picture": "critic.safetensors"}, "picture cannot be decoded: it is not a picture in a known format"),
        (EditOrder, {"picture": "dog.png", "megapixels": 9e-5}, "picture is 11×9 pixels: 9e-05 million are the most"),
    ],
)
def test_bad_values_are_refused_in_one_line(
    kind: type[Order], given: dict[str, Any], said: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    given, limits = dict(given), Limits()
    if "megapixels" in given:
        limits = Limits(megapixels=given.pop("megapixels"))
    with pytest.raises(Problem) as refused:
        calls = decode(kind, {"model": "cifar10", **given}).calls(tmp_path, limits)
        Desk(Shelf([Path(".")]), limits).check(calls)
    assert said in str(refused.value) and "\n" not in str(refused.value)
