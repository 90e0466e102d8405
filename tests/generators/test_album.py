"""Albums: what is in the folder, that the same command goes on where one was killed, and that pictures can be made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lodestar.generators.album as album_module
from lodestar import checkpoint, library
from lodestar.config import Problem
from lodestar.data import open_source
from lodestar.generators.album import Guided, Manifest
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.origin import Origin
from lodestar.generators.request import request, settings
from lodestar.generators.samples import Samples
from lodestar.guidance import CFG, Classifier
from lodestar.images import load_png
from tests.evaluation import tiny


def samples(
    count: int = 3, side: int = 8, labels: tuple[int | None, ...] | None = None, names: tuple[str, ...] | None = tiny.NAMES
) -> Samples:
    """Random pictures, as if of a model of three classes that was built in code."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return Samples(images, request(labels or [k % 3 for k in range(count)]), Origin("", "", names=names or ()))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's file."""
    made = tiny.diffusion()
    checkpoint.save(tmp_path / "model.safetensors", "diffusion", made.config.to_json(), made.state_dict(), {})
    return tmp_path / "model.safetensors"


def test_samples_are_saved_with_a_grid_and_a_manifest(tmp_path: Path) -> None:
    made = samples(labels=(1, None, 0))
    folder = made.save(tmp_path / "out")
    names = ["00000.png", "00001.png", "00002.png", "grid.png", "manifest.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert all(torch.equal(load_png(folder / names[k]), made.images[k]) for k in range(3))
    assert json.loads((folder / "manifest.json").read_text())["pictures"] == [
        {"file": "00000.png", "label": "dog", "class": 1, "seed": 0},
        {"file": "00001.png", "label": None, "class": None, "seed": 1},
        {"file": "00002.png", "label": "cat", "class": 0, "seed": 2},
    ]
    assert Manifest.read(folder).request == made.request
    assert made.save(folder) == folder, "the same again"
    with pytest.raises(Problem, match="pictures of another request"):
        samples(2).save(folder)


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    folder = samples(names=None).save(tmp_path / "out")
    assert [each["label"] for each in json.loads((folder / "manifest.json").read_text())["pictures"]] == [0, 1, 2]


def test_an_album_whose_first_file_was_not_finished_is_begun_again(tmp_path: Path) -> None:
    left = tmp_path / "out" / ".manifest.json.123.tmp"
    left.parent.mkdir()
    left.write_text("{")
    folder = samples().save(tmp_path / "out")
    assert not left.exists()
    left.touch()
    samples().save(folder)
    assert not left.exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(Problem, match="holds no pictures of this kind"):
        samples().save(tmp_path / "full")


def test_the_grid_shows_the_first_pictures_and_loads_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(album_module, "IN_GRID", 4)
    loaded: list[Path] = []
    original: Callable = album_module.load_png
    monkeypatch.setattr(album_module, "load_png", lambda path: loaded.append(path) or original(path))
    folder = samples(9).save(tmp_path / "out")
    assert [path.name for path in loaded] == [f"{k:05d}.png" for k in range(4)]
    assert load_png(folder / "grid.png").shape == (3, 2 * 128 + 16, 2 * 128 + 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_picture_is_made_again_in_the_number_format_that_made_it(model: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    loaded = library.load(model, "cpu", "diffusion", dtype)
    assert isinstance(loaded, Diffusion)
    made = loaded.sample(count=2, steps=2, guidance=CFG(scale=2.0))
    folder = made.save(tmp_path / "out")
    manifest = Manifest.read(folder)
    assert manifest.dtype == str(dtype).removeprefix("torch.")
    again, guides = library.load_origin(manifest, "cpu")
    assert guides == {}
    assert again.denoiser.dtype == dtype
    (frame,) = (frame for frame in again.stream(manifest.request.only(1)) if frame.final)
    assert (frame.images[0].int() - load_png(folder / "00001.png").int()).abs().max() <= 1


def test_what_cannot_be_loaded_again_is_a_problem(model: Path, tmp_path: Path) -> None:
    made = samples()
    changed = replace(made, origin=Origin(str(model), "another")).save(tmp_path / "changed")
    with pytest.raises(Problem, match="its weights have changed since"):
        library.load_origin(Manifest.read(changed), "cpu")
    built = made.save(tmp_path / "built")
    with pytest.raises(Problem, match="the diffusion model of these pictures was built in code"):
        library.load_origin(Manifest.read(built), "cpu")


def test_a_classifier_is_written_down_where_it_guides() -> None:
    asked, guide = samples().request, tiny.classifier()
    guide.name, guide.digest = "guide", "its digest"
    origin = tiny.diffusion().origin({"classifier": guide})
    assert Manifest.of(asked, origin).guides == {}
    guided = Manifest.of(asked.replace(settings=settings(guidance=Classifier(scale=1.0))), origin)
    assert guided.guides == {"classifier": Guided(name="guide", digest="its digest")}


# Albums as a source of pictures.


def test_an_album_is_read_without_its_grid_and_with_its_labels(tmp_path: Path) -> None:
    # At this size the grid is as large as a picture would have to be for it to pass for one.
    made = samples(4, side=128, labels=(2, 0, 2, 0))
    source = open_source(str(made.save(tmp_path / "out")))
    assert (len(source), source.size, source.names) == (4, (128, 128), ("cat", "ship"))
    assert [source.label(k) for k in range(4)] == [1, 0, 1, 0]
    assert all(torch.equal(torch.from_numpy(source[k][0].copy()), made.images[k]) for k in range(4))


def test_numbered_classes_keep_their_order_and_pictures_without_a_class_take_the_labels_from_all(tmp_path: Path) -> None:
    numbered = open_source(str(samples(3, labels=(10, 9, 10), names=None).save(tmp_path / "a")))
    assert (numbered.names, [numbered.label(k) for k in range(3)]) == (("9", "10"), [1, 0, 1])
    free = open_source(str(samples(3, labels=(1, None, 1)).save(tmp_path / "b")))
    assert (len(free), free.names, free.label(0)) == (3, None, None)


def test_an_unfinished_album_is_a_problem_and_another_manifest_is_not_one(tmp_path: Path) -> None:
    folder = samples().save(tmp_path / "out")
    (folder / "00001.png").unlink()
    with pytest.raises(Problem, match=r"is not finished: its manifest lists 00001\.png"):
        open_source(str(folder))
    (folder / "grid.png").unlink()
    (folder / "manifest.json").write_text('{"name": "an app"}')
    assert len(open_source(str(folder))) == 2
