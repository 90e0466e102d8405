"""Adapters for GLIDE: its networks by their state dicts, its published files by their keys, and the two tokenizers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from lodestar.conditions import Condition, LowRes, Masked, TextCondition
from lodestar.conditions.text import NOTHING
from lodestar.conversion import FAMILIES
from lodestar.conversion.family import check, recognize
from lodestar.conversion.glide import configs
from lodestar.conversion.run import facts, ours
from lodestar.core.level import Level
from lodestar.denoiser import Denoiser, DenoiserConfig
from lodestar.guidance import CFG, Context, compose
from lodestar.models.diffusion import DiffusionConfig
from lodestar.presets import PUBLISHED
from lodestar.text import KINDS, ClipTokenizer, GlideTokenizer, Tokenizer

from .clip import glide_manifest
from .harness import Case, Check, Left, adapter


@KINDS.register
class Given(Tokenizer):
    """Tokens that are given: nothing is encoded."""

    kind: Literal["given"] = "given"
    size: int

    @property
    def vocabulary(self) -> int:
        return self.size

    @property
    def pad(self) -> int:
        return self.size - 1

    def encode(self, text: str) -> list[int]:
        raise AssertionError


def model(case: Case) -> Denoiser:
    """The denoiser of a case's state dict, of which names and shapes agree with its arguments."""
    network, text = configs(case.config)
    conditions: list[Condition] = [TextCondition(tokenizer=Given(size=case.config["n_vocab"]), network=text)]
    conditions += [Masked()] if "inpaint_image" in case.inputs else []
    conditions += [LowRes(size=tuple(case.inputs["low_res"].shape[-2:]))] if "low_res" in case.inputs else []
    config = DiffusionConfig(
        denoiser=DenoiserConfig(
            network=network, variance="learned_range", channels=case.config["in_channels"], conditions=tuple(conditions)
        )
    )
    family = recognize(FAMILIES, case.state, case.path.name)
    assert family.name == "glide-text2im"
    check(config, facts(family, case.state, case.path.name), case.path.name, "its constructor's arguments")
    built = config.build().eval()
    built.load_state_dict(ours(family, config, case.state, case.path.name))
    return built.denoiser


def given(case: Case, call: str = "", rows: slice = slice(None), mask: str | None = None) -> dict[str, Tensor]:
    """The conditions of a call, as the denoiser takes them."""
    inputs = {
        name.removeprefix(call): tensor[rows] for name, tensor in case.inputs.items() if tensor.ndim and name.startswith(call)
    }
    tokens = inputs.get("tokens", case.inputs["tokens"])
    cond = {"text": tokens.where(case.inputs[mask] if mask else inputs["mask"], NOTHING)}
    if "inpaint_image" in inputs:
        cond["masked"] = torch.cat([inputs["inpaint_image"] * inputs["inpaint_mask"], inputs["inpaint_mask"]], dim=1)
    if "low_res" in inputs:
        cond["low_res"] = inputs["low_res"]
    return cond


def said(denoiser: Denoiser, x: Tensor, time: Tensor, signals: Any) -> Tensor:
    output = denoiser.output(x, Level(time.double(), time.double(), time.double()), signals)
    return torch.cat([output.value, output.frac], dim=1)


@adapter("gl_t2i", "gl_inp", "gl_sr", "gl_srinp")
@torch.no_grad()
def glide(case: Case) -> Iterator[Check | Left]:
    denoiser, inputs = model(case), case.inputs
    signals = denoiser.encode(given(case))
    for name in case.outputs:
        match name:
            case "xf_proj":
                yield Check(name, signals.emb)
            case "xf_out":
                yield Check(name, signals.tokens.transpose(1, 2))
            case "out":
                yield Check(name, said(denoiser, inputs["x"], inputs["timesteps"], signals))
            case "second.out":
                yield Check(name, said(denoiser, inputs["second.x"], inputs["second.timesteps"], signals))
            case "second_uncached.out":
                again = denoiser.encode(given(case, mask="second.mask"))
                yield Check(name, said(denoiser, inputs["second.x"], inputs["second.timesteps"], again))
            case "none.out":
                nothing = given(case)
                nothing["masked"] = torch.zeros_like(nothing["masked"])
                yield Check(name, said(denoiser, inputs["x"], inputs["timesteps"], denoiser.encode(nothing)))
            case "guided.out":
                yield Check(name, guided(case, denoiser))


def guided(case: Case, denoiser: Denoiser) -> Tensor:
    """The notebooks' function: ε of both halves is guided, and the rest of each half is its own."""
    x, times = case.inputs["guided.x"], case.inputs["guided.timesteps"]
    half = len(x) // 2
    assert not case.inputs["guided.mask"][half:].any(), "the second half is told no text"
    cond = given(case, "guided.", slice(half))
    null = denoiser.null({name: tensor for name, tensor in cond.items() if name != "text"}, half)
    (time,) = times[:half].unique().tolist()
    level = Level(float(time), 0.6, 0.8)  # any level does
    bound = denoiser.bind(cond, null=null)
    context = Context(plain=bound, null=bound.unconditional(), pair=bound.pair)
    denoise = compose([CFG(scale=float(case.inputs["guided.guidance_scale"]))], context)
    eps = denoise(x[:half], level).eps
    fracs = torch.cat([each.frac for each in bound.pair(x[:half], level)])
    return torch.cat([torch.cat([eps, eps]), fracs], dim=1)


@adapter("manifest glide-text2im")
def manifest(case: Case) -> Iterator[Check | Left]:
    """The preset of a published model builds its keys and shapes, each of them once; on the meta device."""
    if "text_ctx" not in case.config.get("constructor_kwargs", {}):
        yield from glide_manifest(case)
        return
    published = next(each for each in PUBLISHED if each.url == case.meta["checkpoint"])
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in case.meta["keys"].items()}
    family = recognize(FAMILIES, state, published.file)
    assert family is published.family
    config = published.model()
    check(config, facts(family, state, published.file), published.file, published.name)
    network, text = configs(case.config["constructor_kwargs"])
    planes = config.denoiser.network.in_channels
    assert config.denoiser.network == network.replace(context=text.width, in_channels=planes)
    assert config.denoiser.text.network == text
    mapped = ours(family, config, state, published.file)
    yield Check("tensors", torch.tensor(len(mapped)))
    yield Check("params_total", torch.tensor(sum(tensor.numel() for tensor in mapped.values())))


@adapter("tokenizers")
def tokenizers(case: Case) -> Iterator[Check | Left]:
    """Every string, by vocabulary files that lie in the folder ``data/vocab`` beside the recorded outputs."""
    folder = case.path.parents[2] / "data" / "vocab"
    if not folder.is_dir():
        yield from (Left(name, f"no vocabulary files in {folder}") for name in case.outputs)
        return
    glide, clip = GlideTokenizer(folder=str(folder)), ClipTokenizer(folder=str(folder))
    mending = importlib.util.find_spec("ftfy") is not None
    for number, each in enumerate(case.meta["cases"]):
        text = each["text"]
        yield Check(f"{number}/glide", torch.tensor(glide.encode(text), dtype=torch.int64))
        yield Check(f"{number}/glide_128", torch.stack([row[0].long() for row in glide.batch([text], 128, cut=True)]))
        mended = not (text.isascii() and text.isprintable() and "&" not in text)
        if mended and not mending:
            yield from (Left(f"{number}/{name}", "ftfy is not installed") for name in ("clip", "clip_77", "clip_long"))
            continue
        yield Check(f"{number}/clip", torch.tensor(clip.encode(text), dtype=torch.int64))
        tokens, mask = clip.batch([text], 77, cut=True)
        yield Check(f"{number}/clip_77", torch.cat([tokens[0], mask.sum().view(1)]))
        yield Check(f"{number}/clip_long", torch.tensor(int(not clip.fits(text, 77))))
