"""The Python lines of README, docs and notebooks do what they say, and pass mypy in a user's project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import lodestar
from lodestar.conversion import diffusers
from lodestar.core.schedule import Linear
from lodestar.denoiser import DenoiserConfig
from lodestar.generators.diffusion import Diffusion
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.samplers import Ancestral

ROOT = Path(__file__).parents[1]
BLOCKS = {
    f"{page.stem}_{number}": block
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S))
}

BLOCKS |= {
    notebook.stem: "\n".join(
        "".join(cell["source"]) + "\n" for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"
    )
    for notebook in sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
}


def prepare(folder: Path) -> None:
    """What the lines find in their folder: a picture, and a folder of diffusers."""
    Image.effect_noise((40, 32), 90).convert("RGB").save(folder / "dog.png")
    network = UNetConfig(
        width=32, multipliers=(1, 2), blocks=1, attention=(), heads=1, head_channels=None, resample="conv", adaptive_norm=False,
    )  # fmt: skip
    config = DiffusionConfig(
        denoiser=DenoiserConfig(network=network), schedule=Linear(timesteps=50), size=(8, 8), sampler=Ancestral(), steps="50",
    )  # fmt: skip
    diffusers.export(Diffusion(config), folder / "ddpm-cifar10-32")


@pytest.mark.parametrize("name", BLOCKS)
def test_python_lines_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))
    prepare(tmp_path)
    before = list(lodestar.guidance.KINDS.members)
    try:
        exec(compile(BLOCKS[name], f"{name}.py", "exec", dont_inherit=True), {"__name__": "__main__"})
    finally:
        for kind in [each for each in lodestar.guidance.KINDS.members if each not in before]:
            lodestar.guidance.KINDS.remove(kind)


def checked(folder: Path, files: dict[str, str], cache: Path) -> str:
    """What mypy says of files in a project of somebody else, with its own settings, that has the package installed."""
    # Without torch's own types it takes a third of the time, and they have no part in what is right here.
    for name, text in {
        **files,
        "mypy.ini": "[mypy]\n[mypy-torch.*]\nfollow_imports = skip\n[mypy-sklearn.*]\nignore_missing_imports = true\n",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    # The checkout stands among the installed packages, so that its types count because of py.typed alone.
    environment = {**os.environ, "PYTHONPATH": str(Path(lodestar.__file__).parents[1])}
    words = [sys.executable, "-m", "mypy", "--cache-dir", str(cache), "--warn-unused-ignores", "--check-untyped-defs", *files]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False).stdout


def test_python_lines_pass_mypy_in_a_project_of_a_user(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Each line of USES is right or, where it is ignored, is refused by mypy, which an ignore without effect would not be."""
    assert pytestconfig.cache is not None
    found = checked(
        tmp_path, {f"{name}.py": block for name, block in BLOCKS.items()} | {"uses.py": USES}, pytestconfig.cache.mkdir("mypy")
    )
    assert found.startswith("Success: no issues found"), found


USES = """
from pathlib import Path

import lodestar

dogs = lodestar.load("cifar10", None, "diffusion").sample(label="dog", count=2)
saved: Path = lodestar.save(dogs, "out/dogs")
report = lodestar.evaluate(dogs, "digits", metrics=lodestar.metrics.KID(subsets=3), extractor="inception")
distance: float = report.numbers["frechet"]
swept = lodestar.sweep("cifar10", over="scale=1,2", guidance=[lodestar.CFG(scale=2.0), lodestar.Interval(low=0.3, high=5.0)])
name: str = swept.rows[0].name
bits: float = lodestar.bpd("cifar10", [dogs[0]], steps=10).numbers["bpd"]
path: Path = lodestar.convert("a.pt", flags={"image_size": 64})
source = lodestar.data.open_source([(dogs[0], "dog")])
lodestar.train("digits", "train.microbatch=4", {"train.seed": 3}, data=source, images=5)

lodestar.train("digits", pictures=5)  # type: ignore[call-arg]
lodestar.evaluate(dogs, "digits", metrcs="frechet")  # type: ignore[call-arg]
lodestar.evaluate(dogs, 5)  # type: ignore[arg-type]
lodestar.save("dogs", "out/dogs")  # type: ignore[arg-type]
lodestar.sweep("cifar10")  # type: ignore[call-arg]
lodestar.sve(dogs)  # type: ignore[attr-defined]
word: str = lodestar.evaluate(dogs)  # type: ignore[assignment]
"""
