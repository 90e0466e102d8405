"""Folders of diffusers' UnCLIPPipeline: its parts compute here what they compute there (`unclip_record`)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import lodestar
from lodestar.__main__ import main
from lodestar.conditions.clip_text import ClipTextEncoder
from lodestar.conditions.text import NOTHING
from lodestar.config import Problem
from lodestar.conversion.clip import of
from lodestar.core.level import Level
from lodestar.generators.album import Manifest
from lodestar.guidance import CFG
from lodestar.images import load_png
from lodestar.models.clip import PictureClip
from lodestar.models.diffusion import DiffusionModel
from lodestar.nets.clip import ClipConfig, TextTowerConfig
from lodestar.nets.clip_image import ViTConfig
from lodestar.text import ClipTokenizer
from tests.conversion.unclip_record import EMBED, LENGTH, RECORD, inputs, state

KNOWN = json.loads(RECORD.read_text())
GIVEN = inputs()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder as diffusers writes it."""
    root = tmp_path / "karlo"
    for name, settings in KNOWN["settings"].items():
        file = "scheduler_config.json" if name.endswith("scheduler") else "config.json"
        (root / name).mkdir(parents=True)
        (root / name / file).write_text(json.dumps(settings))
    for name, shapes in KNOWN["shapes"].items():
        save_file(state(name, shapes), root / name / "diffusion_pytorch_model.safetensors")
    (root / "model_index.json").write_text(json.dumps({"_class_name": "UnCLIPPipeline"}))
    return root


def change(folder: Path, part: str, **settings: Any) -> None:
    path = folder / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def load(folder: Path, part: str) -> DiffusionModel:
    loaded: DiffusionModel = lodestar.load(folder / f"karlo-{part}.safetensors", "cpu", dtype="float32")
    return loaded


def output(model: DiffusionModel, x: Tensor, **cond: Tensor) -> Tensor:
    if "clip_text" in cond:
        encoder = model.denoiser.clip_text
        assert isinstance(encoder, ClipTextEncoder)
        encoder.tower = lambda tokens: (GIVEN["states"][tokens.amax(1)], GIVEN["text"][tokens.amax(1)])
    time = GIVEN["time"].double()
    made = model.denoiser.output(x, Level(time, time, time), model.denoiser.encode(cond))
    return made.value if made.frac is None else torch.cat([made.value, made.frac], dim=1)


def check(name: str, ours: Tensor) -> None:
    theirs = torch.tensor(KNOWN["outputs"][name])
    assert (ours.flatten() - theirs).abs().max() < 1e-4 * max(1.0, float(theirs.abs().max()))


def test_the_parts_compute_what_they_compute_there(folder: Path, tmp_path: Path) -> None:
    path = lodestar.convert(folder, tmp_path / "out")
    assert path.name == "karlo-decoder.safetensors"
    text = torch.arange(2)[:, None].where(GIVEN["mask"], NOTHING)
    with torch.no_grad():
        prior = load(path.parent, "prior")
        check("prior", output(prior, GIVEN["x"][:, :, None, None], clip_text=text))
        check(
            "decoder",
            output(load(path.parent, "decoder"), GIVEN["small"], clip_text=text, embedding=GIVEN["picture"])[:, :, ::2, ::2],
        )
        upsampler = load(path.parent, "upsampler")
        for name in ("first", "last"):
            network: Callable[[Tensor, Tensor], Tensor] = getattr(upsampler.denoiser.network, name)
            check(f"super_res_{name}", network(GIVEN["large"], GIVEN["time"])[:, :, ::4, ::4])
    assert prior.limit is not None and prior.limit.limit == 5.0  # type: ignore[union-attr]
    mean = state("prior", KNOWN["shapes"]["prior"])["clip_mean"]
    assert torch.equal(prior.codec.mean, mean[0])
    assert upsampler.config.denoiser.low_res == (8, 8) and upsampler.config.size == (16, 16)


def clip(path: Path) -> Path:
    """A CLIP of Karlo's form for these parts, with random weights."""
    torch.manual_seed(0)
    image = ViTConfig(size=(8, 8), embed=EMBED, patch=4, width=8, layers=1, heads=2)
    text = TextTowerConfig(vocabulary=ClipTokenizer().vocabulary, context=LENGTH, width=EMBED, layers=1, heads=2)
    return PictureClip(of(ClipConfig(image=image, text=text))).save(path)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(str(ended.value.code or 0))


def test_the_command_samples_karlo_from_a_folder_in_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Diffusers' folders beside a converted CLIP: they are converted where they lie, once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ClipTokenizer, "encode", lambda self, text: [sum(map(ord, text)) % 400] if text else [])
    asked = ["sample", "karlo", "--prompt", "an old monk", "--models", str(folder), "--precision", "float32", "--seed", "3"]
    assert run(*asked) == 2
    told = capsys.readouterr().err
    assert "has no part clip" in told and "ViT-L-14.pt" in told and not list(folder.glob("*.safetensors"))
    clip(folder / "clip-ViT-L-14.safetensors")
    assert run(*asked, "--out", "a") == 0
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    parts = {f"karlo-{part}.safetensors" for part in ("prior", "decoder", "upsampler")}
    assert parts | {"karlo.bundle.json"} < set(made)
    assert load_png("a/00000.png").shape == (3, 16, 16)
    request = Manifest.read("a").request
    assert request.asks[0].others["prior"] == {"kind": "diffusion", "scale": 4.0, "steps": None, "best_of": 1}
    assert request.settings.guidance == (CFG(scale=8.0),) and len(request.later) == 1
    assert run(*asked, "--out", "b") == 0
    assert load_png("b/00000.png").equal(load_png("a/00000.png"))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()} == made
    assert run("remake", "a", "--picture", "0", "--out", "c") == 0
    assert load_png("c/00000.png").equal(load_png("a/00000.png"))
    # Converted parts alone are a folder too, and settings of one's own count.
    whole = tmp_path / "whole"
    whole.mkdir()
    for name in (*made,):
        if name.endswith(".safetensors"):
            shutil.copy(folder / name, whole / name)
    assert run(*asked[:5], str(whole), "--guidance", "cfg:2", "--prior", "text", "--out", "d") == 0
    assert Manifest.read("d").request.settings.guidance == (CFG(scale=2.0),)


def test_what_karlo_lacks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip(tmp_path / "clip-ViT-L-14.safetensors")
    for given, said in (
        (["karlo", "--models", str(tmp_path)], "has no part prior: "),
        (["karlo", "--models", str(tmp_path / "nowhere")], "karlo: no folder "),
        (["cifar10", "--models", str(tmp_path)], "is the folder of the model karlo, and the model is cifar10"),
    ):
        assert run("sample", *given, "--prompt", "a") == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1


def test_what_is_missing_or_not_read_is_named_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    for part, settings, told in (
        ("decoder", {"only_cross_attention": True}, "only_cross_attention is True: only False is read"),
        ("prior", {"added_emb_type": None}, "added_emb_type is None"),
        ("super_res_last", {"layers_per_block": 2}, "super_res_first and super_res_last have different settings"),
    ):
        before = json.loads((folder / part / "config.json").read_text())
        change(folder, part, **settings)
        with pytest.raises(Problem, match=told):
            lodestar.convert(folder, tmp_path / "out")
        change(folder, part, **before)
    (folder / "text_proj" / "config.json").unlink()
    with pytest.raises(Problem, match="has no part text_proj"):
        lodestar.convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
