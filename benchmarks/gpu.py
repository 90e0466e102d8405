"""One graphics card in at most ten minutes: sampling, training, and their share of the peak of its matrix units.

    python benchmarks/gpu.py [--seconds 480] [--out gpu.json] [--device cuda] [--tiny]

Needs PyTorch and this package alone. Prints markdown tables as they are filled and writes the same as JSON. Keeps to its time:
what does not fit is left out and said. Without a GPU it says so; ``--tiny`` is then a trial of the script itself, with networks
too small to mean anything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import lodestar
from lodestar import library
from lodestar.config import first_line
from lodestar.nets.base import DenoiserNetwork
from lodestar.nets.unet import UNetConfig
from lodestar.presets.adm import imagenet64

COMPILING = 100.0
"""Seconds that must be left before a network is compiled or captured: compilers tell nobody beforehand how long they take."""
MEASURING = 10.0
"""Seconds that must be left before anything else is measured."""
AT_ONCE = 0.5
"""Seconds of work in a measurement."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Subject:
    """A network and the batches at which it is measured."""

    name: str
    config: UNetConfig
    size: int
    sampling: tuple[int, ...]
    training: tuple[int, ...]


class Bench:
    """A device, a budget of time, and the tables filled so far."""

    def __init__(self, device: torch.device, budget: float) -> None:
        self.device, self.ends = device, time.monotonic() + budget
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.left_out: list[str] = []

    def left(self, needed: float, what: str) -> bool:
        """True if there is time for something; it is noted as left out if not."""
        if time.monotonic() + needed < self.ends:
            return True
        self.left_out.append(what)
        return False

    def add(self, table: str, **row: Any) -> None:
        """Add a row to a table and print it."""
        rows = self.rows.setdefault(table, [])
        if not rows:
            print(f"\n### {table}\n\n| {' | '.join(row)} |\n|{'---|' * len(row)}")
        rows.append(row)
        print(f"| {' | '.join(f'{each:.4g}' if isinstance(each, float) else str(each) for each in row.values())} |", flush=True)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Call) -> float:
        """The median time of a call, over as many as make `AT_ONCE` seconds of work."""
        for _ in range(2):
            call()
        self.wait()
        began = time.perf_counter()
        call()
        self.wait()
        at_once = max(1, int(AT_ONCE / 5 / max(time.perf_counter() - began, 1e-6)))
        times = []
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(at_once):
                call()
            self.wait()
            times.append((time.perf_counter() - began) / at_once)
        return statistics.median(times)

    def memory(self) -> float | None:
        """The most memory of the device that was in use since the last question, GiB; None on CPUs."""
        if self.device.type != "cuda":
            return None
        most = torch.cuda.max_memory_allocated(self.device) / 2**30
        torch.cuda.reset_peak_memory_stats(self.device)
        return most


def subjects(tiny: bool) -> Iterator[Subject]:
    """The networks: the embedded model's and that of the published ADM at 64×64."""
    embedded, adm = library.config(library.find("cifar10")), imagenet64().task.model
    for name, model, sampling, training in (
        ("cifar10", embedded, (32, 256, 1024), (128, 512)),
        ("adm.imagenet64", adm, (4, 32, 128), (16, 64)),
    ):
        network, size = model.denoiser.network, model.size[0]
        if tiny:
            network, size = network.replace(width=32, blocks=1, multipliers=(1, 1), attention=(2,), head_channels=32), 8
            sampling, training = (1,), (1,)
        yield Subject(name, network, size, sampling, training)


def peak(bench: Bench, tiny: bool) -> float:
    """Operations a second of a large product of matrices in bfloat16: the peak of which others have a share."""
    side = 64 if tiny else 8192
    a, b = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    most = 2 * side**3 / bench.seconds(lambda: a @ b)
    bench.add("peak", what=f"product of two {side}×{side} matrices, bfloat16", TFLOPs=most / 1e12)
    return most


def network_of(subject: Subject, device: torch.device) -> DenoiserNetwork:
    """The network with random weights, channels-last; layers that begin as zero are filled, so that errors show."""
    torch.manual_seed(0)
    network = subject.config.build().to(device, memory_format=torch.channels_last)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return network


def given(subject: Subject, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A noisy batch and its times."""
    x = torch.randn(batch, subject.config.in_channels, subject.size, subject.size, device=device)
    return x.contiguous(memory_format=torch.channels_last), torch.rand(batch, device=device) * 1000


def operations(network: DenoiserNetwork, subject: Subject, device: torch.device) -> int:
    """Operations of a forward pass of one picture."""
    x, t = given(subject, 1, device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(x, t)
    return counter.get_total_flops()


def graphed(run: Callable[[], Tensor]) -> Call:
    """The same work as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def variants(
    bench: Bench, network: DenoiserNetwork, x: Tensor, t: Tensor, compiling: bool
) -> Iterator[tuple[str, float, Callable[[], Call]]]:
    """Ways to run a forward pass: a name, the seconds that setting it up may take, and the set-up.

    compiling: compiled too, which takes the most time, and takes it for every batch.
    """
    low = torch.bfloat16
    yield "eager, bfloat16", MEASURING, lambda: lambda: network(x, t, None, low)
    if bench.device.type == "cuda":
        yield "CUDA graph, bfloat16", MEASURING, lambda: graphed(lambda: network(x, t, None, low))
    if bench.device.type == "cuda" and compiling:

        def compiled() -> Call:
            faster = torch.compile(network, mode="reduce-overhead", dynamic=False)
            return lambda: faster(x, t, None, low)

        yield "compiled (reduce-overhead: fused kernels in CUDA graphs), bfloat16", COMPILING, compiled


def sampling(bench: Bench, subject: Subject, most: float) -> None:
    """Forward passes in every way at every batch."""
    network = network_of(subject, bench.device).eval().requires_grad_(False)
    each = operations(network, subject, bench.device)
    middle = subject.sampling[len(subject.sampling) // 2]
    if bench.left(MEASURING, f"{subject.name}, float32"):
        with torch.inference_mode():
            make = partial(partial, network, *given(subject, middle, bench.device))
            row(bench, "sampling", subject, "eager, float32", middle, each, most, make)
    network.lower(torch.bfloat16)
    for batch in subject.sampling:
        x, t = given(subject, batch, bench.device)
        with torch.inference_mode():
            for name, needed, make in variants(bench, network, x, t, compiling=batch == middle):
                if bench.left(needed, f"{subject.name}, {name}, batch {batch}"):
                    row(bench, "sampling", subject, name, batch, each, most, make)


def training(bench: Bench, subject: Subject, most: float) -> None:
    """Training steps: forward, backward, AdamW and an average, the weights in float32 and the work in bfloat16."""
    network = network_of(subject, bench.device)
    each = 3 * operations(network, subject, bench.device)  # a backward pass has the work of two forward passes
    parameters = list(network.parameters())
    average = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def stepper(call: Callable[..., Tensor], x: Tensor, t: Tensor, target: Tensor) -> Call:
        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            (call(x, t, None, torch.bfloat16) - target).square().mean().backward()
            optimizer.step()
            torch._foreach_lerp_(average, [parameter.detach() for parameter in parameters], 1e-3)

        return step

    for batch in subject.training:
        x, t = given(subject, batch, bench.device)
        target = torch.randn(batch, subject.config.out_channels, *x.shape[2:], device=bench.device)
        if bench.left(MEASURING, f"{subject.name}, a step, batch {batch}"):
            row(bench, "training", subject, "eager, bfloat16", batch, each, most, partial(stepper, network, x, t, target))
        if (
            bench.device.type == "cuda"
            and batch == subject.training[-1]
            and bench.left(COMPILING, f"{subject.name}, compiled step")
        ):
            compiled = partial(stepper, torch.compile(network, dynamic=False), x, t, target)
            row(bench, "training", subject, "compiled, bfloat16", batch, each, most, compiled)


def row(
    bench: Bench, table: str, subject: Subject, name: str, batch: int, each: int, most: float, make: Callable[[], Call]
) -> None:
    """Measure one way at one batch; what fails, for want of memory or of a compiler, is noted, and the others go on."""
    bench.memory()
    try:
        call = make()
        took = bench.seconds(call)
    except Exception as error:
        bench.left_out.append(f"{subject.name}, {name}, batch {batch}: {first_line(error)[:100]}")
        return
    figures = {"network": subject.name, "how": name, "batch": batch, "pictures a second": batch / took, "ms": 1e3 * took}
    bench.add(table, **figures, **{"% of the peak": 100 * batch * each / took / most, "GiB": bench.memory()})


def whole(bench: Bench, tiny: bool) -> None:
    """The embedded model from noise to pictures, as anybody calls it."""
    model = library.load_diffusion("cifar10_weak" if tiny else "cifar10", str(bench.device))
    count, steps = (1, 2) if tiny else (1024, 20)
    for guidance in ((), "cfg:3"):
        if bench.left(MEASURING, f"sample, guidance {guidance or 'none'}"):
            make = lambda: model.sample(label="dog", count=count, steps=steps, batch_size=count, guidance=guidance)  # noqa: B023, E731
            make()
            bench.wait()
            began = time.perf_counter()
            make()
            bench.wait()
            took = time.perf_counter() - began
            figures = {"pictures": count, "steps": steps, "guidance": guidance or "none", "format": model.precision}
            bench.add("the embedded model, from noise to pictures", **figures, **{"pictures a second": count / took})


def main(arguments: list[str] | None = None) -> None:
    """Fill the tables while there is time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=480.0, help="time for everything; the last compilation may exceed it")
    parser.add_argument("--out", type=Path, help="a JSON file of the tables")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="networks too small to mean anything: a trial of the script")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    print(f"{gpu or 'there is no GPU here: these tables are of a CPU, and only a trial'}, torch {torch.__version__}")
    if gpu is None and not options.tiny:
        print("nothing is measured: give --tiny for the trial")
        return
    bench = Bench(device, options.seconds)
    most = peak(bench, options.tiny)
    whole(bench, options.tiny)
    for part in (sampling, training):
        for subject in subjects(options.tiny):
            part(bench, subject, most)
            if gpu is not None:
                torch.compiler.reset()
                torch.cuda.empty_cache()
    if bench.left_out:
        print("\nleft out: " + "; ".join(bench.left_out))
    if options.out is not None:
        facts = {"gpu": gpu, "torch": torch.__version__, "lodestar": lodestar.__version__, "left_out": bench.left_out}
        options.out.write_text(json.dumps({**facts, "tables": bench.rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
