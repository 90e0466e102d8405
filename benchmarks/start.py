"""What is around the network: the start of Python to the first picture, the sampling loop, and commands from end to end."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from common import Goal, Setting, seconds
from rich.table import Table

import lodestar
from lodestar.config import kinds
from lodestar.core.estimate import Estimate
from lodestar.core.level import Level
from lodestar.core.noise import SeededNoise
from lodestar.core.plan import parse_plan
from lodestar.core.schedule import Linear
from lodestar.samplers import DDIM, AnySampler, DPMpp, Own, last

FIRST = "lodestar sample cifar10 --count 1 --steps 5"
DIFFUSERS = "from diffusers import DDPMPipeline, UNet2DModel"


def start(setting: Setting) -> Iterator[Table | Goal]:
    """How long Python takes until the library, or a first picture, is there; each in a process of its own, warm and cold."""
    table = Table("process", "seconds, warm", "seconds, cold", title="start; cold: files of packages dropped from the page cache")
    with tempfile.TemporaryDirectory() as folder:
        sample = f"main({[*FIRST.split()[1:], '--out']!r} + [tempfile.mkdtemp(dir={folder!r})])"
        commands = {
            "import torch": "import torch",
            "import torch, lodestar": "import torch, lodestar",
            "import torch, lodestar and the names of its front page": "import torch; from lodestar import load, CFG, DPMpp",
            "lodestar --help": "from lodestar.__main__ import main; main(['--help'])",
            FIRST: f"import tempfile; from lodestar.__main__ import main; {sample}",
            **({DIFFUSERS: DIFFUSERS} if find_spec("diffusers") else {}),
        }
        calls = {name: lambda code=code: run([sys.executable, "-c", code]) for name, code in commands.items()}
        repeats = max(setting.repeats // 2, 3)
        warm = seconds(calls, repeats)
        cold = {name: chilled(calls[name], repeats) for name in calls if name in (FIRST, DIFFUSERS)} if can_chill() else {}
    for name, each in warm.items():
        table.add_row(name, f"{each:.2f}", f"{cold[name]:.2f}" if name in cold else "")
    yield table
    for state, took in (("warm", warm), ("cold", cold)):
        if DIFFUSERS in took:
            yield Goal(f"{FIRST}, {state}, against {DIFFUSERS}", took[FIRST] / took[DIFFUSERS], 1 / 3, 1 / 3, most=True)


def run(command: list[str]) -> None:
    """Run a command on as many threads as this process has, silently."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def can_chill() -> bool:
    """True where the system takes advice on its cache."""
    return hasattr(os, "posix_fadvise")


def chilled(call: Callable[[], object], repeats: int) -> float:
    """The median time of a call before each of which the packages' files leave the page cache, but for those in use elsewhere."""
    times = []
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(Path(lodestar.__file__).parent)}
    for _ in range(repeats):
        for folder in folders:
            for path in Path(folder).rglob("*"):
                if path.is_file():
                    with path.open("rb") as file:
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def loop(setting: Setting) -> Iterator[Table | Goal]:
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
        for name, each in seconds(calls, setting.repeats * 5).items():
            table.add_row(name, f"{each / count * 1e6:.1f}")
    yield table


def sample(setting: Setting) -> Iterator[Table | Goal]:
    """The embedded model from the command line, from the start of Python to the files; once."""
    table = Table("command", "seconds", title="end to end")
    commands = {
        "16 pictures, dpmpp, 20 steps, CFG 3": "sample cifar10 --count 16 --guidance cfg:3 --sampler dpmpp --steps 20",
        "demo": "demo",
    }
    for name, command in commands.items():
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            run([sys.executable, "-m", "lodestar", *command.split(), "--out", str(Path(folder) / "out")])
            table.add_row(f"lodestar {name}", f"{time.perf_counter() - began:.1f}")
    yield table
