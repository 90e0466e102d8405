"""Converting and enlarging from the command line, end to end, on tiny files in the published layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lodestar.presets
from lodestar.__main__ import main
from lodestar.images import load_png, save_png
from tests.conversion.foreign import PUBLISHED, STATES, state


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lodestar.presets, "PUBLISHED", PUBLISHED)
    for name, shapes in STATES.items():
        torch.save(state(shapes), tmp_path / name)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a refused command says; its status is 2."""
    capsys.readouterr()
    assert run(*arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("lodestar: "), lines
    return lines[0]


def test_converted_files_are_sampled_guided_and_enlarged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in STATES:
        assert run("convert", name) == 0
    out = capsys.readouterr().out
    assert "tiny.pt is ada/tiny, " in out and out.strip().endswith("models/tiny-up.safetensors")
    guided = ("--guidance", "classifier:3", "--critic", "models/tiny-guide.safetensors")
    assert run("sample", "models/tiny.safetensors", "--label", "1=2", "--label", "2=1", *guided, "--out", "small") == 0
    assert run("sample", "models/tiny.safetensors", "--label", "1=2", "--label", "2=1", "--out", "plain") == 0
    assert not torch.equal(load_png("small/grid.png"), load_png("plain/grid.png"))
    capsys.readouterr()
    how = ("--fit", "--sampler", "dpmpp", "--steps", 4)
    assert run("upsample", "models/tiny-up.safetensors", "small", *how, "--out", "large") == 0
    assert capsys.readouterr().out.strip() == "large/grid.png"
    large = [f"{name}0000{k}.png" for name in ("", "source-") for k in range(3)]
    assert sorted(path.name for path in Path("large").iterdir()) == sorted([*large, "grid.png", "manifest.json"])
    assert load_png("large/00001.png").shape == (3, 8, 8)
    assert run("remake", "large", "--picture", 2, "--out", "again") == 0
    assert (load_png("again/00002.png").int() - load_png("large/00002.png").int()).abs().max() <= 1
    assert run("upsample", "models/tiny-up.safetensors", "small/00001.png", *how, "--seed", 1) == 0
    again = load_png("out/upsample/00000.png").int()
    assert (again - load_png("large/00001.png").int()).abs().max() <= 1
    assert "another request" in refusal(capsys, "upsample", "models/tiny-up.safetensors", "small", "--fit", "--out", "large")


def test_models_that_are_mixed_up_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in STATES:
        assert run("convert", name) == 0
    up, model, guide = (f"models/{name}.safetensors" for name in ("tiny-up", "tiny", "tiny-guide"))
    save_png(tmp_path / "a.png", torch.zeros(3, 4, 4, dtype=torch.uint8))
    assert "enlarges pictures of 4×4, and is given none" in refusal(capsys, "sample", up, "--count", 1)
    assert "makes pictures from noise and enlarges none" in refusal(capsys, "upsample", model, "a.png")
    assert "holds a classifier, and a model that makes pictures is needed" in refusal(capsys, "sample", guide)
    assert "knows no classes" in refusal(capsys, "upsample", up, "a.png", "--label", "1")
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert "b.png cannot be decoded" in refusal(capsys, "upsample", up, "b.png")
    assert "32 groups do not divide all of its channels" in refusal(capsys, "export", up, "folder")
    assert "is a model of this library as it is" in refusal(capsys, "convert", up)


def test_wrong_names_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.pt").rename(tmp_path / "model.pt")
    assert "ada/tiny or ada/twin; say which with --as NAME" in refusal(capsys, "convert", "model.pt")
    assert "did you mean 'ada/twin'?" in refusal(capsys, "convert", "model.pt", "--as", "ada/twinn")
    assert "no published model 'ada/tini'" in refusal(capsys, "convert", "ada/tini")
    assert "no file 'modle.pt'; did you mean 'model.pt'?" in refusal(capsys, "convert", "modle.pt")
    assert "holds no unet/config.json" in refusal(capsys, "convert", ".")
    assert "is a name already" in refusal(capsys, "convert", "ada/tiny", "--as", "ada/twin")
    assert "get tiny_up.pt from https://localhost/" in refusal(capsys, "convert", "ada/tiny-up")
    assert run("convert", "model.pt", "--as", "twin", "--out", "there") == 0
    assert [path.name for path in Path("there").iterdir()] == ["twin.safetensors"]


def test_a_file_of_ones_own_is_converted_by_its_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tiny.pt").rename("ema_0.9999_000100.pt")
    flags = "--image_size 8 --num_channels 8 --channel_mult 1,2 --num_res_blocks 1 --num_heads 2 --attention_resolutions 4"
    flags += " --class_cond True --resblock_updown True --learn_sigma True --diffusion_steps 50 --noise_schedule cosine --lr 1e-4"
    wrapped = {f"module.{name}": tensor for name, tensor in torch.load("ema_0.9999_000100.pt").items()}
    torch.save(wrapped, "ddp.pt")
    Path("flags.sh").write_text(f'MODEL_FLAGS="{flags}"  # as in the README\npython train.py --data_dir pictures $MODEL_FLAGS\n')
    assert "or, if it is none of them, give the flags" in refusal(capsys, "convert", "ema_0.9999_000100.pt")
    for file, words in (("ema_0.9999_000100.pt", ["--flags", flags]), ("ddp.pt", ["--flags", "flags.sh"])):
        capsys.readouterr()
        assert run("convert", file, *words) == 0
        out, err = capsys.readouterr()
        assert f"{file} is a model of guided-diffusion by its flags, " in out
        assert ("the prefix 'module' of all names" in err) == (file == "ddp.pt")
        assert run("sample", out.splitlines()[-1], "--label", 1, "--steps", 2, "--out", f"s/{file}") == 0
    assert torch.equal(load_png("s/ddp.pt/00000.png"), load_png("s/ema_0.9999_000100.pt/00000.png"))
    assert run("convert", "ddp.pt", "--flags", "flags.sh", "--as", "improved-diffusion", "--steps", "trailing:5") == 0
    wrong = refusal(capsys, "convert", "ema_0.9999_000100.pt", "--flags", "flags.sh", "--flag", "num_channels=16")
    assert "num_channels: width is 8 in the weights, 16 by the flags" in wrong


def test_a_published_model_is_fetched_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cached = tmp_path / "cache" / "downloads"
    cached.mkdir(parents=True)
    (tmp_path / "tiny.pt").rename(cached / "tiny.pt")
    assert run("convert", "ada/tiny", "--out", "models") == 0
    assert "SHA-256" in capsys.readouterr().out
    assert Path("models/tiny.safetensors").exists()
    assert "unknown run 'adm.imagnet64'" in refusal(capsys, "train", "adm.imagnet64")
