"""The command line end to end, on tiny models with random weights: what it writes, and what it says of bad input."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lodestar import checkpoint
from lodestar.__main__ import main
from lodestar.cli.options import ExtractorName, GuidanceTexts, SamplerText, Steps
from lodestar.config import kinds
from lodestar.core.plan import AnyPlan
from lodestar.core.schedule import Linear
from lodestar.evaluation.extractors import Features
from lodestar.guidance import AnyGuidance
from lodestar.images import load_png
from lodestar.samplers import AnySampler
from tests.evaluation import tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a diffusion model, a guiding classifier and an extractor, as files."""
    folder = tmp_path_factory.mktemp("models")
    for name, kind, model in (
        ("model", "diffusion", tiny.diffusion()),
        ("bare", "diffusion", tiny.diffusion(droppable=False)),
        ("guide", "classifier", tiny.classifier()),
        ("extractor", "classifier", tiny.classifier(2)),
    ):
        checkpoint.save(folder / f"{name}.safetensors", kind, model.config.to_json(), model.state_dict(), {"images_seen": 0})
    tiny.folder(folder / "pictures", 12)
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a refused command says; its status is 2."""
    capsys.readouterr()
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("lodestar: ")
    assert "Traceback" not in captured.err
    return lines[0]


def test_an_argument_given_as_an_option_is_told_where_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "edit", "inpaint", "shapes_inpaint", "--pictures", "picture.png", "--mask", "mask.png")
    assert re.search(
        r"--pictures is no option, it goes without its name: .* edit inpaint \[OPTIONS\] \{model\} \{pictures\}\.\.\.", line
    )
    assert "Possible options: --sampler" in refusal(capsys, "sample", "cifar10", "--sampeler", "ddim")


def test_sample_writes_pictures_grid_and_manifest(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("sample", models / "model.safetensors", "--label", "dog=2", "--label", "ship=1", "--guidance", "cfg:3")
    assert run(*arguments, "--seed", 5, "--steps", 3, "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["00000.png", "00001.png", "00002.png", "grid.png", "manifest.json"]
    assert load_png(out / "00000.png").shape == (3, 8, 8)
    pictures = json.loads((out / "manifest.json").read_text())["pictures"]
    assert [(each["label"], each["seed"]) for each in pictures] == [("dog", 5), ("dog", 6), ("ship", 7)]


@pytest.mark.parametrize("sampler", ["ancestral", "ddim:eta=0.5", "dpmpp"])
def test_a_picture_depends_on_its_seed_alone(models: Path, tmp_path: Path, sampler: str) -> None:
    arguments = ("sample", models / "model.safetensors", "--count", 5, "--steps", 3, "--sampler", sampler, "--guidance", "cfg:2")
    assert run(*arguments, "--batch-size", 5, "--out", tmp_path / "a") == 0
    assert run(*arguments, "--batch-size", 2, "--out", tmp_path / "b") == 0
    assert run("remake", tmp_path / "a", "--picture", 3, "--out", tmp_path / "again") == 0
    for number in range(5):
        pair = [load_png(tmp_path / folder / f"{number:05d}.png").int() for folder in "ab"]
        assert (pair[0] - pair[1]).abs().max() <= 1
    assert (load_png(tmp_path / "again" / "00003.png").int() - load_png(tmp_path / "a" / "00003.png").int()).abs().max() <= 1
    assert not torch.equal(load_png(tmp_path / "a" / "00000.png"), load_png(tmp_path / "a" / "00003.png"))


def test_classifier_guidance_changes_pictures_and_zero_does_not(models: Path, tmp_path: Path) -> None:
    arguments = ("sample", models / "model.safetensors", "--count", 3, "--steps", 3)
    guided = ("--classifier", models / "guide.safetensors", "--guidance")
    assert run(*arguments, "--out", tmp_path / "plain") == 0
    assert run(*arguments, *guided, "classifier:0", "--out", tmp_path / "zero") == 0
    assert run(*arguments, *guided, "classifier:50", "--out", tmp_path / "guided") == 0
    plain, zero, strong = (load_png(tmp_path / name / "grid.png") for name in ("plain", "zero", "guided"))
    assert torch.equal(plain, zero)
    assert not torch.equal(plain, strong)


def test_evaluate_and_sweep_write_their_numbers(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = ("--reference", models / "pictures", "--extractor", models / "extractor.safetensors", "--count", 6, "--steps", 2)
    assert run("evaluate", models / "model.safetensors", *measured, "--temperature", 0.5, "--out", tmp_path / "report") == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert {"frechet", "score", "kid", "precision", "recall"} <= report["numbers"].keys()
    assert report["temperature"] == 0.5
    sweep = ("sweep", models / "model.safetensors", "--guidance", "cfg", "--scales", "0,2", *measured)
    assert run(*sweep, "--out", tmp_path / "sweep") == 0
    assert capsys.readouterr().out.strip().endswith("sweep.png")
    assert len((tmp_path / "sweep" / "sweep.csv").read_text().splitlines()) == 3


def test_stats_make_a_reference_that_stands_in_for_its_pictures(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extractor = ("--features", models / "extractor.safetensors")
    assert run("stats", models / "pictures", "--out", tmp_path / "whole.safetensors", *extractor) == 0
    assert run("stats", models / "pictures", "--out", tmp_path / "bare.safetensors", "--keep", 0, *extractor) == 0
    assert "bare.safetensors: 12 pictures, moments of 12, spatial of 12" in "".join(capsys.readouterr().out.split("\n"))
    arguments = ("evaluate", models / "model.safetensors", *extractor, "--count", 6, "--steps", 2, "--seeds", 2)
    numbers = []
    for number, reference in enumerate((models / "pictures", tmp_path / "whole.safetensors", tmp_path / "bare.safetensors")):
        assert run(*arguments, "--reference", reference, "--out", tmp_path / str(number)) == 0
        numbers.append(json.loads((tmp_path / str(number) / "report.json").read_text())["numbers"])
    assert numbers[0].keys() == numbers[1].keys() and numbers[0]["kid"] == pytest.approx(numbers[1]["kid"], rel=0.01)
    assert "kid" not in numbers[2] and numbers[2]["frechet"] == numbers[1]["frechet"] == numbers[0]["frechet"]
    other = ("evaluate", models / "model.safetensors", "--extractor", models / "guide.safetensors", "--count", 6)
    assert "are those of the extractor" in refusal(capsys, *other, "--reference", tmp_path / "whole.safetensors")
    assert "needs features" in refusal(capsys, *arguments, "--reference", tmp_path / "bare.safetensors", "--metric", "kid")
    assert ".safetensors" in refusal(capsys, "stats", models / "pictures", "--out", tmp_path / "stats", *extractor)
    alone = ("evaluate", "--samples", models / "pictures", "--reference", models / "pictures", *extractor)
    assert "--seeds has no effect on pictures" in refusal(capsys, *alone, "--seeds", 2)


def test_a_batch_in_one_file_is_sampled_measured_and_remade(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = ("sample", models / "model.safetensors", "--label", "dog=4", "--label", "CAT=2", "--steps", 2, "--npz")
    assert "only once" in refusal(capsys, *sample, "--guidance", "cfg", "--guidance", "cfg", "--out", tmp_path / "batch")
    assert not (tmp_path / "batch").exists()
    assert run(*sample, "--out", tmp_path / "batch") == 0
    path = tmp_path / "batch" / "samples.npz"
    assert capsys.readouterr().out.strip() == str(path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["manifest.json", "samples.npz"]
    with np.load(path, allow_pickle=False) as batch:
        pictures = batch["arr_0"]
        assert pictures.shape == (6, 8, 8, 3) and batch["arr_1"].tolist() == [1, 1, 1, 1, 0, 0]
    assert run("remake", path.parent, "--picture", 4, "--out", tmp_path / "again") == 0
    again = load_png(tmp_path / "again" / "00004.png").permute(1, 2, 0).numpy()
    assert np.abs(again.astype(int) - pictures[4]).max() <= 1
    against = ("--reference", models / "pictures", "--extractor", models / "extractor.safetensors")
    assert run("evaluate", path, *against, "--out", tmp_path / "report") == 0
    assert json.loads((tmp_path / "report" / "report.json").read_text())["pictures"] == str(path)
    np.savez(tmp_path / "published.npz", mu=np.zeros(2048))
    other = ("--reference", tmp_path / "published.npz")
    assert "give --extractor inception" in refusal(capsys, "evaluate", path, *against[2:], *other)
    monkeypatch.setattr("lodestar.evaluation.extractors.inception.URL", "http://127.0.0.1:9/weights.pth")  # nobody listens
    for arguments in ((path, *other), ("--self-test",)):  # both take inception where nothing else is said
        assert "cache/downloads/weights.pth" in refusal(capsys, "evaluate", *arguments)
    assert "leave out the model" in refusal(capsys, "evaluate", models / "model.safetensors", "--self-test")
    assert "--steps has no effect on pictures" in refusal(capsys, "evaluate", path, *against, "--steps", 2)
    assert "--temperature has no effect on pictures" in refusal(capsys, "evaluate", path, *against, "--temperature", 0.5)


def test_a_sweep_over_two_settings(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "sweep", models / "model.safetensors", "--classifier", models / "guide.safetensors", "--reference", models / "pictures",
        "--extractor", models / "extractor.safetensors", "--count", 6, "--out", tmp_path / "sweep",
    )  # fmt: skip
    assert run(*arguments, "--over", "guidance=cfg:2 classifier:2", "--plans", "2 3") == 0
    assert len((tmp_path / "sweep" / "sweep.csv").read_text().splitlines()) == 5
    assert "unknown setting 'stpes'" in refusal(capsys, *arguments, "--guidance", "classifier", "--over", "stpes=2")
    assert "none is given" in refusal(capsys, *arguments, "--guidance", "classifier")


def test_bits_per_dimension_come_with_a_plot_and_its_numbers(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = ("evaluate", models / "model.safetensors", "--metric", "bpd", "--steps", "logsnr:3", "--count", 4)
    assert run(*measured, "--reference", models / "pictures", "--out", tmp_path / "bpd") == 0
    shown = capsys.readouterr().out
    assert "standard error" in shown
    assert shown.strip().endswith("bpd.png")
    assert sorted(path.name for path in (tmp_path / "bpd").iterdir()) == ["bpd.csv", "bpd.png", "report.json"]
    for options, said in (
        ((), "--reference is missing"),
        (("--reference", models / "pictures", "--metric", "frechet"), "leave out another --metric"),
        (("--reference", models / "pictures", "--guidance", "cfg:2"), "leave out --guidance"),
        (("--reference", models / "pictures", "--truncation", "0.5"), "leave out --truncation"),
        (("--reference", models / "pictures", "--sampler", "ddim"), "sampler 'ddim' has none"),
    ):
        assert said in refusal(capsys, *measured, *options)
    assert "did you mean 'bpd'" in refusal(capsys, "evaluate", models / "model.safetensors", "--metric", "pbd")


def test_info_tells_what_a_file_is_without_its_weights(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", models / "model.safetensors") == 0
    assert "cat, dog, ship" in capsys.readouterr().out
    assert run("info", models / "guide.safetensors") == 0
    assert "noised pictures" in capsys.readouterr().out


def test_training_from_the_command_line_resumes_and_is_sampled(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "train", "digits", "--data", models / "pictures", "--out", tmp_path / "run", "--batch-size", 4,
        "task.conditional=false", "task.model.denoiser.network.width=8", "task.model.denoiser.network.head_channels=8",
        "task.model.denoiser.network.norm_groups=4", "train.preview_every=1000000", "train.optimizer.warmup_images=0",
    )  # fmt: skip
    assert run(*arguments, "--images", 8) == 0
    assert run(*arguments, "--images", 16) == 0
    assert "going on at 8" in "".join(capsys.readouterr().err.split("\n"))
    assert run("info", tmp_path / "run") == 0
    assert "of image 16" in capsys.readouterr().out
    assert run("sample", tmp_path / "run", "--count", 2, "--steps", 2, "--out", tmp_path / "samples") == 0
    assert "lr" not in refusal(capsys, *arguments, "--images", 16, "--seed", 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--label", "dgo"), "unknown label 'dgo': choose from cat, dog, ship; did you mean 'dog'?"),
        (("--label", "dog=x"), "'x' is not a count"),
        (("--label", "dog=0"), "'0' is not a count"),
        (("--label", "dog=2", "--count", "3"), "give one of them"),
        (("--sampler", "ddmi"), "lms, predictor_corrector, consistency; did you mean 'ddim'?"),
        (("--sampler", "ddim:eta=-1"), "sampler ddim eta is -1"),
        (("--sampler", "ddim:etta=1"), "did you mean 'eta'?"),
        (("--guidance", "cgf:2"), "unknown guidance 'cgf'"),
        (("--guidance", "cfg:-2"), "guidance cfg scale is -2"),
        (("--guidance", "cfg:nan"), "guidance cfg scale is"),
        (("--guidance", "cfg:2", "--guidance", "cfg:3"), "only once"),
        (("--guidance", "classifier:2"), "--classifier"),
        (("--guidance", "interval:1,2"), "interval limits the guidance listed before it"),
        (("--steps", "0"), "at least 1"),
        (("--steps", "51"), "51 of them from a section of 50"),
        (("--steps", "ddim7x"), "steps 'ddim7x'"),
        (("--steps", "krras:5"), "did you mean 'karras'?"),
        (("--steps", "1"), "try trailing:1"),
        (("--label", "²"), "unknown label '²'"),
        (("--label", "dog=²"), "'²' is not a count"),
        (("--count", "0"), "--count"),
        (("--seed", "-1"), "--seed"),
        (("--batch-size", "0"), "--batch-size"),
        (("--lable", "dog"), "--label"),
        (("--device", "gpu"), "device"),
    ],
)
def test_bad_requests_get_one_line(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    line = refusal(capsys, "sample", models / "model.safetensors", "--out", tmp_path / "out", *arguments)
    assert said in line
    assert not (tmp_path / "out").exists()


def test_a_model_that_was_never_unconditional_refuses_cfg(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cfg needs a model" in refusal(capsys, "sample", models / "bare.safetensors", "--guidance", "cfg:2")
    assert "never trained without its classes" in refusal(capsys, "sample", models / "bare.safetensors", "--label", "none")


def test_unknown_names_get_the_nearest(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean" in refusal(capsys, "sample", models / "modle.safetensors")
    assert "did you mean 'digits'" in refusal(capsys, "train", "digit")
    assert "did you mean 'sample'" in refusal(capsys, "sampel").replace("Did", "did")
    assert "train.optimizer.rat" in refusal(capsys, "train", "digits", "train.optimizer.rat=1")


def test_a_folder_with_something_else_is_refused(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("sample", models / "model.safetensors", "--count", 1, "--steps", 2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert "holds no pictures of this kind" in refusal(capsys, *arguments, "--out", tmp_path / "full")
    assert run(*arguments, "--out", tmp_path / "out") == 0
    assert run(*arguments, "--out", tmp_path / "out") == 0, "the same request again"
    assert "another request" in refusal(capsys, *arguments, "--seed", 1, "--out", tmp_path / "out")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


def test_damaged_and_foreign_files_are_refused(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (models / "model.safetensors").read_bytes()
    changed = bytearray(whole)
    changed[-5] ^= 1
    flag = tmp_path / "ran"

    class Code:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return os.mkdir, (str(flag),)

    for name, data, said in (
        ("short.safetensors", whole[:-9], "cut short"),
        ("changed.safetensors", bytes(changed), "changed"),
        ("code.pt", pickle.dumps(Code()), "pickle"),
        ("text.safetensors", b"hello", "safetensors"),
        ("empty.safetensors", b"", "safetensors"),
    ):
        (tmp_path / name).write_bytes(data)
        assert said in refusal(capsys, "sample", tmp_path / name), name
    assert not flag.exists()
    assert "a classifier, and a model that makes pictures is needed" in refusal(capsys, "sample", models / "guide.safetensors")


def test_a_guide_has_to_see_what_the_model_makes(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, guide, said in (
        ("schedule", tiny.classifier(schedule=Linear(timesteps=40)), "another noise schedule"),
        ("size", tiny.classifier(size=(16, 16)), "size (16, 16)"),
    ):
        checkpoint.save(tmp_path / name, "classifier", guide.config.to_json(), guide.state_dict(), {})
        arguments = ("sample", models / "model.safetensors", "--guidance", "classifier:2", "--classifier", tmp_path / name)
        assert said in refusal(capsys, *arguments)


def test_an_unconditional_model_is_guided_to_the_classes_of_its_classifier(models: Path, tmp_path: Path) -> None:
    model = tiny.diffusion(classes=None)
    checkpoint.save(tmp_path / "free", "diffusion", model.config.to_json(), model.state_dict(), {})
    arguments = ("sample", tmp_path / "free", "--label", "ship=2", "--steps", 3, "--classifier", models / "guide.safetensors")
    assert run(*arguments, "--guidance", "classifier:0", "--out", tmp_path / "a") == 0
    assert run(*arguments, "--guidance", "classifier:50", "--out", tmp_path / "b") == 0
    assert not torch.equal(load_png(tmp_path / "a" / "00000.png"), load_png(tmp_path / "b" / "00000.png"))


def test_what_is_odd_and_not_wrong_gets_one_line_and_is_done(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("sample", models / "model.safetensors", "--count", 2, "--batch-size", 1, "--sampler", "consistency")
    assert run(*arguments, "--out", tmp_path / "out") == 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("lodestar: note: sampler consistency is for models that were trained to jump")
    assert (tmp_path / "out" / "00001.png").exists()


def test_composed_labels_are_sampled_listed_and_made_again(models: Path, tmp_path: Path) -> None:
    arguments = ("sample", models / "model.safetensors", "--label", "dog+ship=2", "--label", "not cat", "--label", "dog")
    assert run(*arguments, "--guidance", "cfg:2", "--temperature", 0.9, "--steps", 3, "--out", tmp_path / "a") == 0
    pictures = json.loads((tmp_path / "a" / "manifest.json").read_text())["pictures"]
    assert [each["label"] for each in pictures] == ["dog+ship", "dog+ship", "not cat", "dog"]
    assert run("remake", tmp_path / "a", "--picture", 2, "--out", tmp_path / "again") == 0
    pair = [load_png(tmp_path / folder / "00002.png").int() for folder in ("a", "again")]
    assert (pair[0] - pair[1]).abs().max() <= 1


def test_a_weaker_model_guides_and_is_written_down(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, weak = models / "model.safetensors", tmp_path / "weak.safetensors"
    worse = tiny.diffusion(seed=4)
    checkpoint.save(weak, "diffusion", worse.config.to_json(), worse.state_dict(), {})
    arguments = ("sample", model, "--count", 2, "--steps", 3)
    assert run(*arguments, "--out", tmp_path / "plain") == 0
    guided = (*arguments, "--guidance", "autoguidance:3", "--weak", weak, "--out", tmp_path / "guided")
    assert run(*guided) == 0
    assert run("remake", tmp_path / "guided", "--picture", 1, "--out", tmp_path / "again") == 0
    plain, strong, again = (load_png(tmp_path / name / "00001.png").int() for name in ("plain", "guided", "again"))
    assert (strong - again).abs().max() <= 1
    assert not torch.equal(plain, strong)
    weak.unlink()
    assert "no model" in refusal(capsys, "remake", tmp_path / "guided", "--picture", 1)
    assert "has no weaker model (smaller or less trained) of its own: give one with --weak" in refusal(
        capsys, *arguments, "--guidance", "autoguidance:3"
    )
    assert "has no effect without guidance that asks for it, such as --guidance autoguidance" in refusal(
        capsys, *arguments, "--weak", model
    )


def test_the_best_of_several_is_kept_with_its_own_seed(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("sample", models / "model.safetensors", "--label", "dog=2", "--steps", 2)
    judged = (*arguments, "--best-of", 3, "--judge", models / "guide.safetensors", "--out", tmp_path / "a")
    assert run(*judged) == 0
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").glob("0*.png")}
    assert run(*judged) == 0 and not (tmp_path / "a-candidates").exists(), "all is there"
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").glob("0*.png")}
    assert "choose another --out" in refusal(capsys, *judged, "--seed", 1), "before the candidates are made"
    assert "choose another --out" in refusal(capsys, *arguments, "--out", tmp_path / "a")
    first, second = json.loads((tmp_path / "a" / "manifest.json").read_text())["pictures"]
    assert first["seed"] in range(3)
    assert second["seed"] in range(3, 6)
    assert run(*arguments[:2], "--label", "dog", "--steps", 2, "--seed", second["seed"], "--out", tmp_path / "b") == 0
    assert (load_png(tmp_path / "a" / "00001.png").int() - load_png(tmp_path / "b" / "00000.png").int()).abs().max() <= 1
    assert "give one with --judge" in refusal(capsys, *arguments, "--best-of", 3)
    assert "no effect without --best-of" in refusal(capsys, *arguments, "--judge", models / "guide.safetensors")


def test_pictures_with_and_without_a_label_are_the_same_in_any_batch(models: Path, tmp_path: Path) -> None:
    arguments = ("sample", models / "model.safetensors", "--label", "dog", "--label", "none", "--guidance", "cfg:3", "--steps", 3)
    assert run(*arguments, "--out", tmp_path / "a") == 0
    assert run(*arguments, "--batch-size", 1, "--out", tmp_path / "b") == 0
    for number in range(2):
        pair = [load_png(tmp_path / folder / f"{number:05d}.png").int() for folder in "ab"]
        assert (pair[0] - pair[1]).abs().max() <= 1


def test_no_arguments_are_a_call_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert "sample" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "union"),
    [
        (SamplerText, AnySampler),
        (GuidanceTexts, AnyGuidance),
        (Steps, AnyPlan),
        (ExtractorName, Features),
    ],
)
def test_help_names_every_kind(option: Any, union: Any) -> None:
    """Help is there before torch is, so that it cannot read the unions."""
    text = option.__metadata__[0].help
    written = [kind for kind, member in kinds(union).items() if member.in_text]
    unnamed = {kind for kind in written if not re.search(rf"\b{kind}(?![a-z_])", text)}
    assert unnamed <= {"sections"}, "plain numbers are sections"


def test_help_is_there_without_torch() -> None:
    code = "import sys; from lodestar.__main__ import main\ntry: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sample" in done.stdout


def test_pictures_are_labelled_by_cluster(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("label", models / "pictures", "--extractor", models / "extractor.safetensors")
    assert run(*arguments, "--clusters", 3, "--out", tmp_path / "labelled.parquet") == 0
    assert "cluster-2" in capsys.readouterr().out
    assert "has only 12 pictures" in refusal(capsys, *arguments, "--clusters", 13, "--out", tmp_path / "other.parquet")
    assert not (tmp_path / "other.parquet").exists()


def test_a_model_is_distilled_and_a_preset_ablated_in_one_command_each(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each ends with its table; from a model of noise predictions nothing is distilled."""
    small = [
        "task.model.denoiser.network.width=16", "task.model.steps=trailing:2",
        "--images", 64, "--count", 8, "--extractor", models / "extractor.safetensors",
    ]  # fmt: skip
    assert run("ablate", "digits", *small, "--variant", "rescale", "--out", tmp_path / "a") == 0
    assert "rescale" in capsys.readouterr().out
    assert len((tmp_path / "a" / "ablate.csv").read_text().splitlines()) == 3
    teacher = tmp_path / "a" / "base"
    arguments = ("distill", teacher, "--data", "digits", "--from", 4, "--to", 1, "--images", 64)
    assert run(*arguments, "--count", 8, "--extractor", models / "extractor.safetensors", "--out", tmp_path / "d") == 0
    assert len((tmp_path / "d" / "distill.csv").read_text().splitlines()) == 3
    assert run("sample", tmp_path / "d" / "stage-2", "--count", 2, "--out", tmp_path / "s") == 0
    assert json.loads((tmp_path / "s" / "manifest.json").read_text())["manifest"]["request"]["settings"]["steps"] in (
        None,
        "trailing:2",
    )
    assert "predicts 'epsilon'" in refusal(capsys, "distill", models / "model.safetensors", "--data", "digits", "--from", 4)
