"""Adapters for Karlo: its networks by their state dicts, its sampling on toy networks, its published files by their keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lodestar.conditions import LowRes
from lodestar.conditions.clip_text import ClipTextEncoder
from lodestar.conditions.text import NOTHING
from lodestar.config import decode
from lodestar.conversion import FAMILIES
from lodestar.conversion.adm import unet_config
from lodestar.conversion.family import check, recognize
from lodestar.conversion.karlo import decoder, prior, upsampler
from lodestar.conversion.run import facts, ours
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level
from lodestar.core.plan import parse_plan
from lodestar.core.prediction import X0, Epsilon
from lodestar.core.schedule import AnySchedule, Cosine
from lodestar.core.transition import Transition
from lodestar.denoiser import DenoiserConfig
from lodestar.guidance import CFG, Clamp, Context, compose
from lodestar.models.diffusion import DiffusionConfig, DiffusionModel
from lodestar.presets import PUBLISHED
from lodestar.samplers import DDIM, Ancestral

from .glide import Given
from .glide import said as with_variance
from .harness import Case, Check, Left, adapter
from .networks import edited, said
from .processes import _tape, _times, _toy

LEVEL = (0.6, 0.8)
"""Any α and σ: networks are told the time alone."""


def model(case: Case, config: DiffusionConfig, state: dict[str, Tensor]) -> DiffusionModel:
    """The model of a case's state dict, of which names and shapes agree with its arguments."""
    family = recognize(FAMILIES, state, case.path.name)
    check(config, facts(family, state, case.path.name), case.path.name, "its constructor's arguments")
    built = config.build().eval()
    built.load_state_dict(ours(family, config, state, case.path.name))
    return built


def tell(built: DiffusionModel, states: Tensor, embeddings: Tensor, mask: Tensor) -> Tensor:
    """Tokens of texts whose states and embeddings are recorded: their numbers, by which a tower finds them."""
    encoder = built.denoiser.clip_text
    assert isinstance(encoder, ClipTextEncoder)
    encoder.tower = lambda tokens: (states[tokens.amax(dim=1)], embeddings[tokens.amax(dim=1)])
    return torch.arange(len(mask))[:, None].where(mask, NOTHING)


def steps_of(settings: dict[str, Any], respacing: str) -> list[Transition]:
    schedule = decode(AnySchedule, {"kind": settings["noise_schedule"], "timesteps": settings["steps"]})
    return parse_plan(respacing or str(settings["steps"])).steps(schedule)


def guided(cond: Denoise, null: Denoise, scale: float, limit: float | None = None) -> Denoise:
    context = Context(plain=cond, null=null, pair=lambda x, level: (cond(x, level), null(x, level)))
    return compose([CFG(scale=scale), *([] if limit is None else [Clamp(limit=limit)])], context)


@adapter("ka_prior")
@torch.no_grad()
def karlo_prior(case: Case) -> Iterator[Check | Left]:
    inputs, arguments = case.inputs, case.config["model"]["hparams"]
    config = prior(arguments, Given(size=2), inputs["text_enc"].shape[-1])
    statistics = {"statistics.0": inputs["clip_mean"], "statistics.1": inputs["clip_std"]}
    built = model(case, config, {**case.state, **statistics})
    denoiser = built.denoiser
    given = tell(built, inputs["text_enc"], inputs["text_emb"], inputs["mask"])
    x = inputs["x"][:, :, None, None]
    yield Check("out", said(denoiser, x, inputs["timesteps"], {"clip_text": given}).flatten(1))

    # The rows of the second half are of the unconditional text.
    given = tell(built, inputs["sample.txt_feat_seq"], inputs["sample.txt_feat"], inputs["sample.mask"])
    half, scales = len(given) // 2, inputs["sample.cf_guidance_scales"]
    x, times = inputs["guided.x"], inputs["guided.timesteps"]
    rows, samples = [], []
    steps = steps_of(case.config["diffusion"], case.config["sampling"]["timestep_respacing"])
    for row in range(half):
        cond, null = (denoiser.bind({"clip_text": given[each : each + 1]}) for each in (row, half + row))
        denoise = guided(cond, null, float(scales[row]))
        rows.append(denoise(x[row : row + 1, :, None, None], Level(float(times[row]), *LEVEL)).x0)
        # A row's noise is its own, and every step draws once.
        for each in (row, half + row):
            noise = inputs["sample.noise_steps"][:, each : each + 1, :, None, None]
            limited = guided(cond, null, float(scales[row]), config.limit.limit)  # type: ignore[union-attr]
            start = inputs["sample.noise_init"][[row, each]][:, :, None, None]
            samples.append((each, _karlo_half(limited, start, steps, noise, inputs, row, each)))
    yield Check("guided.out", torch.cat([torch.cat(rows)] * 2).flatten(1))
    normalized = torch.cat([sample for _, sample in sorted(samples, key=lambda each: each[0])])
    yield Check("sample.normalized", normalized.flatten(1))
    yield Check("sample.img_feat", built.codec.decode(normalized[:half]).flatten(1))


def _karlo_half(
    denoise: Denoise, start: Tensor, steps: list[Transition], noise: Tensor, inputs: dict[str, Tensor], row: int, each: int
) -> Tensor:
    """A row of either half: both follow the estimate at the first half's x."""
    first = inputs["sample.noise_steps"][:, row : row + 1, :, None, None]
    both = torch.cat([first, noise], dim=1)

    def doubled(x: Tensor, level: Level) -> Estimate:
        x0 = denoise(x[:1], level).x0
        return Estimate(x, level, torch.cat([x0, x0]))

    *_, final = Ancestral()(doubled, start, steps, _tape(both))
    return final.x[1:]


@adapter("ka_dec")
@torch.no_grad()
def karlo_decoder(case: Case) -> Iterator[Check | Left]:
    inputs, arguments = case.inputs, case.config["model"]["hparams"]
    built = model(case, decoder(arguments, Given(size=2), inputs["txt_feat_seq"].shape[-1]), case.state)
    given = tell(built, inputs["txt_feat_seq"], inputs["txt_feat"], inputs["mask"])
    signals = built.denoiser.encode({"clip_text": given, "embedding": inputs["y"]})
    yield Check("out", with_variance(built.denoiser, inputs["x"], inputs["timesteps"], signals))

    given = tell(built, *(inputs[f"guided.{name}"] for name in ("txt_feat_seq", "txt_feat", "mask")))
    half, x, times = len(given) // 2, inputs["guided.x"], inputs["guided.timesteps"]
    eps, fracs = [], []
    for row in range(half):
        one = slice(row, row + 1)
        cond = {"clip_text": given[one], "embedding": inputs["guided.img_feat"][one]}
        bound = built.denoiser.bind(cond, null=built.denoiser.encode({"clip_text": given[half + row : half + row + 1]}, count=1))
        level = Level(float(times[row]), *LEVEL)
        denoise = guided(bound, bound.unconditional(), float(inputs["guided.cf_guidance_scales"][row]))
        eps.append(denoise(x[one], level).eps)
        fracs.append([each.frac for each in bound.pair(x[one], level)])
    both = torch.cat([torch.cat(each) for each in zip(*fracs, strict=True)])
    yield Check("guided.out", torch.cat([torch.cat(eps * 2), both], dim=1))


@adapter("ka_sr")
@torch.no_grad()
def karlo_upsampler(case: Case) -> Iterator[Check | Left]:
    inputs, arguments = case.inputs, case.config["model"]["hparams"]
    size = inputs["x"].shape[-1]
    built = model(case, upsampler(arguments, size, size), case.state)
    network = built.denoiser.network
    x = torch.cat([inputs["x"], inputs["low_res"]], dim=1)
    yield Check("first_steps.out", network.first(x, inputs["timesteps"]))
    yield Check("last_step.out", network.last(x, inputs["timesteps"]))
    steps = steps_of(case.config["diffusion"], case.config["sampling"]["timestep_respacing"])
    denoise = compose([Clamp()], Context(plain=built.denoiser.bind({"low_res": inputs["sample.low_res"]})))
    states = Ancestral()(denoise, inputs["sample.noise_init"], steps, _tape(inputs["sample.noise_steps"]))
    yield Check("sample.steps", torch.stack([state.x for state in states]))


@adapter("ka_srnet")
@torch.no_grad()
def karlo_network(case: Case) -> Iterator[Check | Left]:
    inputs, arguments = case.inputs, dict(case.config)
    middle = arguments.pop("use_middle_attention")
    arguments = {name: value for name, value in arguments.items() if name not in _UNUSED}
    network = unet_config(arguments).replace(middle_attention=middle, in_channels=2 * arguments["in_channels"])
    low_res = LowRes(size=tuple(inputs["low_res"].shape[-2:]), enlarging="bicubic")
    preset = DiffusionConfig(denoiser=DenoiserConfig(network=network, conditions=(low_res,)))
    family = recognize(FAMILIES, case.state, case.path.name)
    config = edited(preset, facts(family, case.state, case.path.name))
    assert config == preset
    built = model(case, preset, case.state)
    yield Check("out", said(built.denoiser, inputs["x"], inputs["timesteps"], {"low_res": inputs["low_res"]}))


_UNUSED = {"clip_dim", "encoder_channels", "use_time_embedding"}
"""Arguments of networks that are told something."""


# --------------------------------------------------------------------------------------------------------------- on toys


@adapter("cfg_karlo_prior")
def toy_prior(case: Case) -> Iterator[Check | Left]:
    network, inputs = _toy(case, "net", gain=6.0), case.inputs
    label = inputs["text_emb"].mean(dim=1)
    scales = inputs["cf_guidance_scales"]
    half = len(scales)
    for name, settings in case.subcases.items():
        steps = steps_of(case.config, settings["timestep_respacing"])
        sampler = DDIM() if name.startswith("ddim") else Ancestral()
        found, seen = [], []
        for row in range(half):
            cond, null = (_clean(network, label[each : each + 1]) for each in (row, half + row))
            visited: list[Tensor] = []

            def recorded(x: Tensor, level: Level, inner: Denoise = cond, into: list[Tensor] = visited) -> Estimate:
                into.append(x)
                return inner(x, level)

            denoise = guided(recorded, null, float(scales[row]), 10.0)
            noise = inputs[f"{name}/noise"][:, row : row + 1, :, None, None]
            *_, final = sampler(denoise, noise[0], steps, _tape(noise[1:]))
            found.append(final.x.flatten(1) * inputs["clip_std"] + inputs["clip_mean"])
            seen.append(torch.stack(visited).flatten(2))
        yield Check(f"{name}/image_embedding", torch.cat(found))
        yield Check(f"{name}/x_t", torch.cat(seen, dim=1))
        yield Check(f"{name}/model_t", _times(steps).flip(0))


def _clean(network: Any, label: Tensor) -> Denoise:
    return lambda x, level: Estimate(x, level, X0().x0(network(x, level.time, label).view_as(x), x, level))


@adapter("cfg_karlo_decoder")
def toy_decoder(case: Case) -> Iterator[Check | Left]:
    network, inputs = _toy(case, "net"), case.inputs
    scales = inputs["cf_guidance_scales"]
    half = len(scales)
    pictures = torch.cat([inputs["img_feat"], inputs["cf_param"].expand(half, -1)])
    label = pictures.mean(dim=1) + inputs["txt_feat"].mean(dim=1)
    steps = steps_of(case.config, case.config["timestep_respacing"])

    def told(label: Tensor) -> Denoise:
        def denoise(x: Tensor, level: Level) -> Estimate:
            eps, frac = network(x, level.time, label).chunk(2, dim=1)
            return Estimate(x, level, Epsilon().x0(eps, x, level), frac)

        return denoise

    rows = []
    for row in range(half):
        denoise = guided(told(label[row : row + 1]), told(label[half + row : half + row + 1]), float(scales[row]), 1.0)
        noise = inputs["noise"][:, row : row + 1]
        rows.append(torch.stack([state.x for state in Ancestral()(denoise, noise[0], steps, _tape(noise[1:]))]))
    yield Check("sample", torch.cat(rows, dim=1))
    yield Check("model_t", _times(steps).flip(0))


@adapter("cfg_karlo_sr")
def toy_upsampler(case: Case) -> Iterator[Check | Left]:
    inputs, first, last = case.inputs, _toy(case, "first"), _toy(case, "last")
    steps = steps_of(case.config, case.config["timestep_respacing"])

    def plain(x: Tensor, level: Level) -> Estimate:
        network = last if level.time == 0 else first
        eps = network(torch.cat([x, inputs["low_res"]], dim=1), level.time)
        return Estimate(x, level, Epsilon().x0(eps, x, level))

    denoise = compose([Clamp()], Context(plain=plain))
    noise = inputs["noise"]
    yield Check("sample", torch.stack([state.x for state in Ancestral()(denoise, noise[0], steps, _tape(noise[1:]))]))
    yield Check("model_t", _times(steps).flip(0))
    small = inputs["resize/image"]
    low_res = LowRes(size=tuple(small.shape[-2:]), enlarging="bicubic")
    yield Check("resize/bicubic_antialias", low_res.enlarge(small, case.outputs["resize/bicubic_antialias"].shape[-2:]))
    yield Left("resize/bicubic_plain", "recorded for contrast")


@adapter("manifest karlo")
def manifest(case: Case) -> Iterator[Check | Left]:
    """The preset of a published model builds its keys and shapes, each of them once; on the meta device."""
    published = next(each for each in PUBLISHED if each.url == case.meta["checkpoint"])
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in case.meta["keys"].items()}
        statistics = {"statistics.0": torch.empty(768), "statistics.1": torch.empty(768)} if published.others else {}
    whole = {**state, **statistics}
    family = recognize(FAMILIES, whole, published.file)
    assert family is published.family
    config = published.model()
    assert isinstance(config, DiffusionConfig) and config.schedule == Cosine()
    check(config, facts(family, whole, published.file), published.file, published.name)
    hparams = case.config["model"]["hparams"]
    made = {"karlo-prior": prior, "karlo-decoder": decoder, "karlo-upsampler": upsampler}[family.name](hparams)
    assert made == config
    mapped = ours(family, config, whole, published.file)
    count = sum(each.numel() for name, each in mapped.items() if not name.startswith("codec."))
    yield Check("tensors", torch.tensor(len(state)))
    yield Check("params_total", torch.tensor(count))
