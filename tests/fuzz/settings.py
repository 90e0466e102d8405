"""Absurd settings: every field of every configuration, overrides of runs, and short forms."""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch

import lodestar
from lodestar.config import Config, Problem, decode, edit, parse
from lodestar.core.plan import AnyPlan, Plan
from lodestar.core.schedule import Linear, Schedule
from lodestar.generators.edits import AnyEdit
from lodestar.guidance import AnyGuidance
from lodestar.presets import RUNS
from lodestar.samplers import AnySampler
from tests.fuzz.damage import absurd, mutated, text
from tests.fuzz.valid import RUN, Valid, command, python

REQUIRED: dict[str, Any] = {"count": 5, "counts": [5], "steps": 4, "low": 0.5, "high": 5.0, "labels": [0], "seeds": [0],
                            "base": {"kind": "linear"}, "kept": [1, 500], "schedule": {"kind": "linear"},
                            "edit": {"kind": "sdedit"}, "asks": [{"seed": 0}], "classes": 3, "name": "x",
                            "lodestar": "1", "model": "cifar10", "model_digest": "x", "request": {"asks": [{"seed": 0}]},
                            "spec": "x", "fingerprint": "x", "channels": 3, "size": [8, 8], "extractor": "x",
                            "extractor_digest": "x", "extractor_dtype": "float32", "teacher": "x", "other": "x", "digest": "x",
                            "sha256": "0" * 64, "parts": {"model": {"file": "x", "sha256": "0" * 64}}}  # fmt: skip
"""Values for the fields that have no default."""
INSIDE = ("lodestar.conversion.", "lodestar.presets.", "lodestar.evaluation.metrics.base")
"""Where configurations are written by us alone, and bases of others."""
OWN: dict[str, dict[str, Any]] = {"AtSteps": {"kept": [39, 17]}, "Respaced": {"timesteps": 2}, "Composed": {"wanted": [1]},
                                  "Distill": {"model": {"droppable": True}}, "Part": {"file": "x"},
                                  "Sigmas": {"ratios": [80.0, 9.0, 0.5]}, "Ramp": {"start": 0.0, "end": 1.0},
                                  "MatchClip": {"model": {}}, "TextDiff": {"origin": "x", "to": "y"},
                                  "Chosen": {"by": {"name": "x", "digest": "x"}, "candidates": "x"},
                                  "Optimum": {"plan": "sigmas:80,1", "usual": "trailing:2", "fine": "trailing:9", "error": 0.1,
                                              "usual_error": 0.2, "pictures": 4, "sampler": {"kind": "dpmpp"}},
                                  "Probe": {"purpose": "sampling", "seconds": {"x": {"float32": 1.0}}}}  # fmt: skip
"""Values that one kind alone needs."""


@functools.cache
def configurations() -> tuple[type[Config], ...]:
    """Every kind of configuration in the package that can be made."""
    for module in pkgutil.walk_packages(lodestar.__path__, "lodestar."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, waiting = set(), [Config]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        found.add(kind)
    ours = (
        kind for kind in found - {Config} if kind.__module__.startswith("lodestar.") and not kind.__module__.startswith(INSIDE)
    )
    made = (kind for kind in ours if not getattr(kind, "__abstractmethods__", None))
    return tuple(sorted(made, key=lambda kind: (kind.__module__, kind.__name__)))


def example(kind: type[Config]) -> dict[str, Any]:
    """The JSON of one of these. Raises Problem where `REQUIRED` does not have what it needs."""
    given = {name: REQUIRED[name] for name, field in kind.model_fields.items() if field.is_required() and name in REQUIRED}
    given |= OWN.get(kind.__name__, {})
    return json.loads(decode(kind, given).to_json())


def fields(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A configuration with a value that is wrong; where it is taken all the same, it can be used."""
    kinds = configurations()
    kind = rng.choice(kinds)
    changed = example(kind)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        changed = mutated(changed, rng) if isinstance(changed, dict) else changed
    content = text(changed, rng)
    return python(lambda: used(decode(kind, content, "given")))


def constructed(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """The same from Python: a field by name, of any type."""
    kind = rng.choice(configurations())
    name, value = rng.choice(list(kind.model_fields)), rng.choice((absurd(rng), absurd(rng), object(), b"x", {1}, Linear, (1, 2)))
    given = {key: REQUIRED[key] for key, field in kind.model_fields.items() if field.is_required() and key in REQUIRED}
    return python(lambda: used(kind(**{**given, name: value})))


def used(config: Config) -> None:
    """Do with a configuration what does not take long with any that a person has."""
    match config:
        case Schedule():
            config.times()
            (parse("plan", "sections:[1]", AnyPlan) if config.timesteps == 1 else decode(AnyPlan, _TWO)).steps(config)
        case Plan():
            config.levels(Linear())
    if hasattr(config, "build") and hasattr(config, "to_json") and type(config).__name__.endswith("Config"):
        with torch.device("meta"):
            config.build()
    decode(type(config), config.to_json())


_TWO = {"kind": "sections", "counts": [2]}


def overrides(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """Dotted overrides of a run."""
    run = RUNS[rng.choice(sorted(RUNS))]
    tree = json.loads(run().to_json())
    path = ".".join(map(str, rng.choice([path for path in _dotted(tree) if path])))
    value = rng.choice((absurd(rng), absurd(rng), "[" * 100_000, "9" * 10_000, "NaN", "=", ""))
    given = value if isinstance(value, str) and rng.random() < 0.5 else text(value, rng)
    more = rng.choice(([], ["=" * 100_000], ["x" * 100_000 + "=1"], ["task..model=1"], [".=1"])) if rng.random() < 0.2 else []
    return python(lambda: used(edit(run(), [f"{path}={given}", *more])))


def training(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """Overrides and options of `train` that nobody can mean."""
    wrong = rng.choice((
        ("data.workers", (10**8, -1, 1.5, "x")), ("train.batch_size", (10**9, 0, -1, "x")), ("train.seed", (2**64, -1, 10**30)),
        ("train.images", (0, -1, 10**30)), ("train.microbatch", (0, 10**30)), ("train.log_every", (0, 10**30)),
        ("task.model.schedule.timesteps", (0, -1, 10**8, 10**30)), ("task.model.denoiser.network.width", (0, -1, 10**8, 10**30)),
        ("task.model.denoiser.network.blocks", (0, -1, 10**8, [1, 10**8])), ("task.model.size", ([0, 0], [-8, 8], [10**8, 8])),
        ("task.model.denoiser.network.norm_groups", (0, 7, 10**8)), ("task.model.denoiser.classes", (0, 10**8, 10**30)),
        ("task.model.denoiser.network.multipliers", ([], [1] * 100, [10**30], [0], [-1])), ("data.transforms.size", (0, 10**8,
                                                                                                                     [1])),
        ("task.model.denoiser.network.attention", ([0], [-1], [10**8], [2] * 10_000)), ("train.optimizer.betas", ([1, 1], [2, 2],
                                                                                                                  [-1, 0])),
        ("train.optimizer.rate", (0, 10**30, 1e308, "NaN")), ("train.ema", ([], [{"kind": "decay", "decay": 2}] * 3, [{}])),
        ("task.levels", ({"kind": "loss_second_moment", "history": 10**8}, {"kind": "log_normal", "mean": 1e308}, {})),
        ("data.held_out", (1, -1, 0.9999)), ("train.init", ("", "x" * 5_000, "/dev/zero")),
        ("task.objective", ({"kind": "huber", "delta": 0}, {"kind": "hybrid", "vlb_weight": 10**30}, [], {"kind": {}})),
    ))  # fmt: skip
    value = rng.choice(wrong[1])
    given = f"{wrong[0]}={value if isinstance(value, str) else json.dumps(value)}"
    return command("train", *RUN.split(), given, "--out", "out")


def short_forms(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """Samplers, guidance, plans and edits by name, with settings."""
    what, union = rng.choice((("sampler", AnySampler), ("guidance", AnyGuidance), ("plan", AnyPlan), ("edit", AnyEdit)))
    return python(lambda: used(parse(what, spelled(union, rng), union)))


def spelled(union: Any, rng: Random) -> str:
    """A short form with a setting that is wrong."""
    from lodestar.config import kinds

    known = kinds(union)
    name = rng.choice(sorted(known))
    names = [field for field in known[name].model_fields if field != "kind"] or ["x"]
    value = absurd(rng)
    given = value if isinstance(value, str) and rng.random() < 0.5 else text(value, rng)
    return rng.choice((
        f"{name}:{rng.choice(names)}={given}", f"{name}:{given}", f"{name}:" + "1," * rng.choice((3, 100_000)), name * 1000,
        f"{name}:,,",
        f"{name}:=1", "{" * 100_000, text({"kind": name, rng.choice(names): value}, rng),
        f"{name}:{rng.choice(names)}={'9' * 10_000}",
    ))  # fmt: skip


def _dotted(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inside = tree.items() if isinstance(tree, dict) else ()
    return [path, *(each for key, value in inside for each in _dotted(value, (*path, key)))]


def makeable() -> list[str]:
    """The configurations of which no example can be made, which the fuzzer therefore misses."""
    missed = []
    for kind in configurations():
        try:
            example(kind)
        except (Problem, KeyError) as error:
            missed.append(f"{kind.__module__}.{kind.__name__}: {error}")
    return missed
