"""The networks of diffusers by their settings, older folders, and the list of settings in docs/convert.md."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lodestar.__main__ import main
from lodestar.config import Note, Problem
from lodestar.conversion import diffusers, schedulers
from lodestar.conversion.autoencoder_folder import AutoencoderKL, VQModel
from lodestar.conversion.flags import ClassifierFlags, ImprovedFlags, ModelFlags
from lodestar.conversion.rosinality import VqVae2Flags
from lodestar.conversion.settings import Foreign, Idle, Only, read
from lodestar.conversion.unclip_folder import PriorTransformer, UnCLIPScheduler, UnCLIPTextProjModel, UNet2DConditionModel
from lodestar.conversion.unet2d import UNet2DModel, from_unet2d, to_unet2d, unet_config
from lodestar.samplers import Euler, Heun

from . import diffusers_record as record
from .test_diffusers import model, network

DOCS = Path(__file__).parents[2] / "docs" / "convert.md"
RECORDED = json.loads(record.RECORD.read_text())
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("name", record.NETWORKS)
@torch.no_grad()
def test_networks_compute_what_diffusers_computes(name: str) -> None:
    settings = read(UNet2DModel, {**record.SMALL, **record.NETWORKS[name]}, "here")
    ours = unet_config(settings).build().eval()
    shapes = {key: tuple(value.shape) for key, value in to_unet2d(ours.config, ours.state_dict(), (8, 8))[1].items()}
    if settings.num_class_embeds:
        shapes["class_embedding.weight"] = (settings.num_class_embeds, ours.config.emb_width)
    tensors = record.weights(shapes)
    table = tensors.pop("class_embedding.weight", None)
    ours.load_state_dict(from_unet2d(ours.config, tensors, not settings.flip_sin_to_cos))
    x, time, labels = record.inputs()
    out = ours(x, time, None if table is None else table[labels])[:, :, ::3, ::3].flatten()
    torch.testing.assert_close(out, torch.tensor(RECORDED["networks"][name]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"closed_frequencies": True, "one_sided": True, "resample": "conv"},
        {"one_sided": True, "resample": "plain", "norm_eps": 1e-6},
    ],
)
@torch.no_grad()
def test_networks_of_tensorflow_go_out_and_in(changes: dict[str, Any]) -> None:
    ours = network(**changes)
    settings, tensors = to_unet2d(ours.config, ours.state_dict(), (8, 8))
    back = unet_config(read(UNet2DModel, json.loads(json.dumps(settings)), "here")).build().eval()
    back.load_state_dict(from_unet2d(back.config, tensors))
    x, time = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 700.0])
    torch.testing.assert_close(back(x, time), ours(x, time), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("center_input_sample", True, "center_input_sample is True: only False is read, because networks here see"),
        ("time_embedding_type", "fourier", "time_embedding_type is 'fourier'"),
        ("time_embedding_dim", 64, "time_embedding_dim is 64: only 32"),
        ("freq_shift", 2, "freq_shift is 2: only 0 and 1 are read"),
        ("mid_block_type", None, "mid_block_type is None"),
        ("mid_block_scale_factor", 1.41, "mid_block_scale_factor is 1.41"),
        ("downsample_padding", 2, "downsample_padding is 2"),
        ("act_fn", "mish", "act_fn is 'mish'"),
        ("class_embed_type", "identity", "class_embed_type is 'identity'"),
        ("attn_norm_num_groups", 2, "attn_norm_num_groups is 2: it has to be norm_num_groups, 4"),
        ("upsample_type", "resnet", "up_block_types is AttnUpBlock2D, UpBlock2D: with 2 resolutions"),
        ("down_block_types", ["SkipDownBlock2D", "DownBlock2D"], "down_block_types is SkipDownBlock2D, DownBlock2D"),
        ("block_out_channels", [8, 16, 32], "with 3 resolutions"),
        ("sample_size", None, "sample_size is not given"),
        ("sample_size", "8", "sample_size"),
        ("layers_per_block", 0, "layers_per_block is 0"),
        ("block_out_channels", {"a": 1}, "block_out_channels"),
        ("num_heads", 3, "unknown field 'here num_heads'"),
    ],
)
def test_settings_of_networks_that_are_not_read_are_refused_by_name(name: str, value: Any, said: str) -> None:
    with pytest.raises(Problem) as raised:
        unet_config(read(UNet2DModel, {**record.SMALL, name: value}, "here"))
    assert said in str(raised.value) and "\n" not in str(raised.value)


def old_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as diffusers called them before 0.15."""
    renamed = {}
    for name, tensor in tensors.items():
        for now, then in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{now}.", f".{then}.")
        renamed[name] = tensor.clone()
    return renamed


def shards(folder: Path, tensors: dict[str, Tensor], safe: bool) -> None:
    """The tensors in two files and an index."""
    names, kind = list(tensors), "safetensors" if safe else "bin"
    listed = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"diffusion_pytorch_model-0000{number + 1}-of-00002.{kind}"
        held = {name: tensors[name].clone() for name in part}
        (save_file if safe else torch.save)(held, folder / file)  # type: ignore[operator]
        listed |= dict.fromkeys(part, file)
    (folder / f"diffusion_pytorch_model.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))


@pytest.mark.parametrize("form", ["old names", "bin", "flat", "shards", "bin shards", "wrapped", "fp16 variant"])
def test_every_form_of_a_folder_gives_the_same_weights(form: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    diffusers.export(model(), tmp_path / "a")
    right = diffusers.load(tmp_path / "a")
    folder, tensors = tmp_path / "a" / "unet", load_file(tmp_path / "a" / WEIGHTS)
    if form != "flat":
        (tmp_path / "a" / WEIGHTS).unlink()
    match form:
        case "old names":
            save_file(old_names(tensors), tmp_path / "a" / WEIGHTS)
        case "bin":
            torch.save(tensors, folder / "diffusion_pytorch_model.bin")
        case "flat":
            shutil.copytree(folder, tmp_path / "b")
            shutil.copy(tmp_path / "a/scheduler/scheduler_config.json", tmp_path / "b")
            for name in ("model_index.json", "lodestar.json"):
                shutil.copy(tmp_path / "a" / name, tmp_path / "b")
        case "shards" | "bin shards":
            shards(folder, tensors, form == "shards")
        case "wrapped":
            torch.save(
                {f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()}, folder / "diffusion_pytorch_model.bin"
            )
        case _:
            save_file(
                {name: tensor.clone() for name, tensor in tensors.items()}, folder / "diffusion_pytorch_model.fp16.safetensors"
            )
    config, state = diffusers.load(tmp_path / ("b" if form == "flat" else "a"))
    assert config == right[0] and state.keys() == right[1].keys()
    assert all(torch.equal(state[name], right[1][name]) for name in state)
    notes = [str(each.message) for each in recwarn if issubclass(each.category, Note)]
    assert [("'module._orig_mod'" in note) for note in notes] == ([True] if form == "wrapped" else [])


def refused(folder: Path) -> str:
    with pytest.raises(Problem) as raised:
        diffusers.load(folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_wrong_with_a_folder_is_one_line(tmp_path: Path) -> None:
    diffusers.export(model(), tmp_path)
    unet, tensors = tmp_path / "unet", load_file(tmp_path / WEIGHTS)
    save_file({**tensors, "extra.weight": torch.zeros(1)}, tmp_path / WEIGHTS)
    assert "1 of the tensors have no place in the network of its settings (extra.weight)" in refused(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    assert "holds no weights: diffusion_pytorch_model.safetensors, diffusion_pytorch_model.bin" in refused(tmp_path)
    shards(unet, tensors, safe=True)
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    listed = json.loads(index.read_text())["weight_map"]
    for change, said in (
        (
            {**listed, "other.weight": "diffusion_pytorch_model-00001-of-00002.safetensors"},
            "other.weight is in none of its files",
        ),
        (
            {name: file for name, file in listed.items() if name != "conv_in.bias"},
            "conv_in.bias is in its files and not in the list",
        ),
        ({"a": "../../secret.safetensors"}, "weight_map is no list of files"),
        ({"a": "gone.safetensors"}, "cannot be read: No such file"),
        ([], "weight_map is no list of files"),
    ):
        index.write_text(json.dumps({"weight_map": change}))
        assert said in refused(tmp_path)
    (tmp_path / "model_index.json").write_text('{"vqvae": ["diffusers", "VQModel"], "unet": ["diffusers", "UNet2DModel"]}')
    assert "model_index.json has vqvae beside unet and scheduler" in refused(tmp_path)
    (tmp_path / "model_index.json").unlink()
    scheduler = tmp_path / "scheduler/scheduler_config.json"
    scheduler.write_text("[" * 100_000)
    assert "cannot be read: it is nested deeper than 64 levels" in refused(tmp_path)
    scheduler.write_text("{}")
    assert "_class_name is missing" in refused(tmp_path)
    scheduler.unlink()
    assert "holds no scheduler/scheduler_config.json and no scheduler_config.json" in refused(tmp_path)
    (unet / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    assert "is of a UNet2DConditionModel: only UNet2DModel is read" in refused(tmp_path)


def test_numbers_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    diffusers.export(model(), tmp_path)
    settings, scheduler = tmp_path / "unet/config.json", tmp_path / "scheduler/scheduler_config.json"
    whole = settings.read_text()
    settings.write_text(json.dumps({**json.loads(whole), "num_class_embeds": 7}))
    assert "num_class_embeds is 7, and the weights' table of classes has 4 rows" in refused(tmp_path)
    settings.write_text(whole)
    for content, said in (
        ({"_class_name": "DPMSolverMultistepScheduler"}, "variance_type is that of no learned variance"),
        ({"_class_name": "DDIMScheduler"}, "has no variance_type to tell what the others are"),
    ):
        scheduler.write_text(json.dumps(content))
        (tmp_path / "model_index.json").unlink(missing_ok=True)
        assert said in refused(tmp_path)


def test_the_pipeline_tells_the_class_of_its_scheduler(tmp_path: Path) -> None:
    diffusers.export(model(), tmp_path)
    settings = {"_class_name": "DDIMScheduler", "variance_type": "learned_range", "solver_order": 3}
    (tmp_path / "scheduler/scheduler_config.json").write_text(json.dumps(settings))
    with pytest.warns(Note, match="is of DDIMScheduler, model_index.json of DPMSolverMultistepScheduler: the latter counts"):
        config, _ = diffusers.load(tmp_path)
    assert config.sampler.kind == "dpmpp" and config.sampler.order == 3


def test_an_export_comes_back_whole_and_gives_way_where_it_was_changed(tmp_path: Path) -> None:
    made = model(sampler={"kind": "ancestral"}, steps="90,60,60")
    diffusers.export(made, tmp_path)
    back, _ = diffusers.load(tmp_path)
    assert back == made.config.replace(denoiser=back.denoiser)
    scheduler = tmp_path / "scheduler/scheduler_config.json"
    scheduler.write_text(json.dumps({**json.loads(scheduler.read_text()), "rescale_betas_zero_snr": True}))
    changed, _ = diffusers.load(tmp_path)
    assert changed.schedule.zero_terminal_snr and changed.steps == "leading:1000"
    assert diffusers.load(tmp_path, Euler(), "trailing:3")[0].sampler == Euler()


def test_a_sampler_that_diffusers_has_not_is_told_and_kept_or_refused_where_it_was_asked_for(tmp_path: Path) -> None:
    unlimited, limited = model(sampler=Heun(), limit=None), model(sampler=Heun(reach=0.5))
    for made in (unlimited, limited):
        told = diffusers.export(made, tmp_path / "kept")
        assert (
            "UNet2DModel and DDPMScheduler, for DDPMPipeline; it samples with the chain's own steps, because diffusers' Heun"
            in told
        )
        assert diffusers.load(tmp_path / "kept")[0].sampler == made.config.sampler
    with pytest.raises(Problem, match="HeunDiscreteScheduler takes no learned variance"):
        diffusers.export(unlimited, tmp_path / "asked", Heun())
    assert not (tmp_path / "asked").exists()


def test_the_commands_say_in_which_form_and_with_which_sampler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> list[str]:
        with pytest.raises(SystemExit) as stop, warnings.catch_warnings():
            main([*words])
        out = capsys.readouterr()
        assert stop.value.code in (0, 2)
        return (out.out + out.err).splitlines()

    out = str(tmp_path / "out")
    form = "cifar10 as a folder of diffusers: UNet2DModel and {}, for {}"
    assert said("export", "cifar10", out) == [form.format("DPMSolverMultistepScheduler", "DDPMPipeline"), out]
    assert said("export", "cifar10", out, "--sampler", "ancestral") == [form.format("DDPMScheduler", "DDPMPipeline"), out]
    (line,) = said("export", "cifar10", str(tmp_path / "no"), "--sampler", "dpm_adaptive")
    assert "no scheduler that samples this model with 'dpm_adaptive'" in line and not (tmp_path / "no").exists()
    (line,) = said("export", "cifar10", "ada/repository", "--to", "hub", "--sampler", "ddim")
    assert "--sampler and --steps choose a scheduler of diffusers" in line
    lines = said("convert", out, "--out", str(tmp_path / "models"), "--steps", "trailing:7")
    told = f"{out} is a UNet2DModel of diffusers, sampled with ancestral:variance=null in steps trailing:7"
    assert lines == [told, str(tmp_path / "models/out.safetensors")]
    (line,) = said("convert", out, "--flag", "image_size=64")
    assert "a folder of diffusers has its own settings" in line


def settings_table(kind: type[Foreign]) -> list[str]:
    """The lines of docs/convert.md about a class: each setting with its default, and what becomes of it."""
    lines = ["| setting | default | |", "|---|---|---|"]
    for name, field in kind.model_fields.items():
        default = "none" if field.is_required() else json.dumps(field.get_default(call_default_factory=True))
        mark = next((mark for mark in field.metadata if isinstance(mark, Only | Idle)), None)
        text = "used"
        if isinstance(mark, Idle):
            text = f"no effect: {mark.why}"
        elif isinstance(mark, Only):
            allowed = ", ".join(json.dumps(value) for value in mark.values)
            text = f"{'used' if len(set(mark.values) - {False, None}) > 1 else 'read'} if {allowed}, else refused: {mark.why}"
        lines.append(f"| `{name}` | `{default}` | {text} |")
    return lines


def documented() -> str:
    """The part of docs/convert.md that is made of the code."""
    parts = []
    unclip = (PriorTransformer, UNet2DConditionModel, UnCLIPTextProjModel, UnCLIPScheduler)
    for kind in (
        UNet2DModel,
        *schedulers.SCHEDULERS.values(),
        *unclip,
        AutoencoderKL,
        VQModel,
        ModelFlags,
        ImprovedFlags,
        ClassifierFlags,
        VqVae2Flags,
    ):
        doc = (kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        parts.append("\n".join([f"### {kind.__name__}", "", doc, "", *settings_table(kind)]))
    refused_classes = [f"| `{name}` | {why} |" for name, why in schedulers.REFUSED.items()]
    parts.append("\n".join(["### Schedulers that are refused", "", "| class | because |", "|---|---|", *refused_classes]))
    return "\n\n".join(parts) + "\n"


def test_the_list_of_settings_is_that_of_the_code() -> None:
    """``python -m tests.conversion.test_foreign_settings`` writes it anew."""
    assert DOCS.read_text(encoding="utf-8").endswith("\n" + documented())


if __name__ == "__main__":
    text = DOCS.read_text(encoding="utf-8")
    DOCS.write_text(text[: text.index("### UNet2DModel")] + documented(), encoding="utf-8")
