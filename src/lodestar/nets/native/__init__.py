"""Kernels in C++ for CPUs, built once on the machine where they run, if it has a compiler; everything works without them.

The library is kept in the user's cache under a hash of its source, the compiler and the processor.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from lodestar.config import Problem
from lodestar.files import atomic, cache_folder

SWITCH = "LODESTAR_NATIVE"
"""Environment variable; 0 leaves the kernels out."""
SOURCES = ("norm.cpp", "attention.cpp", "adamw.cpp")
HEADERS = ("values.hpp",)
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = (
    "-O3", "-march=native", "-mprefer-vector-width=512", "-fno-exceptions", "-fno-rtti", "-shared", "-fPIC",
    # Most of -ffast-math by name: with that itself, loading the library would make the process flush small numbers to 0.
    "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math",
)  # fmt: skip
_THREADS = "-fopenmp"
_SECONDS = 600
"""Limit of a compiler's time: on a busy machine it takes a minute, and without the kernels results have other bits."""


class Native:
    """The kernels, or why there are none."""

    def __init__(self, library: ctypes.CDLL | None, why: str = "") -> None:
        self.library, self.why = library, why


@functools.cache
def native() -> Native:
    """The kernels of this machine, built at the first call (a few seconds) and then taken from the cache."""
    if os.environ.get(SWITCH) == "0":
        return Native(None, f"{SWITCH} is 0")
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), *_COMPILERS))), None)
    if compiler is None:
        return Native(None, f"there is no compiler ({', '.join(_COMPILERS)}, or $CXX)")
    sources = [Path(__file__).with_name(name) for name in SOURCES]
    try:
        return Native(_load(compiler, sources))
    except (OSError, subprocess.SubprocessError) as error:
        return Native(None, f"{compiler} made none: {_reason(error)}")


def _load(compiler: str, sources: list[Path]) -> ctypes.CDLL:
    """The library in the cache, or one that is built now: there, or, where the cache cannot be written to, for this process."""
    path = cache_folder() / "native" / f"{_key(compiler, sources)}.so"
    if path.exists():
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            path.unlink(missing_ok=True)  # cut off, or of another machine
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / path.name
        _build(compiler, sources, built)
        try:
            with atomic(path) as file:
                file.write(built.read_bytes())
        except Problem:
            path = built
        return ctypes.CDLL(str(path))


def _build(compiler: str, sources: list[Path], target: Path) -> None:
    """Compile, with threads where the compiler has OpenMP (Apple's has not). Raises CalledProcessError."""
    command = [compiler, *_FLAGS, *map(str, sources), "-o", str(target), "-lm"]
    try:
        subprocess.run([*command, _THREADS], check=True, capture_output=True, timeout=_SECONDS)
    except subprocess.CalledProcessError:
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)


def _key(compiler: str, sources: list[Path]) -> str:
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=_SECONDS).stdout
    parts = [
        version,
        *(each.encode() for each in processor()),
        sys.platform.encode(),
        *map(Path.read_bytes, [*sources, *(sources[0].with_name(name) for name in HEADERS)]),
        *map(str.encode, _FLAGS),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


class Processor(NamedTuple):
    """A processor, as far as the system tells."""

    name: str
    abilities: str
    """Family, model and instruction sets."""


@functools.cache
def processor() -> Processor:
    """The processor of this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return Processor(platform.processor() or platform.machine(), platform.machine())
    told = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in reversed(lines) if ":" in line}
    names = ("cpu family", "model", "stepping", "flags", "Features", "CPU part")
    return Processor(told.get("model name", platform.machine()), " ".join(told[name] for name in names if name in told))


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", b"") or b""
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else str(error)
