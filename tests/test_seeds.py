"""Seeds at every door: all 64 bits of one count, and what is not one is refused in one line before any work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lodestar
from lodestar import checkpoint
from lodestar.config import Problem, edit
from lodestar.evaluation import likelihood
from lodestar.evaluation.cluster import cluster
from lodestar.evaluation.metrics import KID, Score
from lodestar.evaluation.run import Measurement, evaluate
from lodestar.generators.album import Manifest
from lodestar.generators.edits import Interpolate
from lodestar.generators.request import request
from lodestar.presets import RUNS
from lodestar.training.loop import start
from tests.evaluation import tiny
from tests.test_cli import refusal, run
from tests.training.runs import denoising

LAST = 2**64 - 1
PICTURE = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, pictures, and an album of two."""
    folder = tmp_path_factory.mktemp("files")
    model = tiny.diffusion()
    checkpoint.save(folder / "model", "diffusion", model.config.to_json(), model.state_dict(), {})
    tiny.folder(folder / "pictures", 4)
    assert run("sample", folder / "model", "--count", 2, "--steps", 2, "--out", folder / "album") == 0
    return folder


COMMANDS = {
    "sample": "sample MODEL --count 3 --seed SEED",
    "evaluate": "evaluate MODEL --reference PICTURES --count 3 --seed SEED",
    "bpd": "evaluate MODEL --reference PICTURES --metric bpd --count 3 --seed SEED",
    "sweep": "sweep MODEL --reference PICTURES --scales 1,2 --guidance cfg --count 8 --seed SEED",
    "sdedit": "edit sdedit MODEL PICTURES --seed SEED",
    "interpolate": "edit interpolate MODEL --from dog --to cat --seed SEED",
    "to_seed": "edit interpolate MODEL --from dog --to-seed SEED",
    "inpaint": "edit inpaint MODEL PICTURES --mask MODEL --seed SEED",
    "demo": "demo --seed SEED",
    "reproduce": "reproduce adm-64 --seed SEED",
    "label": "label PICTURES --seed SEED",
    "train": "train digits --seed SEED",
    "override": "train digits train.seed=SEED",
    "distill": "distill MODEL --data digits --seed SEED",
    "ablate": "ablate digits --images 64 --seed SEED",
}


@pytest.mark.parametrize("seed", [-1, 2**64, 2**70])
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_refuse_what_is_no_seed(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, seed: int
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {"MODEL": str(files / "model"), "PICTURES": str(files / "pictures")}
    words = [paths.get(word, word.replace("SEED", str(seed))) for word in COMMANDS[name].split()]
    line = refusal(capsys, *words)
    assert "seed" in line and str(LAST if seed > 0 else 0) in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["sample", "sweep", "sdedit"])
def test_commands_refuse_seeds_that_run_over_the_last(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {"MODEL": str(files / "model"), "PICTURES": str(files / "pictures")}
    line = refusal(capsys, *(paths.get(word, word.replace("SEED", str(LAST - 1))) for word in COMMANDS[name].split()))
    assert f"seed is {LAST - 1}: " in line and "pictures have the seeds up to" in line
    assert not list(tmp_path.iterdir())


MODEL, REFERENCE, EXTRACTOR = tiny.diffusion(), tiny.reference(), tiny.extractor()
PYTHON: dict[str, Callable[[Any], Any]] = {
    "sample": lambda seed: MODEL.sample(count=3, seed=seed),
    "best_of": lambda seed: MODEL.sample(count=1, best_of=3, seed=seed, guides={"judge": tiny.classifier()}),
    "request": lambda seed: request([None], seed),
    "edit": lambda seed: lodestar.edit(MODEL, lodestar.SDEdit(), PICTURE, seed=seed, count=3),
    "evaluate": lambda seed: evaluate(MODEL, REFERENCE, EXTRACTOR, count=6, seed=seed),
    "bpd": lambda seed: likelihood.measure(MODEL, REFERENCE, count=3, seed=seed),
    "cluster": lambda seed: cluster(torch.randn(9, 2), 2, seed=seed),
    "to_seed": lambda seed: Interpolate(to_seed=seed),
    "kid": lambda seed: KID(seed=seed),
    "score": lambda seed: Score(seed=seed),
    "train": lambda seed: edit(RUNS["digits"](), [f"train.seed={json.dumps(seed)}"]),
}


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, "x"])
@pytest.mark.parametrize("name", PYTHON)
def test_python_refuses_what_is_no_seed(name: str, seed: Any) -> None:
    with pytest.raises(Problem, match="seed") as problem:
        PYTHON[name](seed)
    assert str(seed) in str(problem.value) and "\n" not in str(problem.value)


def test_repeats_that_run_over_the_last_seed_are_refused_before_the_first(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="seeds"):
        evaluate(MODEL, REFERENCE, EXTRACTOR, count=6, seed=LAST - 7, run=Measurement(repeats=2, cache=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, "x", None, True])
def test_manifests_refuse_what_is_no_seed(files: Path, tmp_path: Path, seed: Any) -> None:
    whole = json.loads((files / "album" / "manifest.json").read_text())
    whole["pictures"][1]["seed"] = seed
    (tmp_path / "manifest.json").write_text(json.dumps(whole))
    with pytest.raises(Problem, match=r"asks\.1\.seed is ") as problem:
        Manifest.read(tmp_path)
    assert "\n" not in str(problem.value)


def test_pictures_of_seeds_with_the_same_lower_32_bits_differ_and_the_last_seed_is_one(files: Path, tmp_path: Path) -> None:
    seeds = (5, 5 + 2**32, 5 + 2**63, LAST)
    images = torch.cat([MODEL.sample(count=1, seed=seed, steps=2).images for seed in seeds]).float()
    assert torch.pdist(images.flatten(1)).min() > 100
    assert run("sample", files / "model", "--count", 2, "--steps", 2, "--seed", LAST - 1, "--out", tmp_path / "out") == 0
    assert Manifest.read(tmp_path / "out").request.seeds == [LAST - 1, LAST]
    assert run("remake", tmp_path / "out", "--picture", 1, "--out", tmp_path / "again") == 0
    assert (tmp_path / "again" / "00001.png").read_bytes() == (tmp_path / "out" / "00001.png").read_bytes()


def test_first_weights_and_clusters_differ_between_seeds_with_the_same_lower_32_bits(tmp_path: Path) -> None:
    def weights(seed: int) -> torch.Tensor:
        learner = start(denoising("digits", seed=seed), tmp_path, "cpu").learner
        return torch.cat([parameter.detach().flatten() for parameter in learner.module.parameters()])

    assert torch.equal(weights(7), weights(7)) and torch.equal(weights(7 + 2**40), weights(7 + 2**40))
    assert (weights(7) - weights(7 + 2**40)).abs().mean() > 0.01
    points = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    assert len(cluster(points, 3, seed=2**40).sizes) == 3
