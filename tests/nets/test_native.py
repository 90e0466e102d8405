"""Building the kernels: everything goes on without them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lodestar.nets import fused, native
from lodestar.nets.unet import UNetConfig

compiled = pytest.mark.skipif(native.native().library is None, reason=f"no kernels here: {native.native().why}")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache with nothing in it, for a process that has not looked yet; the one before is put back."""
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "native", native.functools.cache(native.native.__wrapped__))
    monkeypatch.setattr(fused, "native", native.native)
    return tmp_path / "native"


def test_where_there_is_a_compiler_there_are_kernels() -> None:
    """Else all of their tests would be left out, and nobody would know."""
    if any(map(shutil.which, native._COMPILERS)) and os.environ.get(native.SWITCH) != "0":
        assert native.native().library is not None, native.native().why


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [(native.SWITCH, "0", "LODESTAR_NATIVE is 0"), ("PATH", "", r"there is no compiler \(c\+\+, g\+\+, clang\+\+, or \$CXX\)")],
)
def test_without_kernels_a_network_gives_the_same(
    variable: str, value: str, why: str, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = UNetConfig(width=32, multipliers=(1, 1), blocks=1, attention=(2,), head_channels=32).build()
    torch.nn.init.normal_(network.head.weight)
    x, time = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 500.0])
    with torch.inference_mode():
        expected = [network(x, time, None, dtype) for dtype in (torch.float32, torch.bfloat16)]
        native.native.cache_clear()
        monkeypatch.setenv(variable, value)
        found = native.native()
        assert found.library is None
        assert re.fullmatch(why, found.why)
        torch.testing.assert_close(network(x, time, None, torch.float32), expected[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network(x, time, None, torch.bfloat16), expected[1], rtol=0.1, atol=0.1)


@compiled
def test_kernels_are_built_once_and_taken_from_the_cache(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.native().library is not None
    (built,) = fresh.iterdir()
    native.native.cache_clear()
    monkeypatch.setattr(native, "_build", None)
    assert native.native().library is not None
    assert list(fresh.iterdir()) == [built]


BUILD = "from lodestar.nets.native import native; assert native().library is not None, native().why"


@compiled
def test_a_damaged_library_is_built_anew(fresh: Path) -> None:
    # In processes of their own: one that has a library open is given that again.
    subprocess.run([sys.executable, "-c", BUILD], check=True)
    (built,) = fresh.iterdir()
    whole = built.read_bytes()
    built.write_bytes(whole[:100])
    subprocess.run([sys.executable, "-c", BUILD], check=True)
    assert len(built.read_bytes()) == len(whole)


@compiled
def test_a_cache_that_cannot_be_written_to_is_done_without(fresh: Path) -> None:
    fresh.parent.joinpath("native").write_text("a file in the folder's place")
    assert native.native().library is not None


def test_a_compiler_that_fails_is_told_of(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\necho 'no such option' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    found = native.native()
    assert found.library is None and found.why == f"{compiler} made none: no such option"


@compiled
def test_two_processes_may_build_at_once(fresh: Path) -> None:
    both = [subprocess.Popen([sys.executable, "-c", BUILD]) for _ in range(2)]
    assert [each.wait(120) for each in both] == [0, 0]
    assert len(list(fresh.iterdir())) == 1


@compiled
def test_the_kernels_leave_the_arithmetic_of_the_process_alone() -> None:
    code = f"{BUILD}; import torch; assert float('1e-310') / 2 > 0; assert (torch.tensor([1e-40]) / 2).item() > 0"
    subprocess.run([sys.executable, "-c", code], check=True)
