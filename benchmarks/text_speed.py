"""Speed of what texts cost: a network that is told one, guidance by a CLIP, GLIDE's base network, and a prompt from the command
line. Weights are random, of the sizes of the presets.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from common import Goal, Setting, childrens_time, chosen, own_time, seconds
from networks import TIME, ours, published_glide, states
from rich.table import Table
from speed import compared
from start import run
from torch.nn.functional import scaled_dot_product_attention as sdpa

from lodestar.generators.diffusion import Diffusion
from lodestar.models.clip import PictureClip
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.attention import Masked, attend
from lodestar.nets.precision import PRECISIONS
from lodestar.nets.unet import UNetConfig
from lodestar.presets import RUNS
from lodestar.tasks import TrainClip, TrainDenoiser

CAPTION = "a large red circle"
STEPS = 8
GUIDED = {"clip:2": 1.6, "clip:2,sees=clean,cuts=8": None}
"""Guidance, and the target of a step's time against one without."""


def config_of(preset: str) -> DiffusionConfig:
    """The configuration of a preset's diffusion model."""
    task = RUNS[preset]().task
    assert isinstance(task, TrainDenoiser)
    return task.model


def network_of(preset: str) -> UNetConfig:
    """The configuration of a preset's network."""
    network = config_of(preset).denoiser.network
    assert isinstance(network, UNetConfig)
    return network


def shapes_model(format: str) -> Diffusion:
    """The text-to-image model of shapes in a format."""
    config = config_of("shapes.text")
    network = ours(format, network_of("shapes.text"))
    model = Diffusion(config.replace(denoiser=config.denoiser.replace(network=network.config)))
    model.denoiser.network, model.denoiser.dtype = network, PRECISIONS[format]
    return model.eval().requires_grad_(False)


def text(setting: Setting) -> Iterator[Table | Goal]:
    """A network that is told a text against the same one without, in float32 and in the format that is chosen by itself."""
    table = Table("format", "batch", "ms without", "ms with", "times", title="a text, 32×32, network of shapes.text")
    for name in dict.fromkeys(("float32", chosen())):
        for batch, took in step_times(name, setting.batches, setting.repeats * 3):
            ratio = took["with"] / took["without"]
            table.add_row(name, str(batch), *(f"{1e3 * each:.1f}" for each in took.values()), f"{ratio:.2f}")
            yield Goal(f"a step with a text, batch {batch}, {name}, against one without", ratio, 1.15, 1.15, most=True)
    yield table


@torch.inference_mode()
def step_times(format: str, batches: tuple[int, ...], repeats: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Batches, and the seconds of a forward pass without and with a text."""
    config, dtype = network_of("shapes.text"), PRECISIONS[format]
    plain, told = ours(format, config.listening(None)), ours(format, config)
    for batch in batches:
        x, t = torch.randn(batch, 3, 32, 32), torch.full((batch,), TIME)
        emb, tokens = torch.randn(batch, config.emb_width), states(config, batch)
        calls = {
            "without": partial(plain, x, t, None, dtype),
            "with": partial(told, x, t, emb, dtype, tokens=tokens),
        }
        yield batch, seconds(calls, repeats, clock=own_time)


def masked(setting: Setting) -> Iterator[Table]:
    """Attention to a picture's places and to texts of several lengths, and its gradient, against PyTorch's, in bfloat16."""
    table = Table("places", "batch", "way", "PyTorch's, ms", "ours, ms", "times", title="attention to masked texts, emoji.text")
    config, network = config_of("emoji.text"), network_of("emoji.text")
    assert config.denoiser.text is not None
    length = config.denoiser.text.context
    for level, width in enumerate(network.widths):
        if 2**level not in network.attention:
            continue
        places, heads = (config.size[0] // 2**level) ** 2, width // network.head_channels
        for batch in setting.batches:
            given = [torch.randn(batch, rows, width * each, dtype=torch.bfloat16) for rows, each in ((places, 3), (length, 2))]
            qkv, text = (each.requires_grad_() for each in given)
            mask = torch.arange(length) < torch.randint(3, 12, (batch, 1))  # as long as names of emoji are
            back = torch.randn(batch, places, width, dtype=torch.bfloat16)

            def forward(ours: bool, qkv=qkv, text=text, mask=mask, heads=heads) -> torch.Tensor:
                masked = Masked(mask)
                gather = masked if ours else lambda q, k, v: sdpa(q, k, v, attn_mask=masked.allowed(q.shape[2], k.shape[2]))
                return attend(qkv, heads, "qkv_first", gather, text)

            def both(ours: bool, forward=forward, qkv=qkv, text=text, back=back) -> object:
                return torch.autograd.grad(forward(ours), (qkv, text), back)

            for name, call in (("forward", forward), ("and back", both)):
                took = seconds({"theirs": partial(call, False), "ours": partial(call, True)}, setting.repeats * 3, clock=own_time)
                theirs, ours = took.values()
                row = f"{1e3 * theirs:.1f}", f"{1e3 * ours:.1f}", f"{theirs / ours:.1f}"
                table.add_row(str(places), str(batch), name, *row)
    yield table


def guided(setting: Setting) -> Iterator[Table | Goal]:
    """Sampling with guidance by a CLIP of noised pictures against sampling without, in the format that is chosen by itself."""
    table = Table("guidance", "batch", "ms a step", "times", title=f"CLIP guidance, 32×32, {STEPS} steps, {chosen()}")
    task = RUNS["shapes.clip_noised"]().task
    assert isinstance(task, TrainClip)
    model, clip = shapes_model(chosen()), PictureClip(task.model).eval().requires_grad_(False)
    clip.lower(PRECISIONS[chosen()])
    for batch in setting.batches:
        how = {"prompt": CAPTION, "count": batch, "batch_size": batch, "steps": STEPS, "sampler": "ddim"}
        calls = {
            "none": lambda how=how: model.sample(**how),
            **{name: lambda how=how, name=name: model.sample(**how, guidance=name, guides={"clip": clip}) for name in GUIDED},
        }
        took = seconds(calls, max(setting.repeats // 2, 1), clock=own_time)
        for name, each in took.items():
            ratio = each / took["none"]
            table.add_row(name, str(batch), f"{1e3 * each / STEPS:.1f}", f"{ratio:.2f}")
            if (target := GUIDED.get(name)) is not None:
                yield Goal(f"a step with {name}, batch {batch}, against one without", ratio, target, target, most=True)
    yield table


def glide(setting: Setting) -> Iterator[Table | Goal]:
    """A forward pass of GLIDE's base network, batch 2, against glide-text2im's in float32; texts are encoded beforehand."""
    if setting.glide is None:
        raise ImportError("it needs --glide PATH, a checkout of openai/glide-text2im")
    config, against = network_of("glide.base"), "glide-text2im, float32"
    network, batch, places = published_glide(setting.glide), 2, 128
    given = {"tokens": torch.randint(0, 50_000, (batch, places)), "mask": torch.ones(batch, places, dtype=torch.bool)}
    table = Table("network", "batch", "pictures/s", "times", "error against our float32", title="GLIDE's base network, 64×64")
    tokens = states(config, batch, places)
    rows = list(compared(lambda x, t: network(x, t, **given), against, config, 64, batch, max(setting.repeats // 3, 1), tokens))
    for name, _, _, ratio, _ in rows:
        if name == chosen():
            yield Goal(f"GLIDE's base network, batch {batch}, {name}, against glide-text2im", float(ratio), 2.0, 2.0)
        if name == "float32":
            yield Goal(f"GLIDE's base network, batch {batch}, float32, against glide-text2im", float(ratio), 1.1, 1.1)
    for row in rows:
        table.add_row(*row)
    yield table


def prompt(setting: Setting) -> Iterator[Table | Goal]:
    """Pictures of a prompt from the command line, from the start of Python to the files, as the model samples by itself."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = shapes_model(chosen()).save(Path(folder) / "shapes.safetensors"), Path(folder) / "out"
        command = ["sample", str(path), "--prompt", CAPTION, "--count", "8", "--out", str(out)]
        calls = {
            "8 pictures of a prompt": lambda: run([sys.executable, "-m", "lodestar", *command]),
            "import torch": lambda: run([sys.executable, "-c", "import torch"]),
        }
        took = seconds(calls, max(setting.repeats // 2, 1), clock=childrens_time)
    table = Table("process", "seconds", title=f"a prompt from the command line, {torch.get_num_threads()} threads")
    for name, each in took.items():
        table.add_row(name, f"{each:.2f}")
    yield table
    yield Goal("8 pictures of shapes from a prompt, in seconds", took["8 pictures of a prompt"], 4.0, 4.0, most=True)
