"""`edit` from the command line: what it writes, that any of it can be made again, and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from lodestar import checkpoint
from lodestar.data import open_source
from lodestar.generators.album import Manifest
from lodestar.generators.edits.request import EditRequest
from lodestar.images import load_png, save_png
from tests.evaluation import tiny
from tests.test_cli import refusal, run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, two pictures of 12×16, and masks."""
    folder = tmp_path_factory.mktemp("files")
    model = tiny.diffusion()
    checkpoint.save(folder / "model", "diffusion", model.config.to_json(), model.state_dict(), {})
    (folder / "pictures").mkdir()
    for name in ("a", "b"):
        Image.effect_noise((16, 12), 90).convert("RGB").save(folder / "pictures" / f"{name}.png")
    for name, size, box in (
        ("mask", (16, 12), (6, 4, 10, 8)),
        ("black", (16, 12), None),
        ("other", (9, 9), (0, 0, 9, 9)),
        ("fits", (8, 8), (2, 2, 6, 6)),
    ):
        mask = Image.new("L", size, 0)
        if box:
            mask.paste(255, box)
        mask.save(folder / f"{name}.png")
    (folder / "text.png").write_text("hello")
    return folder


COMMANDS = {
    "sdedit": ("pictures", "--strength", "0.5", "--label", "dog", "--label", "cat", "--guidance", "cfg:2"),
    "invert": ("pictures", "--from", "cat", "--label", "dog", "--label", "ship"),
    "interpolate": ("pictures", "--from", "cat", "--to", "dog", "--points", "4"),
    "inpaint": ("pictures", "--mask", "mask.png", "--label", "dog", "--count", "4", "--resamples", "2", "--jump", "2"),
}


def given(files: Path, arguments: tuple[str, ...]) -> list[str]:
    """Arguments with the files' names made paths."""
    return [str(files / each) if (files / each).exists() else each for each in arguments]


@pytest.mark.parametrize("kind", COMMANDS)
def test_results_a_grid_beside_the_sources_and_a_manifest_to_make_them_again(files: Path, tmp_path: Path, kind: str) -> None:
    arguments = ["edit", kind, files / "model", *given(files, COMMANDS[kind]), "--steps", "4"]
    assert run(*arguments, "--out", tmp_path / "out") == 0
    expected = ["00000.png", "00001.png", "00002.png", "00003.png", "grid.png", "manifest.json", "mask.png"]
    expected += ["source-00000.png", "source-00001.png"]
    if kind != "inpaint":
        expected.remove("mask.png")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == expected
    # Cells of 128 pixels, 16 between them: pairs, triples with the hole between, or one row from end to end.
    shapes = {"sdedit": (2, 4), "invert": (2, 4), "interpolate": (1, 6), "inpaint": (2, 6)}
    height, width = shapes[kind]
    assert load_png(tmp_path / "out" / "grid.png").shape == (3, height * 144 - 16, width * 144 - 16)
    request = Manifest.read(tmp_path / "out").request
    assert isinstance(request, EditRequest)
    assert request.edit.kind == kind
    assert len(open_source(str(tmp_path / "out"))) == 4, "an album, of results alone"
    assert run(*arguments, "--batch-size", 1, "--out", tmp_path / "out") == 0, "the same request again"
    for number in (0, 3):
        assert run("remake", tmp_path / "out", "--picture", number, "--out", tmp_path / "again") == 0
        name = f"{number:05d}.png"
        assert (load_png(tmp_path / "again" / name).int() - load_png(tmp_path / "out" / name).int()).abs().max() <= 1


def test_the_manifest_says_what_each_picture_is_made_of(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("edit", "sdedit", files / "model", files / "pictures", "--picture", 1, "--label", "ship=2", "--seed", 4)
    assert run(*arguments, "--out", tmp_path / "out") == 0
    written = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert written["sources"] == [{"file": "source-00000.png", "from": str(files / "pictures" / "b.png")}]
    source = {"label": "ship", "class": 2, "source": 0}
    assert written["pictures"] == [{"file": f"{k:05d}.png", "seed": 4 + k, **source} for k in range(2)]
    changed = 255 - load_png(tmp_path / "out" / "source-00000.png")
    save_png(tmp_path / "out" / "source-00000.png", changed)
    line = refusal(capsys, "remake", tmp_path / "out", "--picture", 0, "--out", tmp_path / "again")
    assert "their values have changed since" in line


def test_labels_and_seeds_are_interpolated_without_pictures(files: Path, tmp_path: Path) -> None:
    labels = ("edit", "interpolate", files / "model", "--from", "dog", "--to", "cat", "--points", 3, "--steps", 3)
    assert run(*labels, "--out", tmp_path / "labels") == 0
    assert run("sample", files / "model", "--label", "dog", "--label", "cat", "--steps", 3, "--out", tmp_path / "dog") == 0
    assert (load_png(tmp_path / "labels" / "00000.png").int() - load_png(tmp_path / "dog" / "00000.png").int()).abs().max() <= 1
    weights = [picture["weight"] for picture in json.loads((tmp_path / "labels" / "manifest.json").read_text())["pictures"]]
    assert weights == [0, 0.5, 1]
    seeds = ("edit", "interpolate", files / "model", "--from", "dog", "--seed", 2, "--to-seed", 5, "--points", 3, "--steps", 3)
    assert run(*seeds, "--out", tmp_path / "seeds") == 0
    assert load_png(tmp_path / "seeds" / "grid.png").shape == (3, 128, 3 * 144 - 16)


def test_temperature_is_a_setting_of_every_edit_that_draws_noise(files: Path, tmp_path: Path) -> None:
    for kind in ("sdedit", "inpaint"):
        arguments = ("edit", kind, files / "model", *given(files, COMMANDS[kind]), "--steps", 3)
        assert run(*arguments, "--out", tmp_path / f"{kind}-1") == 0
        assert run(*arguments, "--temperature", 0.5, "--out", tmp_path / kind) == 0
        assert Manifest.read(tmp_path / kind).request.settings.temperature == 0.5
        assert not torch.equal(load_png(tmp_path / kind / "00000.png"), load_png(tmp_path / f"{kind}-1" / "00000.png"))


def test_the_model_may_be_named_by_an_option_behind_the_pictures(files: Path, tmp_path: Path) -> None:
    mask, model = ("--mask", files / "mask.png", "--steps", 3, "--resamples", 1), files / "model"
    assert run("edit", "inpaint", files / "pictures", *mask, "--model", model, "--out", tmp_path / "named") == 0
    assert run("edit", "inpaint", model, files / "pictures", *mask, "--out", tmp_path / "first") == 0
    assert (tmp_path / "named" / "grid.png").read_bytes() == (tmp_path / "first" / "grid.png").read_bytes()
    assert run("sample", "--count", 1, "--steps", 2, f"--model={model}", "--out", tmp_path / "sampled") == 0


def test_an_album_is_edited(files: Path, tmp_path: Path) -> None:
    assert run("sample", files / "model", "--count", 3, "--steps", 3, "--out", tmp_path / "album") == 0
    assert run("edit", "sdedit", files / "model", tmp_path / "album", "--picture", 2, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "source-00000.png").read_bytes() == (tmp_path / "album" / "00002.png").read_bytes()


def test_a_weaker_model_guides_an_edit_and_is_written_down(files: Path, tmp_path: Path) -> None:
    worse = tiny.diffusion(seed=3)
    checkpoint.save(tmp_path / "weak", "diffusion", worse.config.to_json(), worse.state_dict(), {})
    arguments = ("edit", "interpolate", files / "model", "--from", "dog", "--to", "cat", "--points", 3, "--steps", 3)
    assert run(*arguments, "--out", tmp_path / "plain") == 0
    guided = (*arguments, "--guidance", "autoguidance:3", "--weak", tmp_path / "weak")
    assert run(*guided, "--out", tmp_path / "guided") == 0
    assert run("remake", tmp_path / "guided", "--picture", 1, "--out", tmp_path / "again") == 0
    plain, strong, again = (load_png(tmp_path / name / "00001.png").int() for name in ("plain", "guided", "again"))
    assert (strong - again).abs().max() <= 1 < (strong - plain).abs().max()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sdedit", "pictures", "--strength", "1.5"), "strength is 1.5"),
        (("sdedit", "pictures", "--strength", "0"), "strength is 0"),
        (("sdedit", "text.png"), "text.png cannot be decoded: it is not a picture in a known format"),
        (("sdedit", "nothing.png"), "no picture 'nothing.png'"),
        (("sdedit", "pictures", "--picture", "2"), "picture 2: there are 0 to 1"),
        (("sdedit", "pictures", "--label", "dgo"), "unknown label 'dgo': choose from cat, dog, ship; did you mean 'dog'?"),
        (("invert", "pictures", "--sampler", "ancestral"), "inversion needs one that draws no noise"),
        (("invert", "pictures", "--from", "ct"), "did you mean 'cat'?"),
        (
            ("invert", "pictures", "--guidance", "autoguidance:2"),
            "has no weaker model (smaller or less trained) of its own: give one with --weak",
        ),
        (("invert", "pictures", "--temperature", "0.5"), "--temperature"),
        (("interpolate", "pictures", "--temperature", "0.5"), "draws no noise"),
        (("interpolate", "pictures", "--seed", "5"), "seed is 5: interpolate of pictures draws no noise that it could change"),
        (("interpolate", "--from", "dog", "--to-seed", str(2**64)), "--to-seed"),
        (("sdedit", "pictures", "--seed", str(2**64 - 1)), "2 pictures have the seeds up to 18446744073709551616"),
        (("interpolate", "--from", "dog"), "the same at both ends"),
        (("interpolate", "pictures", "--points", "1"), "--points"),
        (("inpaint", "pictures", "--mask", "black.png"), "nothing is masked"),
        (
            ("inpaint", "pictures", "--mask", "other.png"),
            "is 9×9: it has to be of the picture's size (12×16) or of the model's (8×8",
        ),
        (("inpaint", "pictures", "--mask", "text.png"), "text.png cannot be decoded"),
        (("inpaint", "pictures", "--mask", "fits.png"), "jump is 10"),
        (("inpaint", "pictures"), "--mask"),
        (("inpaint", "pictures", "--mask", "mask.png", "--resamples", "0"), "resamples is 0"),
        (("sdeit", "pictures"), "sdedit"),
    ],
)
def test_bad_requests_get_one_line(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    kind, *rest = arguments
    assert said in refusal(capsys, "edit", kind, files / "model", *given(files, tuple(rest)), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ----------------------------------------------------------------------------------------------------------- upsampling


@pytest.fixture(scope="module")
def up(files: Path) -> Path:
    """An upsampler of the same classes, a classifier that guides it, and small pictures in folders by class."""
    upsampler, guide = tiny.diffusion(low_res=(4, 4)), tiny.classifier()
    checkpoint.save(files / "up", "diffusion", upsampler.config.to_json(), upsampler.state_dict(), {})
    checkpoint.save(files / "guide", "classifier", guide.config.to_json(), guide.state_dict(), {})
    for name in ("dog", "ship"):
        (files / "small" / name).mkdir(parents=True)
        Image.effect_noise((4, 4), 90).convert("RGB").save(files / "small" / name / "a.png")
    return files / "up"


@pytest.mark.parametrize(
    "options",
    [(), ("--guidance", "cfg:3"), ("--guidance", "classifier:20", "--classifier", "guide"), ("--temperature", "0.5")],
)
def test_enlarged_pictures_are_of_their_folders_classes_and_made_again(
    files: Path, up: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    arguments = ("upsample", up, files / "small", "--steps", 3, "--sampler", "ancestral", *given(files, options))
    assert run(*arguments, "--out", tmp_path / "out") == 0
    pictures = json.loads((tmp_path / "out" / "manifest.json").read_text())["pictures"]
    assert [(each["label"], each["seed"], each["source"]) for each in pictures] == [
        ("dog", 0, 0), ("ship", 1, 1),
    ]  # fmt: skip
    assert load_png(tmp_path / "out" / "source-00001.png").shape == (3, 4, 4)
    assert load_png(tmp_path / "out" / "grid.png").shape == (3, 2 * 144 - 16, 2 * 144 - 16)
    assert run("remake", tmp_path / "out", "--picture", 1, "--out", tmp_path / "again") == 0
    made, again = (load_png(tmp_path / name / "00001.png").int() for name in ("out", "again"))
    assert (made - again).abs().max() <= 1
    assert run(*arguments[:3], *arguments[3:7], "--out", tmp_path / "plain") == 0
    assert torch.equal(load_png(tmp_path / "plain" / "00001.png").int(), made) == (not options)


def test_samples_are_enlarged_as_what_they_were_sampled_as(files: Path, up: Path, tmp_path: Path) -> None:
    assert run("sample", files / "model", "--label", "ship", "--label", "dog+cat", "--steps", 3, "--out", tmp_path / "a") == 0
    assert run("upsample", up, tmp_path / "a", "--count", 3, "--out", tmp_path / "b") == 0
    pictures = json.loads((tmp_path / "b" / "manifest.json").read_text())["pictures"]
    assert [each["label"] for each in pictures] == ["ship", "dog+cat", "ship"]
    assert run("upsample", up, tmp_path / "a", "--picture", 1, "--label", "cat", "--out", tmp_path / "c") == 0
    (picture,) = json.loads((tmp_path / "c" / "manifest.json").read_text())["pictures"]
    assert picture["label"] == "cat"
    assert len(open_source(str(tmp_path / "b"))) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("up", "pictures"), "nothing tells the pictures': --label"),
        (("up", "pictures", "--label", "dgo"), "did you mean 'dog'?"),
        (("up", "small", "--guidance", "classifier:2"), "give one with --classifier"),
        (("up", "small", "--temperature", "0"), "temperature is 0"),
        (("up", "small", "--picture", "2"), "picture 2: there are 0 to 1"),
        (("model", "small"), "makes pictures from noise and enlarges none: use lodestar sample"),
        (("guide", "small"), "a classifier, and a model that makes pictures is needed"),
    ],
)
def test_bad_enlargements_get_one_line(
    files: Path, up: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in refusal(capsys, "upsample", *given(files, arguments), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "lodestar upsample gives it some" in refusal(capsys, "sample", up)
