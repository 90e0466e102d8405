"""`lodestar.quantize`: a model that samples in 8 bits, and all that is done with models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import lodestar
from lodestar import checkpoint, library
from lodestar.__main__ import main
from lodestar.conditions import TextCondition
from lodestar.config import Problem
from lodestar.conversion import diffusers
from lodestar.generators.diffusion import Diffusion
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets import precision, probe
from tests.evaluation.tiny import classifier, diffusion, reference, told
from tests.training.runs import write_pictures


@pytest.fixture
def model() -> Path:
    """A model of three classes, in a file."""
    return diffusion().save("model.safetensors")


@pytest.fixture
def ranged(model: Path) -> Path:
    return lodestar.quantize(model, reference(), "ranged.safetensors", count=8, steps="linspace:3", device="cpu")


def pictures(path: str | Path, dtype: str, count: int = 4, batch_size: int = 4) -> torch.Tensor:
    return lodestar.load(path, "cpu", dtype=dtype).sample(count=count, batch_size=batch_size, steps=5).images.int()


def test_its_pictures_are_those_of_the_model_but_for_rounding(model: Path, ranged: Path) -> None:
    exact = pictures(model, "float32")
    assert torch.equal(pictures(ranged, "float32"), exact) and torch.equal(
        pictures(ranged, "bfloat16"), pictures(model, "bfloat16")
    )
    eight = pictures(ranged, "int8")
    assert 0 < (eight - exact).abs().float().mean() < 8
    assert (pictures(ranged, "int8", batch_size=1) - eight).abs().max() == 0


def test_its_card_names_the_data_without_their_folder(model: Path, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "home" / "drawings", count=2)
    out = lodestar.quantize(model, data, "ranged.safetensors", count=2, steps="linspace:2", device="cpu")
    assert checkpoint.peek(out).provenance["ranges"] == "of 2 pictures of drawings, steps linspace:2, seed 0"


def test_the_file_tells_where_it_is_from(model: Path, ranged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = checkpoint.peek(ranged).provenance
    assert told["saved_from"] == str(model) and told["saved_from_sha256"] == checkpoint.peek(model).digest
    assert told["ranges"] == "of 8 pictures of noise, steps linspace:3, seed 0"
    assert _main("info", ranged) == 0
    assert "in int8 too" in capsys.readouterr().out


def test_a_manifest_names_the_format_and_remake_uses_it(ranged: Path) -> None:
    assert _main("sample", ranged, "--count", 3, "--precision", "int8", "--device", "cpu", "--out", "out") == 0
    assert '"dtype": "int8"' in Path("out/manifest.json").read_text()
    assert _main("remake", "out", "--picture", 2, "--out", "again") == 0
    (again,) = Path("again").glob("0*.png")
    assert again.read_bytes() == Path("out/00002.png").read_bytes()


def test_a_saved_copy_has_the_same_pictures(ranged: Path) -> None:
    lowered = lodestar.load(ranged, "cpu", dtype="int8")
    copy = lowered.save("copy.safetensors")
    assert torch.equal(pictures(copy, "int8"), pictures(ranged, "int8"))


def test_it_is_chosen_where_it_is_the_fastest_and_the_model_has_ranges(
    model: Path, ranged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(precision.VARIABLE)
    times = {"float32": 3.0, "bfloat16": 2.0, "int8": 1.0}
    monkeypatch.setattr(precision, "probe", lambda purpose: probe.Probe(purpose=purpose, seconds={"a shape": times}))
    assert library.load(ranged, "cpu").precision == "int8" and library.load(model, "cpu").precision == "bfloat16"
    monkeypatch.setenv(precision.VARIABLE, "int8")
    assert library.load(ranged, "cpu").precision == "int8" and library.load(model, "cpu").precision == "bfloat16"


def test_a_model_of_texts_is_quantized_on_captions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path, read = told().save("told.safetensors"), list[str]()
    real = TextCondition.read

    def watched(self: TextCondition, texts: Sequence[str], cut: bool = False) -> torch.Tensor:
        read.extend(texts)
        return real(self, texts, cut)

    monkeypatch.setattr(TextCondition, "read", watched)
    out = lodestar.quantize(path, "shapes", "eight.safetensors", count=6, steps="linspace:3", device="cpu")
    assert len(set(read)) > 3 and all(read)
    made = lodestar.load(out, "cpu", dtype="int8").sample(prompt=["a red circle", "a star"], guidance="cfg:2", steps=3)
    assert len(made) == 2 and made.images.float().std() > 0
    assert _main("quantize", path, "--data", "digits", "--out", "other.safetensors") == 2
    assert "digits has no captions" in capsys.readouterr().err


def test_guides_compute_beside_it(ranged: Path) -> None:
    judge = classifier().save("judge.safetensors")
    lowered = lodestar.load(ranged, "cpu", dtype="int8")
    guides = {"classifier": lodestar.load(judge, "cpu", dtype="int8")}
    for guidance in ("classifier:2", "classifier:2,sees=clean", "cfg:2"):
        guided = lowered.sample(label=1, count=2, guidance=guidance, guides=guides if "class" in guidance else None)
        assert len(guided) == 2


def test_what_is_made_of_it_has_no_ranges(ranged: Path) -> None:
    folder = Path("theirs")
    assert "UNet2DModel" in diffusers.export(lodestar.load(ranged, "cpu", dtype="float32"), folder)
    back = lodestar.load(lodestar.convert(folder), "cpu", dtype="float32")
    assert isinstance(back, Diffusion) and not back.config.denoiser.network.ranged
    config = library.config(ranged)
    assert isinstance(config, DiffusionConfig)
    with pytest.raises(Problem, match=r"network\.ranges are not trained: lodestar quantize finds them afterwards"):
        lodestar.train("digits", {"task.model.denoiser.network.ranges": [0.0, 9.0]}, images=64, out="runs/no")
    run = lodestar.train("digits", {"train.init": None}, images=64, out="runs/digits")
    assert not run.config.denoiser.network.ranged


def test_what_cannot_be_quantized_gets_one_line(model: Path, ranged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = classifier().save("judge.safetensors")
    for arguments, line in (
        (
            (ranged, "--data", "digits", "--out", "x.safetensors"),
            f"{ranged} has its ranges already, at 3 times",
        ),
        ((judge, "--data", "digits", "--out", "x.safetensors"), "holds a classifier, and a diffusion is needed here"),
        ((model, "--data", "digits", "--out", "x.pt"), "x.pt: the name of a model's file ends in .safetensors"),
        ((model, "--data", "digits", "--out", ranged), f"{ranged} exists: choose another name, or remove it"),
        ((model, "--data", "digits", "--out", "x.safetensors", "--steps", "1"), "steps '1' have one level"),
        ((model, "--data", "nowhere", "--out", "x.safetensors"), "nowhere"),
    ):
        assert _main("quantize", *arguments) == 2
        error = capsys.readouterr().err
        assert line in error and error.count("\n") == 1
    assert not Path("x.safetensors").exists()
    with pytest.raises(Problem, match=r"precision int8: model\.safetensors has no ranges .*lodestar quantize model\.safetensors"):
        lodestar.load(model, "cpu", dtype="int8")


def test_ranges_of_another_network_are_refused(ranged: Path) -> None:
    header, tensors = checkpoint.load(ranged)
    tensors["denoiser.network.ranges"] = torch.ones(1, 2, 3)
    checkpoint.save("odd.safetensors", header.kind, header.config, tensors, {})
    with pytest.raises(Problem, match=r"odd\.safetensors: 'denoiser\.network\.ranges' has shape \(1, 2, 3\), this model has"):
        lodestar.load("odd.safetensors", "cpu")


def _main(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(map(str, arguments)))
    return int(end.value.code or 0)
