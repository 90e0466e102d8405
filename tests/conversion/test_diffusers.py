"""Folders of diffusers: what is written is read back as the same function, by us and, where it is installed, by diffusers."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lodestar import library
from lodestar.__main__ import main
from lodestar.config import Problem
from lodestar.conversion import diffusers
from lodestar.conversion.settings import read
from lodestar.conversion.unet2d import UNet2DModel, from_unet2d, to_unet2d, unet_config
from lodestar.core.prediction import Velocity
from lodestar.core.schedule import Cosine, Linear, Sigmoid, Warmup
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.generators.diffusion import Diffusion
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNet, UNetConfig

TINY: dict[str, Any] = {"width": 8, "norm_groups": 4, "head_channels": 4, "multipliers": (1, 2), "blocks": 1, "attention": (2,)}
NETWORKS: dict[str, dict[str, Any]] = {
    "ADM": {},
    "old layout": {"layout": "heads_first"},
    "convolutions": {"resample": "conv"},
    "without parameters": {"resample": "plain"},
    "added embedding": {"adaptive_norm": False},
    "one head": {"head_channels": None, "heads": 1, "attention": (1, 2)},
    "uneven depth, plain": {"blocks": (1, 3), "resample": "plain", "attention": (1, 2)},
    "uneven depth, residual": {"blocks": (3, 1, 2), "multipliers": (1, 2, 3), "attention": (2,), "adaptive_norm": False},
}


def network(**changes: Any) -> UNet:
    torch.manual_seed(0)
    made = UNetConfig(**{**TINY, **changes}).build().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def model(**changes: Any) -> Diffusion:
    torch.manual_seed(0)
    unet = UNetConfig(**TINY, out_channels=6)
    denoiser = DenoiserConfig(network=unet, prediction=Velocity(), variance="learned_range", conditions=conditions(3))
    fields = {"denoiser": denoiser, "schedule": Cosine(), "size": (8, 8), "names": ("a", "b", "c"), "droppable": True}
    made = Diffusion(DiffusionConfig(**{**fields, **changes})).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def inputs(made: UNet) -> tuple[Tensor, Tensor, Tensor]:
    size = 4 * made.config.divisor
    return torch.randn(2, 3, size, size), torch.tensor([3.0, 700.0]), torch.randn(2, made.config.emb_width)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_out_and_in_again_is_the_same_function(name: str) -> None:
    ours = network(**NETWORKS[name])
    settings, tensors = to_unet2d(ours.config, ours.state_dict(), (8, 8))
    back = unet_config(read(UNet2DModel, json.loads(json.dumps(settings)), "here")).build().eval()
    back.load_state_dict(from_unet2d(back.config, tensors))
    arguments = inputs(ours)
    torch.testing.assert_close(back(*arguments), ours(*arguments), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_diffusers_computes_the_same(name: str) -> None:
    theirs = pytest.importorskip("diffusers", reason="diffusers is not installed")
    ours = network(**NETWORKS[name])
    settings, tensors = to_unet2d(ours.config, ours.state_dict(), (8, 8))
    other = theirs.UNet2DModel(**{key: value for key, value in settings.items() if key != "_class_name"}).eval()
    other.load_state_dict(tensors)
    x, time, _ = inputs(ours)
    torch.testing.assert_close(other(x, time).sample, ours(x, time), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_folder_is_read_back_whole(tmp_path: Path) -> None:
    made = model()
    diffusers.export(made, tmp_path)
    config, state = diffusers.load(tmp_path)
    back = Diffusion(config).eval()
    back.load_state_dict(state)
    assert (config.names, config.droppable, config.size) == (("a", "b", "c"), True, (8, 8))
    torch.testing.assert_close(config.schedule.betas(), made.config.schedule.betas())
    ours, theirs = (each.sample(["a", None, "c"], seed=1, steps=3).images for each in (made, back))
    assert (ours.int() - theirs.int()).abs().max() <= 1


@torch.no_grad()
def test_the_pipeline_of_diffusers_loads_it(tmp_path: Path) -> None:
    theirs = pytest.importorskip("diffusers", reason="diffusers is not installed")
    made = model()
    diffusers.export(made, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = theirs.DDPMPipeline.from_pretrained(tmp_path)
    x, time = torch.randn(4, 3, 8, 8), torch.tensor([0.0, 10.0, 500.0, 999.0])
    table = made.denoiser.label.table.weight  # type: ignore[union-attr]
    emb = torch.cat([table, torch.zeros(1, table.shape[1])])
    out = pipeline.unet(x, time, class_labels=torch.arange(4)).sample
    torch.testing.assert_close(out, made.denoiser.network(x, time, emb), rtol=1e-4, atol=1e-4)
    abar = (1 - made.config.schedule.betas()).cumprod(0)
    torch.testing.assert_close(pipeline.scheduler.alphas_cumprod.double(), abar, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 16, "multipliers": (0.5, 1), "head_channels": 8}, "first multiplier is not 1"),
        ({"head_channels": None, "heads": 2, "attention": (1, 2)}, "channels per attention head differ"),
        ({"rescale_residuals": True}, "rescales its residuals"),
        ({"coordinates": True}, "told coordinates"),
        ({"head_channels": None, "heads": 4, "up_heads": 2}, "other heads on the way up"),
        ({"norm_groups": 3}, "3 groups do not divide"),
    ],
)
def test_a_network_that_it_has_not_is_refused_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    ours = network(**changes)
    with pytest.raises(Problem, match=reason):
        to_unet2d(ours.config, ours.state_dict(), (8, 8))


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [(Warmup(), "no schedule 'warmup'"), (Cosine(offset=0.1), "no schedule 'cosine' with these")],
)  # fmt: skip
def test_a_schedule_that_it_has_not_is_refused(schedule: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Problem, match=reason):
        diffusers.export(model(schedule=schedule), tmp_path)
    assert not any(tmp_path.iterdir())


@torch.no_grad()
def test_scaled_times_go_out_as_a_table_of_steps(tmp_path: Path) -> None:
    made = model(schedule=Cosine(timesteps=400, rescale_time=True))
    diffusers.export(made, tmp_path)
    config, state = diffusers.load(tmp_path)
    assert config.schedule.rescale_time and config.schedule.time_scale == 2.5
    torch.testing.assert_close(state["denoiser.network.head.weight"], made.denoiser.network.head.weight)
    weights = tmp_path / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    x, step, label = torch.randn(2, 3, 8, 8), torch.tensor([0, 399]), torch.tensor([0, 2])
    ours = made.denoiser.network(x, 2.5 * step, made.denoiser.label.table.weight[label])  # type: ignore[union-attr]
    if importlib.util.find_spec("diffusers") is not None:
        theirs = importlib.import_module("diffusers").UNet2DModel.from_pretrained(tmp_path, subfolder="unet")
        torch.testing.assert_close(theirs(x, step, class_labels=label).sample, ours, rtol=1e-4, atol=1e-4)
    save_file({**tensors, "time_proj.weight": tensors["time_proj.weight"] + 0.1}, weights)
    with pytest.raises(Problem, match=r"time_proj\.weight was learned: only times of 1000/T a step are read"):
        diffusers.load(tmp_path)


@torch.no_grad()
def test_a_model_that_enlarges_goes_out_without_a_pipeline(tmp_path: Path) -> None:
    unet = UNetConfig(**TINY, in_channels=6, out_channels=6)
    denoiser = DenoiserConfig(network=unet, variance="learned_range", conditions=conditions(3, (4, 4)))
    made = model(denoiser=denoiser, schedule=Linear(), droppable=False)
    diffusers.export(made, tmp_path)
    assert not (tmp_path / "model_index.json").exists(), "DDPMPipeline would make pictures of six channels"
    back = library.load(diffusers.convert(tmp_path, tmp_path / "models")[0], "cpu", dtype=torch.float32)
    assert isinstance(back, Diffusion) and back.config.denoiser == made.config.denoiser
    cond = {"low_res": torch.randn(2, 3, 4, 4), "label": torch.tensor([0, 2])}
    x, level = torch.randn(2, 3, 8, 8), made.config.schedule.table[500]
    answers = [each.denoiser.output(x, level, each.denoiser.encode(cond)) for each in (made, back)]
    torch.testing.assert_close(answers[1].value, answers[0].value)
    if importlib.util.find_spec("diffusers") is not None:
        theirs = importlib.import_module("diffusers").UNet2DModel.from_pretrained(tmp_path, subfolder="unet")
        large = torch.nn.functional.interpolate(cond["low_res"], (8, 8), mode="bilinear")
        out = theirs(torch.cat([x, large], 1), 499, class_labels=cond["label"]).sample
        torch.testing.assert_close(out[:, :3], answers[0].value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schedule", [Linear(timesteps=400), Sigmoid()])
def test_schedules_return(schedule: Any, tmp_path: Path) -> None:
    diffusers.export(model(schedule=schedule), tmp_path)
    torch.testing.assert_close(diffusers.load(tmp_path)[0].schedule.betas(), schedule.betas())


def test_what_is_not_ours_to_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"holds no unet/config.json and no config.json"):
        diffusers.load(tmp_path)
    diffusers.export(model(), tmp_path)

    def refused(file: str, name: str, value: Any, reason: str) -> None:
        path = tmp_path / file
        before = path.read_text()
        path.write_text(json.dumps({**json.loads(before), name: value}))
        with pytest.raises(Problem, match=reason):
            diffusers.load(tmp_path)
        path.write_text(before)

    refused("unet/config.json", "act_fn", "gelu", "act_fn is 'gelu': only 'silu' and 'swish' are read")
    refused("unet/config.json", "down_block_types", ["SkipDownBlock2D", "DownBlock2D"], "SkipDownBlock2D")
    refused("unet/config.json", "layers_per_block", 2, "is missing")
    refused(
        "scheduler/scheduler_config.json", "prediction_type", "flow", "prediction_type is 'flow': only 'epsilon' and 'sample'"
    )
    refused("scheduler/scheduler_config.json", "trained_betas", [0.1], "trained_betas")
    (tmp_path / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"short")
    with pytest.raises(Problem, match="cannot be read: "):
        diffusers.load(tmp_path)


@torch.no_grad()
def test_the_embedded_model_goes_out_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", "cifar10", "--to", "diffusers", str(tmp_path / "out")])
    assert stop.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out")
    config, state = diffusers.load(tmp_path / "out")
    back = config.build().eval()
    back.load_state_dict(state)
    x, time = torch.randn(2, 3, 32, 32), torch.tensor([10.0, 900.0])
    emb = torch.randn(2, config.denoiser.network.emb_width)
    ours = library.load("cifar10", "cpu", dtype=torch.float32)
    assert isinstance(ours, Diffusion)
    torch.testing.assert_close(back.denoiser.network(x, time, emb), ours.denoiser.network(x, time, emb), rtol=1e-4, atol=1e-5)


def test_a_folder_is_converted_into_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = model()
    diffusers.export(made, tmp_path / "mine")
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(tmp_path / "mine"), "--out", str(tmp_path / "models")])
    assert stop.value.code == 0
    path = tmp_path / "models" / "mine.safetensors"
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    back = library.load(path, "cpu", dtype=torch.float32)
    assert isinstance(back, Diffusion)
    ours, theirs = (each.sample(["b"], seed=2, steps=2).images for each in (made, back))
    assert (ours.int() - theirs.int()).abs().max() <= 1
    (tmp_path / "mine" / "unet" / "config.json").unlink()
    for arguments, said in (
        ([], "holds no unet/config.json and no config.json"),
        (["--as", "openai/adm-64"], "--as openai/adm-64 is for a file"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["convert", str(tmp_path / "mine"), *arguments])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["cifar10", "--to", "difusers"], "unknown --to 'difusers': choose from diffusers, hub; did you mean"),
        (["cifar10", "--private"], "--private is about repositories"),
        (["cifar10_classifier"], "holds a classifier, and a diffusion is needed"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["export", arguments[0], str(tmp_path / "out"), *arguments[1:]])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
