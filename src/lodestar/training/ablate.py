"""Ablations of the U-Net: small variants trained under one budget, beside the ADM paper's results at its own size.

Dhariwal and Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis", section 3: tables 1 (depth, heads, attention,
resampling, residuals; ImageNet 128×128, change of FID after 1.2 million iterations), 2 (heads and their channels), 3 (AdaGN).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lodestar import checkpoint
from lodestar.config import Problem, choose
from lodestar.data import Source
from lodestar.evaluation.extractors import Extractor
from lodestar.evaluation.kept import Kept
from lodestar.evaluation.measured import measured
from lodestar.evaluation.report import REPORT
from lodestar.evaluation.run import Measurement
from lodestar.files import check_writable, write_csv
from lodestar.nets.unet import UNetConfig
from lodestar.progress import Foretold
from lodestar.tasks import TrainDenoiser
from lodestar.training.loop import train
from lodestar.training.names import LOG
from lodestar.training.run import Run
from lodestar.training.table import Row, laid_out

TABLE = "ablate.csv"
HELD_OUT = 0.05
"""Share of the pictures held out, unless the run sets one."""
_LOSS = "held_out/"


@dataclass(frozen=True)
class Variant:
    """A change of the base network, and its effect on FID in the paper."""

    change: str
    """Description of the change."""
    of: Callable[[UNetConfig], UNetConfig]
    paper: float
    table: int
    """Table of the paper."""


def base(network: UNetConfig) -> UNetConfig:
    """Base network of table 1's first row at the size of `network`: single head, attention at one resolution, convolutional
    resampling, AdaGN."""
    attention = (max(network.attention, default=network.divisor),)
    return network.replace(
        heads=1,
        head_channels=None,
        up_heads=None,
        attention=attention,
        resample="conv",
        adaptive_norm=True,
        rescale_residuals=False,
    )


def _deeper(network: UNetConfig) -> UNetConfig:
    """The network with twice the blocks at 0.8 of the width, as from 160 to 128 channels: about as many parameters."""
    groups = network.norm_groups
    width = max(round(0.8 * network.width / groups), 1) * groups
    return network.replace(width=width, blocks=tuple(2 * depth for depth in network.depths))


def _attending(network: UNetConfig) -> UNetConfig:
    return network.replace(attention=tuple(2**level for level in range(len(network.multipliers)))[-3:])


def _heads(count: int) -> Callable[[UNetConfig], UNetConfig]:
    return lambda network: network.replace(heads=count)


def _head_channels(channels: int) -> Callable[[UNetConfig], UNetConfig]:
    return lambda network: network.replace(heads=None, head_channels=channels)


def _resampling(network: UNetConfig) -> UNetConfig:
    return network.replace(resample="residual")


VARIANTS: dict[str, Variant] = {
    "base": Variant("1 head, attention at one resolution, convolutions resample", lambda network: network, 0.0, 1),
    "depth": Variant("twice the blocks, 0.8 of the width", _deeper, -0.48, 1),
    "heads-4": Variant("4 heads", _heads(4), -0.82, 1),
    "attention": Variant("attention at the three coarsest resolutions", _attending, -0.66, 1),
    "resample": Variant("residual blocks resample", _resampling, -1.21, 1),
    "rescale": Variant("residuals times √½", lambda network: network.replace(rescale_residuals=True), 0.25, 1),
    "all": Variant("heads-4, attention and resample", lambda network: _resampling(_attending(_heads(4)(network))), -3.00, 1),
    "heads-2": Variant("2 heads", _heads(2), -0.50, 2),
    "heads-8": Variant("8 heads", _heads(8), -1.17, 2),
    "head-32": Variant("32 channels a head", _head_channels(32), -1.36, 2),
    "head-64": Variant("64 channels a head", _head_channels(64), -1.03, 2),
    "head-128": Variant("128 channels a head", _head_channels(128), -1.08, 2),
    "add-norm": Variant("embedding added, not AdaGN", lambda network: network.replace(adaptive_norm=False), 2.02, 3),
}
"""Variants by name; the first is the base of all others."""


def ablate(
    run: Run,
    folder: Path,
    reference: Source | Kept,
    extractor: Extractor,
    console: Console,
    *,
    names: Sequence[str] = (),
    count: int = 2_000,
    device: str | None = None,
    measuring: Measurement | None = None,
) -> list[Row]:
    """Train and measure variants of a diffusion run's network, the base always, each in a folder of its own; writes ablate.csv.

    names: of VARIANTS; all where none is given. measuring: how each is measured. Seeds and budget are the run's, the same for
    all. What is done is not done again. A variant that does not fit this network, or equals an earlier variant, is not trained,
    and its row says so. Raises Problem.
    """
    task = run.task
    if not isinstance(task, TrainDenoiser):
        raise Problem(f"this run is of kind {task.kind!r}: the variants are of a diffusion model's network, 'denoise'")
    for name in names:
        choose("variant", name, VARIANTS)
    check_writable(folder / TABLE)
    if run.data.validation is None and not run.data.held_out:
        run = run.replace(data=run.data.replace(held_out=HELD_OUT))
    network = task.model.denoiser.network
    if not isinstance(network, UNetConfig):
        raise Problem(f"this run's network is of kind {network.kind!r}: the variants are of a U-Net, 'unet'")
    planned = _planned(network, names)
    following = sum(isinstance(what, UNetConfig) for what in planned.values())
    rows: list[Row] = []
    for name, what in planned.items():
        if isinstance(what, str):
            rows.append(_row(name, what, VARIANTS[name], None, rows))
            continue
        following -= 1
        varied = task.replace(model=task.model.replace(denoiser=task.model.denoiser.replace(network=what)))
        model = train(run.replace(task=varied), folder / name, console, device, following=following)
        title, tick = f"measuring {folder / name}", Foretold(console, count, following)
        how = replace(measuring or Measurement(), title=title, console=console, tick=tick)
        report = measured(folder / name / REPORT, model, reference, extractor, count=count, device=device, run=how)
        rows.append(_row(name, VARIANTS[name].change, VARIANTS[name], _numbers(model, report["numbers"]["frechet"]), rows))
        write_csv(folder / TABLE, rows)
    write_csv(folder / TABLE, rows)
    return rows


def _planned(network: UNetConfig, names: Sequence[str]) -> dict[str, UNetConfig | str]:
    """The network of each variant that is asked for, and of the base; in words why there is none to train, where it is so."""
    planned: dict[str, UNetConfig | str] = {}
    done: dict[str, str] = {}
    for name in (name for name in VARIANTS if not names or name in names or name == "base"):
        try:
            varied = VARIANTS[name].of(base(network))
        except Problem as problem:
            planned[name] = f"not here: {problem}"
            continue
        twin = done.setdefault(_structure(varied), name)
        planned[name] = varied if twin == name else f"the same network as {twin}"
    return planned


def table(rows: Sequence[Row]) -> Table:
    """The table of main numbers, with the first held-out loss among them; the others are in the CSV."""
    loss = next(name for name in rows[0] if name.startswith("held_out"))
    headings = {
        "variant": "variant",
        "parameters": "parameters",
        "images_per_second": "images/s",
        loss: loss.replace("_", " ").replace("held out", "held-out"),
        "frechet": "FD",
        "ours": "change",
        "paper": "ADM's",
    }
    return laid_out(rows, headings, signed=("ours", "paper"))


def _row(name: str, change: str, variant: Variant, numbers: dict[str, Any] | None, rows: Sequence[Row]) -> Row:
    """A row with the columns of the first row, the base's."""
    if numbers is None:
        numbers = {column: None for column in rows[0] if column not in ("variant", "change", "ours", "paper", "table")}
    frechet = numbers["frechet"]
    first = rows[0]["frechet"] if rows else frechet
    ours = None if frechet is None else frechet - first
    return {"variant": name, "change": change, **numbers, "ours": ours, "paper": variant.paper, "table": variant.table}


def _numbers(model: Path, frechet: float) -> dict[str, Any]:
    header = checkpoint.peek(model)
    lines = (json.loads(line) for line in (model.parent / LOG).read_text(encoding="utf-8").splitlines())
    held_out = [line for line in lines if any(name.startswith(_LOSS) for name in line)][-1]
    speed = header.provenance["images_seen"] / header.provenance["seconds"]
    losses = {name.replace("/", "_"): value for name, value in held_out.items() if name.startswith(_LOSS)}
    return {"parameters": header.parameters, "images_per_second": speed, **losses, "frechet": frechet}


def _structure(network: UNetConfig) -> str:
    """The network's structure as text, equal for equal networks, in either notation of heads."""
    heads = [network.heads_at(channels) for channels in (*network.attended, network.widths[-1])]
    return f"{network.model_dump_json(exclude={'heads', 'head_channels'})} {heads}"
