"""The start of a command: what a sampling loads, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NEEDLESS = (
    "datasets", "diffusers", "huggingface_hub", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn", "sympy", "tensorboard",
    "torch._dynamo", "torch._inductor", "torchvision", "transformers",
    "lodestar.conversion", "lodestar.evaluation", "lodestar.info", "lodestar.presets", "lodestar.tasks", "lodestar.training",
)  # fmt: skip
"""Libraries and parts of this one that a sampling has no use for, each of which costs a good part of a second or of its own."""


def test_a_sampling_loads_what_it_needs_alone(tmp_path: Path) -> None:
    code = f"""
import atexit, gc, sys
atexit.register(lambda: print("collected at the end" if any(each is later for each in gc.get_objects()) else "kept"))
from lodestar.__main__ import main
try:
    main(["sample", "cifar10_weak", "--count", "1", "--steps", "2", "--out", {str(tmp_path / "out")!r}])
except SystemExit as end:
    assert not end.code
assert not (loaded := [name for name in {NEEDLESS!r} if name in sys.modules]), loaded
assert gc.isenabled() and gc.get_freeze_count() > 100_000, "garbage is looked for again, but not among what was loaded"
later = [object()]
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=300, capture_output=True, text=True)
    assert "collected at the end" in done.stdout, "what stays at Python's end, bindings of nanobind tell of as leaked"
    assert (tmp_path / "out" / "00000.png").exists()


def test_the_list_of_what_is_needless_names_parts_that_exist() -> None:
    names = [name for name in NEEDLESS if name.startswith("lodestar.")]
    code = "import importlib.util as util, sys; sys.exit(not all(map(util.find_spec, sys.argv[1:])))"
    subprocess.run([sys.executable, "-c", code, *names], check=True, timeout=300)
