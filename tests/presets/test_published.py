"""The presets of published models, against what their authors state of them."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

from lodestar.conversion.family import check
from lodestar.conversion.run import facts, ours
from lodestar.data import DataFacts
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import BackboneConfig
from lodestar.presets import PUBLISHED, RUNS

SHAPES = Path(__file__).resolve().parents[2].parent / "shared" / "facts" / "checkpoint_shapes.json.gz"
PAPERS = ("adm", "iddpm", "ddpm", "consistency", "glide", "clip")
BY_SHORT = {each.short: each for each in PUBLISHED}


@pytest.mark.parametrize("name", [name for name in RUNS if name.partition(".")[0] in PAPERS and "." in name])
def test_a_run_takes_the_pictures_that_its_paper_had(name: str) -> None:
    run = RUNS[name]()
    model = run.task.model
    classes = model.network.classes if isinstance(model, ClassifierModelConfig) else model.denoiser.classes
    names = None if classes is None else tuple(map(str, range(classes)))
    task = run.task.resolve(DataFacts(3, model.size, names, run.task.captions))
    assert task.model.replace(names=None) == model.replace(names=None)
    assert run.data.transforms.result_size(run.data.transforms.source_size or (0, 0)) == model.size
    assert run.train.images % run.train.batch_size == 0
    assert type(run).model_validate_json(run.to_json()) == run


def test_names_and_files_are_nobody_else_s() -> None:
    for values in ([each.short for each in PUBLISHED], [(each.file, each.family.name) for each in PUBLISHED]):
        assert len(set(values)) == len(values)
    assert all(unquote(each.url or "").endswith(each.file) or each.page for each in PUBLISHED)


def test_a_guide_knows_the_noise_of_its_model() -> None:
    for short, model in BY_SHORT.items():
        if f"{short}-classifier" in BY_SHORT:
            config, guide = model.model(), BY_SHORT[f"{short}-classifier"].model()
            assert (config.schedule, config.size) == (guide.schedule, guide.size)


@pytest.mark.parametrize(
    ("short", "timesteps", "kind", "rescaled"),
    [
        ("adm-64", 1000, "cosine", False),
        ("adm-256", 1000, "linear", False),
        ("iddpm-imagenet64", 4000, "cosine", True),
        ("iddpm-imagenet64-cond", 4000, "cosine", False),
        ("iddpm-64-256", 4000, "linear", False),
        ("iddpm-lsun-bedroom", 1000, "linear", False),
        ("ddpm-cifar10", 1000, "linear", False),
        ("ct-imagenet64", 201, "edm", False),
    ],
)
def test_what_weights_do_not_tell_of_noise(short: str, timesteps: int, kind: str, rescaled: bool) -> None:
    schedule = BY_SHORT[short].model().schedule
    assert (schedule.timesteps, schedule.kind, schedule.rescale_time) == (timesteps, kind, rescaled)


def test_groups_of_norms_are_the_32_of_the_authors_everywhere() -> None:
    for each in PUBLISHED:
        config = each.model()
        network = config.denoiser.network if isinstance(config, DiffusionConfig) else config.network
        if not isinstance(network, BackboneConfig):  # which normalizes no groups
            continue
        assert network.norm_groups == 32
        assert all(width % 32 == 0 for width in network.widths)


@pytest.mark.skipif(not SHAPES.exists(), reason=f"no lists of keys under {SHAPES}")
def test_the_model_of_faces_has_its_keys() -> None:
    """The one published model of these families that has no manifest among the reference outputs (`tests/golden/networks.py`)."""
    with gzip.open(SHAPES) as file:
        shapes = json.load(file)["guided-diffusion"]["ffhq_10m(ILVR)"]
    published = BY_SHORT["adm-ffhq-256"]
    with torch.device("meta"):
        weights = {key: torch.empty(shape) for key, shape in shapes.items()}
    config = published.model()
    check(config, facts(published.family, weights, "faces"), "faces", published.name)
    assert sum(tensor.numel() for tensor in ours(published.family, config, weights, "faces").values()) == 93_563_910


def test_runs_are_no_two_the_same() -> None:
    made = {name: make() for name, make in RUNS.items()}
    same = [pair for pair in itertools.combinations(made, 2) if made[pair[0]] == made[pair[1]]]
    assert same == [("consistency.edm_bedroom256", "consistency.edm_cat256")], "but for the pictures that --data names"
