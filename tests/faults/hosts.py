"""Two hosts, as network namespaces of this machine with a link between them: ``python -m tests.faults.hosts`` (Linux, as root).

A training over both is disturbed: one host dies, the link is cut, a clock is wrong. It is to stop with one plain message, and,
given again, to end with the weights of a training that was not disturbed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lodestar.training.names import STATE
from tests.training.runs import assert_same, write_pictures

FAULTS = ("killed", "cut", "clock")
TIMEOUT = 20
"""Seconds that a process waits for the others in a training that is disturbed: on a busy machine a step takes some of them."""
IMAGES = 98
MEETING = 60
"""Seconds in which two processes have to meet, for hosts to be used at all."""
LOST = "another process of this run has ended, or cannot be reached"
_MEET = """
import torch

torch.distributed.init_process_group("gloo")
torch.distributed.all_reduce(torch.ones(1))
torch.distributed.destroy_process_group()
"""
_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t which, struct timespec *told) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(which, told);
    if (which == CLOCK_REALTIME) told->tv_sec += 86400;
    return failed;
}
"""
"""A library that is loaded before others, whose clock is a day ahead."""


def ip(*words: str) -> str:
    """The output of a command of iproute2. Raises CalledProcessError."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Hosts:
    """Two network namespaces and their link."""

    def __init__(self) -> None:
        self.names = tuple(f"lodestar-{os.getpid()}-{number}" for number in (0, 1))
        self.links = tuple(f"lode{os.getpid()}-{number}"[-15:] for number in (0, 1))
        self.addresses = ("10.77.0.1", "10.77.0.2")

    def __enter__(self) -> Hosts:
        try:
            for name in self.names:
                ip("netns", "add", name)
            ends = ((link, "netns", name) for link, name in zip(self.links, self.names, strict=True))
            ip("link", "add", *next(ends), "type", "veth", "peer", *next(ends))
            for name, link, address in zip(self.names, self.links, self.addresses, strict=True):
                ip("-n", name, "address", "add", f"{address}/24", "dev", link)
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "link", "set", link, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for number, name in enumerate(self.names):
            self.kill(number)
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", name)

    def kill(self, number: int) -> None:
        """Kill all processes of a host."""
        with contextlib.suppress(subprocess.CalledProcessError):
            for process in ip("netns", "pids", self.names[number]).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)

    def link(self, state: str) -> None:
        """Set the link "up" or "down"."""
        ip("-n", self.names[0], "link", "set", self.links[0], state)

    def launch(self, number: int, told: Path, *part: object, **settings: str) -> subprocess.Popen[bytes]:
        """A host's part of a program of torchrun, with settings of its environment; what it tells is in the file `told`."""
        launch = (
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
            # Not "c10d", whose hosts compare heartbeats with their own clocks.
            "--rdzv-backend", "static", "--node-rank", str(number), "--master-addr", self.addresses[0], "--master-port", "29511",
            "--local-addr", self.addresses[number],
        )  # fmt: skip
        own = {"GLOO_SOCKET_IFNAME": self.links[number], "OMP_NUM_THREADS": "1"}
        with open(told, "wb") as file:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.names[number], *map(str, (*launch, *part))],
                env=os.environ | own | settings,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )


def refused() -> str | None:
    """Why there can be no hosts here, where a program of PyTorch's alone has to reach one from the other; None where they can."""
    if shutil.which("ip") is None:
        return "no hosts without the command ip (iproute2)"
    with tempfile.TemporaryDirectory() as place:
        program, told = Path(place, "meet.py"), Path(place, "told")
        program.write_text(_MEET)
        try:
            with Hosts() as hosts:
                met = all(each.wait(MEETING) == 0 for each in [hosts.launch(number, told, program) for number in (0, 1)])
        except subprocess.CalledProcessError as error:
            return f"no hosts: {' '.join(map(str, error.cmd))}: {error.stderr.strip()}"
        except subprocess.TimeoutExpired:
            met = False
    return None if met else f"no hosts: two processes of PyTorch do not meet over their link in {MEETING} seconds"


class Trainings:
    """Trainings over two hosts, in a folder: one that is not disturbed, and others to be compared with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures = folder / "pictures"
        write_pictures(self.pictures)
        self._all("whole")

    def __call__(self, fault: str) -> None:
        """Disturb a training, give it again and compare. Raises AssertionError."""
        if fault == "clock":
            self._all(fault, LD_PRELOAD=self._clock())
        else:
            short = {"LODESTAR_TIMEOUT": str(TIMEOUT)}
            with Hosts() as hosts, self._begun(hosts, fault, short, short) as running:
                while not (self.folder / fault / STATE).exists():
                    assert all(each.poll() is None for each in running), self._told(fault, 0)
                    time.sleep(0.1)
                hosts.kill(1) if fault == "killed" else hosts.link("down")
                assert running[0].wait(TIMEOUT + 120) != 0
            told = self._told(fault, 0)
            assert len(re.findall(LOST, told)) == 1, told
            self._all(fault)
        assert_same(self.folder / "whole", self.folder / fault)

    def _all(self, name: str, **second: str) -> None:
        """A training to its end; second: settings of the second host's environment."""
        with Hosts() as hosts, self._begun(hosts, name, {}, second) as running:
            for number, each in enumerate(running):
                assert each.wait(TIMEOUT + 120) == 0, self._told(name, number)

    @contextlib.contextmanager
    def _begun(self, hosts: Hosts, name: str, *settings: dict[str, str]) -> Iterator[list[subprocess.Popen[bytes]]]:
        part = ("-m", "tests.training.test_processes", self.pictures, self.folder / name, IMAGES, "slowly")
        yield [hosts.launch(k, self.folder / f"{name}-{k}", *part, **each) for k, each in enumerate(settings)]

    def _told(self, name: str, number: int) -> str:
        return (self.folder / f"{name}-{number}").read_text()

    def _clock(self) -> str:
        """The library of the wrong clock, compiled."""
        made, source = self.folder / "clock.so", self.folder / "clock.c"
        source.write_text(_CLOCK)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
        return str(made)


if __name__ == "__main__":
    if why := refused():
        raise SystemExit(why)
    with tempfile.TemporaryDirectory() as place:
        trainings = Trainings(Path(place))
        for each in FAULTS:
            began = time.monotonic()
            trainings(each)
            print(f"{each}: the weights of a training that was not disturbed, {time.monotonic() - began:.0f} s", flush=True)
