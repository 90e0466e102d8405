"""Speed and memory, measured and printed as tables. Nothing here is asserted: machines differ, ratios of one run compare.

    python benchmarks/run.py [forward] [convolution] [train] [loop] [start] [memory] [sample] [--threads 1] [--repeats 7]

``forward`` and ``train`` compare with `diffusers.UNet2DModel` of the same width and depth in its default form, taken in turn
with ours; they need ``pip install diffusers``.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from lodestar.config import kinds
from lodestar.core.estimate import Estimate
from lodestar.core.level import Level
from lodestar.core.noise import SeededNoise
from lodestar.core.plan import parse_plan
from lodestar.core.schedule import Linear
from lodestar.data import Shuffled, open_source, parquet, source
from lodestar.nets import winograd
from lodestar.nets.precision import choose_dtype
from lodestar.nets.unet import UNet, UNetConfig
from lodestar.samplers import DDIM, AnySampler, DPMpp, Own, last

CIFAR_SIZE = UNetConfig(width=64, multipliers=(1, 2, 2), blocks=2, attention=(2, 4), head_channels=32, out_channels=6)
"""A CIFAR-size ADM: 64 channels, two blocks, attention at 16 and 8."""


def seconds(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median time of each call, all taken in turn, so that a drifting machine drifts for all."""
    for call in calls.values():
        call()
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in times.items()}


def ours(dtype: torch.dtype, training: bool = False) -> UNet:
    """Our network; its zero-initialised layers are filled, so that errors show."""
    torch.manual_seed(0)
    network = CIFAR_SIZE.build().to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    if not training:
        network.eval().requires_grad_(False)
        for part in (network.stem, network.down, network.middle, network.up):
            part.to(dtype)
    return network


def theirs() -> torch.nn.Module:
    """diffusers' network of the same width and depth, in its default form."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=6,
        layers_per_block=2,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
        resnet_time_scale_shift="scale_shift",
        downsample_type="resnet",
        upsample_type="resnet",
    )


def forward(repeats: int) -> Table:
    """A forward pass at batch 8 and 32."""
    table = Table("forward pass", "batch", "pictures/s", "× diffusers", "error against our float32", title="network, 32×32")
    other = theirs().eval().requires_grad_(False)
    fast = choose_dtype(None, torch.device("cpu"))
    networks = {"ours, float32": (ours(torch.float32), torch.float32)}
    networks["ours, bfloat16" + ("" if fast == torch.bfloat16 else " (not this processor's choice)")] = (
        ours(torch.bfloat16),
        torch.bfloat16,
    )
    exact = ours(torch.float32)
    for batch in (8, 32):
        x, t = torch.randn(batch, 3, 32, 32), torch.randint(0, 1000, (batch,)).float()
        with torch.inference_mode():
            calls: dict[str, Callable[[], object]] = {"diffusers, float32": lambda x=x, t=t: other(x, t)}
            for name, (network, dtype) in networks.items():
                calls[name] = lambda network=network, dtype=dtype, x=x, t=t: network(x, t, None, dtype)
            took = seconds(calls, repeats)
            reference = exact(x, t)
            for name, each in took.items():
                error = ""
                if name in networks:
                    network, dtype = networks[name]
                    error = f"{((network(x, t, None, dtype) - reference).norm() / reference.norm()).item():.1e}"
                table.add_row(name, str(batch), f"{batch / each:.1f}", f"{took['diffusers, float32'] / each:.2f}", error)
    return table


def convolution(repeats: int) -> Table:
    """3×3 convolutions of ADM's widths in float32: Winograd's against PyTorch's."""
    table = Table(
        "batch", "channels", "size", "ms, PyTorch", "ms, Winograd", "times as fast", title="one 3×3 convolution, float32"
    )
    for batch, channels, size in ((8, 128, 16), (1, 192, 64), (4, 192, 64), (2, 384, 32), (4, 384, 32)):
        x = torch.randn(batch, channels, size, size).to(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3).to(memory_format=torch.channels_last)
        bias = torch.randn(channels)
        with torch.inference_mode():
            took = seconds(
                {
                    "direct": lambda x=x, w=weight, b=bias: torch.nn.functional.conv2d(x, w, b, padding=1),
                    "winograd": lambda x=x, w=weight, b=bias: winograd.conv3x3(x, w, b),
                },
                repeats,
            )
        direct, fast = took["direct"], took["winograd"]
        table.add_row(str(batch), str(channels), str(size), f"{1e3 * direct:.1f}", f"{1e3 * fast:.1f}", f"{direct / fast:.2f}")
    return table


def stepper(network: torch.nn.Module, call: Callable[..., torch.Tensor], batch: int, fused: bool = True) -> Callable[[], None]:
    """A training step: forward, backward, AdamW, one average."""
    x, t, target = torch.randn(batch, 3, 32, 32), torch.rand(batch) * 1000, torch.randn(batch, 6, 32, 32)
    parameters = list(network.parameters())
    average = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=fused)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (call(x, t) - target).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, [parameter.detach() for parameter in parameters], 1e-3)

    return step


def train(repeats: int) -> Table:
    """A training step: forward, backward, AdamW, one average."""
    table = Table("training step", "batch", "pictures/s", "× diffusers", title="training, 32×32")
    dtype = choose_dtype(None, torch.device("cpu"))
    for batch in (8, 32):
        other, network = theirs(), ours(dtype, training=True)
        name = f"ours, {str(dtype).removeprefix('torch.')}"
        took = seconds(
            {
                "diffusers, float32": stepper(other, lambda x, t, other=other: other(x, t).sample, batch, fused=False),
                name: stepper(network, lambda x, t, network=network: network(x, t, None, dtype), batch),
            },
            max(repeats // 2, 3),
        )
        for each, time_ in took.items():
            table.add_row(each, str(batch), f"{batch / time_:.1f}", f"{took['diffusers, float32'] / time_:.2f}")
    return table


def loop(repeats: int) -> Table:
    """The sampling loop around a network that costs nothing."""
    table = Table("sampler", "µs a step, batch 1", title="sampling loop around a free network")
    schedule, count = Linear(), 50
    steps = parse_plan(count).steps(schedule)
    x0 = torch.zeros(1, 3, 32, 32)

    def denoise(x: torch.Tensor, level: Level) -> Estimate:
        return Estimate(x, level, x0)

    noise = SeededNoise([0])
    x = noise.start((3, 32, 32))
    with torch.inference_mode():
        calls = {
            " ".join([sampler.kind, *(f"{name}={getattr(sampler, name):g}" for name in sampler.model_fields_set)]): (
                lambda sampler=sampler: last(sampler(denoise, x, steps, noise))
            )
            for sampler in (
                *(kind() for kind in kinds(AnySampler).values() if kind is not Own),
                DDIM(eta=1.0),
                DPMpp(eta=1.0),
                DPMpp(order=3),
            )
            if not sampler.adaptive
        }
        for name, each in seconds(calls, repeats * 5).items():
            table.add_row(name, f"{each / count * 1e6:.1f}")
    return table


def start(repeats: int) -> Table:
    """How long Python takes until the library is there; each in a process of its own."""
    table = Table("process", "seconds", title="start")
    commands = {
        "import torch": "import torch",
        "import torch, lodestar": "import torch, lodestar",
        "import torch, lodestar and the names of its front page": "import torch; from lodestar import load, CFG, DPMpp",
        "lodestar --help": "from lodestar.__main__ import main; main(['--help'])",
    }
    calls = {
        name: (lambda code=code: subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL))
        for name, code in commands.items()
    }
    for name, each in seconds(calls, max(repeats // 2, 3)).items():
        table.add_row(name, f"{each:.2f}")
    return table


def memory(repeats: int) -> Table:
    """The most memory that a process needs; each in a process of its own."""
    table = Table("process", "peak, MiB", "above the libraries", title="resident memory, 32×32")
    least = peak("pass")
    table.add_row("import torch, lodestar", f"{least:.0f}", "")
    for name, code in (("forward pass, batch 32", "run_forward(32)"), ("training step, batch 32", "run_step(32)")):
        most = peak(code)
        table.add_row(name, f"{most:.0f}", f"{most - least:.0f}")
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, 4):
            path = Path(folder) / f"{times}.parquet"
            write_parquet(path, pictures=times * 12_000)
            most = peak(f"read({str(path)!r}, 750)")
            name = f"24,000 pictures read from {path.stat().st_size / 2**20:.0f} MiB of parquet"
            table.add_row(f"{name}, {HELD >> 20} MiB held at most", f"{most:.0f}", f"{most - least:.0f}")
    return table


def peak(code: str) -> float:
    """The largest resident memory, in MiB, of a fresh process that runs `code` among the names of this file."""
    code = f"from run import *; {code}; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    # A process's peak begins with that of the process which starts it, and this one's is large: a small shell stands between.
    shell = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}; exit $?"
    told = subprocess.run(["sh", "-c", shell], check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent).stdout
    return int(told) / (2**20 if sys.platform == "darwin" else 2**10)


def run_forward(batch: int) -> None:
    """Two forward passes of our network."""
    dtype = choose_dtype(None, torch.device("cpu"))
    network = ours(dtype)
    with torch.inference_mode():
        for _ in range(2):
            network(torch.randn(batch, 3, 32, 32), torch.rand(batch) * 1000, None, dtype)


def run_step(batch: int) -> None:
    """Two training steps of our network."""
    dtype = choose_dtype(None, torch.device("cpu"))
    network = ours(dtype, training=True)
    step = stepper(network, lambda x, t: network(x, t, None, dtype), batch)
    step()
    step()


HELD = 8 * 2**20
"""What is held of a file and of its decoded pictures in `read`, bytes: less than by default, so that small files exceed it."""


def write_parquet(path: Path, pictures: int) -> None:
    """Noise as PNG files of about 3 KiB, 1,000 to a row group."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    rng = np.random.default_rng(0)
    kind = pyarrow.schema([("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))])
    with ParquetWriter(path, kind) as file:
        for _ in range(pictures // 1000):
            rows = []
            for _ in range(1000):
                encoded = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(encoded, "PNG")
                rows.append({"image": {"bytes": encoded.getvalue(), "path": None}})
            file.write_table(pyarrow.Table.from_pylist(rows, kind))


def read(path: str, count: int) -> None:
    """Read `count` shuffled batches of 32."""
    parquet.HELD_BYTES = source._KEPT_BYTES = HELD
    stream = Shuffled(open_source(path), 32).batches(0)
    for _ in range(count):
        next(stream)


def sample(repeats: int) -> Table:
    """The embedded model from the command line, from the start of Python to the files; once."""
    table = Table("command", "seconds", title="end to end")
    commands = {
        "16 pictures, dpmpp, 20 steps, CFG 3": "sample cifar10 --count 16 --guidance cfg:3 --sampler dpmpp --steps 20",
        "demo": "demo",
    }
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for name, command in commands.items():
        with tempfile.TemporaryDirectory() as folder:
            whole = [sys.executable, "-m", "lodestar", *command.split(), "--out", str(Path(folder) / "out")]
            began = time.perf_counter()
            subprocess.run(whole, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
            table.add_row(f"lodestar {name}", f"{time.perf_counter() - began:.1f}")
    return table


def main() -> None:
    """Run the tables that are asked for, or all."""
    parts = {
        "forward": forward,
        "convolution": convolution,
        "train": train,
        "loop": loop,
        "start": start,
        "memory": memory,
        "sample": sample,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(parts)}; default all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if unknown := [name for name in options.parts if name not in parts]:
        parser.error(f"unknown part {unknown[0]!r}: choose from {', '.join(parts)}")
    torch.set_num_threads(options.threads)
    console = Console()
    capability, fastest = torch.backends.cpu.get_cpu_capability(), choose_dtype(None, torch.device("cpu"))
    console.print(f"torch {torch.__version__}, {options.threads} threads, {capability}, fastest in {fastest}")
    for name in options.parts or parts:
        try:
            console.print(parts[name](options.repeats))
        except ImportError as error:
            console.print(f"{name}: skipped, {error}")


if __name__ == "__main__":
    main()
