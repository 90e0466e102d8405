"""Forward passes and training steps against those of other projects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from common import CPU, FORMATS, Goal, Setting, chosen, own_time, seconds
from networks import CIFAR_SIZE, TIME, adm64, ours, published, theirs
from rich.table import Table
from torch import Tensor, nn

from lodestar.nets.precision import PRECISIONS, choose_dtype
from lodestar.nets.unet import UNetConfig
from lodestar.training.ema import Average, Decay
from lodestar.training.update import Move, update

FORWARD = {"float32": (1.0, 1.0), "bfloat16": (2.2, 6.5), "int8": (3.3, 6.5)}
"""Targets of forward passes by format, without and with matrix tiles; by itself, those of the format with the highest."""

Call = Callable[[Tensor, Tensor], Tensor]


def formats(config: UNetConfig, tokens: Tensor | None = None) -> Iterator[tuple[str, Call]]:
    """Our network in every format; tokens: the states of texts, for one that is told them."""
    for name in FORMATS:
        network, dtype = ours(name, config), PRECISIONS[name]
        yield name, lambda x, t, network=network, dtype=dtype: network(x, t, None, dtype, tokens=tokens)


def compared(
    other: Call | None, against: str, config: UNetConfig, size: int, batch: int, repeats: int, tokens: Tensor | None = None
) -> Iterator[tuple[str, ...]]:
    """Rows of pictures a second, times as fast as the other network, and the error against our float32, by format."""
    x, t = torch.randn(batch, 3, size, size), torch.full((batch,), TIME)
    networks = dict(formats(config, tokens))
    with torch.inference_mode():
        all_ = {**({} if other is None else {against: other}), **networks}
        took = seconds({name: lambda call=call: call(x, t) for name, call in all_.items()}, repeats, clock=own_time)
        exact = networks["float32"](x, t)
        base = took.get(against, took["float32"])
        for name, each in took.items():
            error = ((networks[name](x, t) - exact).norm() / exact.norm()).item() if name in networks else None
            yield name, str(batch), f"{batch / each:.2f}", f"{base / each:.2f}", "" if error is None else f"{error:.1e}"


def _goals(rows: list[tuple[str, ...]], what: str, targets: dict[str, tuple[float, float]]) -> Iterator[Goal]:
    ratios = {name: float(ratio) for name, _, _, ratio, _ in rows}
    yield Goal(f"{what}, by itself ({chosen()})", ratios[chosen()], *max(targets.values()))
    for name in FORMATS:
        if name in targets and name != "float32":
            yield Goal(f"{what}, {name}", ratios[name], *targets[name])


def forward(setting: Setting) -> Iterator[Table | Goal]:
    """A forward pass at batch 8 and 32 against diffusers' in float32."""
    table = Table("network", "batch", "pictures/s", "× diffusers", "error against our float32", title="forward pass, 32×32")
    network = theirs().eval().requires_grad_(False)
    for batch in (8, 32):
        other = lambda x, t: network(x, t).sample  # noqa: E731
        rows = list(compared(other, "diffusers, float32", CIFAR_SIZE, 32, batch, setting.repeats))
        for row in rows:
            table.add_row(*row)
        yield from _goals(rows, f"forward, batch {batch}, against diffusers", FORWARD)
    yield table


def adm(setting: Setting) -> Iterator[Table | Goal]:
    """A forward pass of the published ADM at 64×64, batch 4, against guided-diffusion's in float32."""
    other, against = None, "guided-diffusion, float32"
    if setting.guided_diffusion is not None:
        other = published(setting.guided_diffusion).eval().requires_grad_(False)
    title = (
        "ADM at 64×64" if other is not None else "ADM at 64×64; guided-diffusion skipped (--guided-diffusion PATH): × our float32"
    )
    table = Table("network", "batch", "pictures/s", "times", "error against our float32", title=title)
    rows = list(compared(other, against, adm64(), 64, 4, max(setting.repeats // 2, 2)))
    for row in rows:
        table.add_row(*row)
    if other is not None:
        yield from _goals(rows, "ADM at 64×64, batch 4, against guided-diffusion", {chosen(): (4.0, 6.0)})
    yield table


def stepper(network: nn.Module, call: Call, batch: int, ours: bool = True) -> Callable[[], None]:
    """A training step: forward, backward, AdamW, one average; the last two by our kernel, or as PyTorch does by default."""
    x, t, target = torch.randn(batch, 3, 32, 32), torch.rand(batch) * 1000, torch.randn(batch, 6, 32, 32)
    parameters = list(network.parameters())
    average = Average(Decay(decay=0.999), parameters)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=ours)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (call(x, t) - target).square().mean().backward()
        if ours:
            update(Move(optimizer, None, torch.tensor(0.0)), parameters, [(average, 1e-3)])
        else:
            optimizer.step()
            average.toward(parameters, 1e-3)

    return step


def our_step(batch: int, compiled: bool = False) -> Callable[[], None]:
    """A training step of ours, in the format that is chosen by itself; with `torch.compile`, if asked, on its first call."""
    network, dtype = ours(chosen(True), training=True), choose_dtype(None, CPU, "training")
    if compiled:
        network.compile()
    return stepper(network, lambda x, t: network(x, t, None, dtype), batch)


def train(setting: Setting) -> Iterator[Table | Goal]:
    """A training step: forward, backward, AdamW, one average; against diffusers' in float32, and ours under `torch.compile`."""
    table = Table("training step", "batch", "pictures/s", "× diffusers", "first step, s", title="training, 32×32")
    against, own = "diffusers, float32", f"ours, {chosen(True)}"
    for batch in (8, 32):
        other = theirs()
        steps = {
            against: stepper(other, lambda x, t, other=other: other(x, t).sample, batch, ours=False),
            own: our_step(batch),
            f"{own}, compiled": our_step(batch, compiled=True),
        }
        first = {}
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            first[name] = time.perf_counter() - began
        took = seconds(steps, max(setting.repeats // 2, 3))
        for name, each in took.items():
            table.add_row(name, str(batch), f"{batch / each:.1f}", f"{took[against] / each:.2f}", f"{first[name]:.1f}")
        if batch == 32:
            yield Goal("training step, batch 32, against diffusers", took[against] / took[own], 2.2, 5.0)
    yield table
