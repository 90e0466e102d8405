"""Flags of guided-diffusion and improved-diffusion: how they are read, and the models that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lodestar.config import Problem
from lodestar.conversion import ADM
from lodestar.conversion.flags import own, parse
from lodestar.conversion.run import facts
from lodestar.core.prediction import X0
from lodestar.core.schedule import Cosine, Linear
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.presets import PUBLISHED
from lodestar.samplers import DDIM, Ancestral

from .foreign import SMALL, classifier_shapes, state, unet_shapes

COMMON = "--attention_resolutions 32,16,8 --learn_sigma True --resblock_updown True --use_scale_shift_norm True --use_fp16 True "
README = {
    "openai/adm-64": COMMON + "--class_cond True --dropout 0.1 --image_size 64 --noise_schedule cosine --num_channels 192 "
    "--num_head_channels 64 --num_res_blocks 3 --use_new_attention_order True",
    "openai/adm-128": COMMON + "--class_cond True --image_size 128 --num_channels 256 --num_heads 4 --num_res_blocks 2",
    "openai/adm-256-uncond": COMMON + "--class_cond False --image_size 256 --num_channels 256 --num_head_channels 64",
    "openai/adm-64-256": COMMON + "--class_cond True --large_size 256 --small_size 64 --num_channels 192 --num_heads 4",
    "openai/adm-128-classifier": "--image_size 128 --classifier_attention_resolutions 32,16,8 --classifier_depth 2 "
    "--classifier_width 128 --classifier_pool attention",
    "openai/iddpm-imagenet64": "--image_size 64 --num_channels 128 --num_res_blocks 3 --learn_sigma True "
    "--diffusion_steps 4000 --noise_schedule cosine",
}
"""Flags as the projects' READMEs state them."""


def told(config: Any) -> dict[str, Any]:
    """What the weights of a published model tell, as far as flags need it."""
    if isinstance(config, ClassifierModelConfig):
        return {"kind": "classifier", "network.in_channels": 3, "network.classes": 1000}
    network = {"denoiser.network.in_channels": config.denoiser.network.in_channels}
    return {"kind": "diffusion", **network, "denoiser.classes": config.denoiser.classes}


@pytest.mark.parametrize("name", README)
def test_published_command_lines_make_the_published_models(name: str) -> None:
    (published,) = (each for each in PUBLISHED if each.name == name)
    expected = published.model()
    code = "improved-diffusion" if "iddpm" in name else "guided-diffusion"
    made = own(parse([], README[name]), told(expected), code, "a.pt")
    if isinstance(expected, DiffusionConfig):
        assert isinstance(made, DiffusionConfig)
        # Names are ImageNet's, and how its author samples is not in every line.
        made = made.replace(names=expected.names, steps=expected.steps, sampler=expected.sampler)
    else:
        made = made.replace(names=expected.names)
    assert made == expected


MINE = {**SMALL, "use_scale_shift_norm": True, "resblock_updown": True}
FLAGS = "--image_size 8 --num_channels 8 --channel_mult 1,2 --num_res_blocks 1 --num_heads 2 --attention_resolutions 4 "
FLAGS += "--resblock_updown True --learn_sigma True"


def mine(*more: str, arguments: dict[str, Any] = MINE, code: str = "guided-diffusion") -> Any:
    return own(parse(more, FLAGS), facts(ADM, state(unet_shapes(arguments)), "a.pt"), code, "a.pt")


@pytest.mark.parametrize(
    ("flag", "path", "value"),
    [
        ("noise_schedule=cosine", "schedule", Cosine()),
        ("diffusion_steps=400", "steps", "400"),
        ("diffusion_steps=400", "schedule", Linear(timesteps=400)),
        ("rescale_timesteps=True", "schedule", Linear(rescale_time=True)),
        ("timestep_respacing=ddim25", "steps", "ddim25"),
        ("use_ddim=yes", "sampler", DDIM()),
        ("predict_xstart=True", "denoiser.prediction", X0()),
        ("use_new_attention_order=True", "denoiser.network.layout", "qkv_first"),
        ("num_head_channels=4", "denoiser.network.head_channels", 4),
        ("num_heads_upsample=1", "denoiser.network.up_heads", 1),
        ("dropout=0.3", "denoiser.network.dropout", 0.3),
        ("clip_denoised=False", "limit", None),
        ("lr=0.1", "sampler", Ancestral()),
        ("classifier_scale=3", "sampler", Ancestral()),
        ("classifier_depth=4", "denoiser.network.blocks", 1),
    ],
)
def test_every_flag_is_read(flag: str, path: str, value: Any) -> None:
    made = mine(flag)
    for name in path.split("."):
        made = getattr(made, name)
    assert made == value


def test_without_a_learned_variance_the_larger_one_is_taken_unless_told() -> None:
    fixed = {**MINE, "out_channels": 3}
    assert mine("learn_sigma=False", arguments=fixed).sampler == Ancestral(variance="large")
    assert mine("learn_sigma=False", "sigma_small=True", arguments=fixed).sampler == Ancestral(variance="small")


def test_defaults_are_those_of_the_code() -> None:
    assert mine(code="guided-diffusion").schedule == Linear()
    assert mine(code="improved-diffusion").schedule == Linear(rescale_time=True)
    with pytest.raises(Problem, match=r"unknown code 'guided-difusion'.*did you mean 'guided-diffusion'"):
        mine(code="guided-difusion")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["num_channels=16"], "a.pt is not what its flags say: num_channels: width is 8 in the weights, 16 by the flags"),
        (["channel_mult=1,1"], "channel_mult (or image_size, which it follows from): multipliers is 1,2 in the weights, 1,1"),
        (["num_res_blocks=2"], "num_res_blocks: blocks is 1 in the weights, 2"),
        (["attention_resolutions=8"], "attention_resolutions: attention is 2 in the weights, 1 by"),
        (["use_scale_shift_norm=False"], "use_scale_shift_norm: adaptive_norm is True in the weights, False"),
        (["resblock_updown=False"], "resblock_updown: resample is residual in the weights, conv"),
        (["learn_sigma=False"], "learn_sigma: out_channels is 6 in the weights, 3"),
        (["class_cond=True"], "class_cond: classes is none in the weights, 1000"),
        (["num_chanels=8"], "did you mean 'num_channels'?"),
        (["num_channels=many"], "num_channels is 'many'"),
        (["class_cond=perhaps"], "class_cond is 'perhaps'"),
        (["noise_schedule=sqrt"], "noise_schedule is 'sqrt'"),
        (["attention_resolutions=a"], "attention_resolutions is 'a': write numbers"),
        (["attention_resolutions=0"], "sides are at least 1"),
        (["channel_mult=", "image_size=48"], "image_size is 48: channel_mult has a default for 512, 256, 128, 64, 32 only"),
        (["image_size"], "write it as name=value"),
        (["num_heads=3"], "16 channels do not divide by 3"),
        (["timestep_respacing=x"], "steps 'x'"),
    ],
)
def test_what_is_wrong_with_flags_is_one_line(flags: list[str], said: str) -> None:
    with pytest.raises(Problem) as raised:
        mine(*flags)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_a_flag_left_out_that_the_weights_contradict_is_called_so() -> None:
    with pytest.raises(Problem, match=r"learn_sigma \(left at its default\)"):
        own(
            parse([], FLAGS.replace("--learn_sigma True", "")),
            facts(ADM, state(unet_shapes(MINE)), "a.pt"),
            "guided-diffusion",
            "a",
        )


def test_a_classifier_by_its_flags() -> None:
    arguments = {**SMALL, "channel_mult": [1, 2, 2, 2], "attention_resolutions": [2], "image_size": 32, "pool": "adaptive"}
    shapes = classifier_shapes({**arguments, "out_channels": 5, "use_scale_shift_norm": True})
    flags = ["classifier_depth=1", "classifier_width=8", "classifier_pool=adaptive", "classifier_resblock_updown=False"]
    common = ["image_size=32", "classifier_attention_resolutions=16", "num_channels=7"]
    weights = facts(ADM, state(shapes), "a.pt")
    with pytest.raises(Problem, match="do not divide by 64"):
        own(parse([*flags, *common]), weights, "guided-diffusion", "a.pt")
    with pytest.raises(Problem, match=r"classifier_width: width is 8 in the weights, 64 by the flags.*classifier_pool"):
        own(parse([*common, "classifier_width=64", "classifier_pool=attention"]), weights, "guided-diffusion", "a.pt")


@pytest.mark.parametrize(
    "text",
    [
        "--image_size 64 --class_cond True --lr 1e-4",
        "--image_size=64 --class_cond=True --lr=1e-4",
        "python scripts/image_train.py --data_dir x --image_size 64 \\\n --class_cond True --lr 1e-4 # comment",
        'MODEL_FLAGS="--image_size 64 --class_cond True"\nTRAIN_FLAGS="--lr 1e-4"\nmpiexec -n 8 python x.py $MODEL_FLAGS',
        "image_size=64\nclass_cond=True\nlr=1e-4\n",
        '{"image_size": 64, "class_cond": true, "lr": "1e-4"}',
    ],
)
@pytest.mark.parametrize("filed", [False, True])
def test_every_form_of_flags_is_read(text: str, filed: bool, tmp_path: Path) -> None:
    (tmp_path / "flags").write_text(text)
    flags = parse([], str(tmp_path / "flags") if filed else text)
    assert (flags["image_size"], flags["class_cond"].lower(), flags["lr"]) == ("64", "true", "1e-4")
    assert parse(["image_size=32"], text)["image_size"] == "32"


@pytest.mark.parametrize("text", ["nothing.txt", "--image_size '64", "{a}"])
def test_what_is_no_flags_is_refused(text: str) -> None:
    with pytest.raises(Problem, match=r"no file, and no flags|cannot be read as a command line|not JSON"):
        parse([], text)
