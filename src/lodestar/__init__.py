"""Guided diffusion of images: train, sample, guide and measure.

import lodestar
dogs = lodestar.load("cifar10").sample(label="dog", count=8, guidance=lodestar.CFG(scale=3.0), seed=0)
lodestar.save(dogs, "out/dogs")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lodestar.moved import keep_earlier_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lodestar import bundle, data, guidance, nets, samplers
    from lodestar.config import Note, Problem
    from lodestar.data import shapes
    from lodestar.evaluation import metrics
    from lodestar.generators import edits
    from lodestar.generators.cascade import Cascade, Stage
    from lodestar.generators.edits import Inpaint, Interpolate, Invert, SDEdit, Upsample
    from lodestar.guidance import APG, CFG, PAG, SAG, Autoguidance, CFGpp, Clamp, Classifier, Interval, Threshold
    from lodestar.library import from_pretrained, load, push_to_hub
    from lodestar.python import edit, save
    from lodestar.python.compare import compare
    from lodestar.python.convert import convert
    from lodestar.python.evaluate import bpd, evaluate
    from lodestar.python.plan import plan
    from lodestar.python.quantize import quantize
    from lodestar.python.sweep import sweep
    from lodestar.python.train import train
    from lodestar.samplers import (
        DDIM,
        LMS,
        PLMS,
        Ancestral,
        Consistency,
        DPMAdaptive,
        DPMpp,
        DPMppSDE,
        DPMppSingle,
        EDMHeun,
        Euler,
        EulerAncestral,
        Heun,
        PredictorCorrector,
        UniPC,
    )

_HOME = {
    **dict.fromkeys(("from_pretrained", "load", "push_to_hub"), "lodestar.library"),
    **dict.fromkeys(("edit", "save"), "lodestar.python"),
    **dict.fromkeys(("bpd", "evaluate"), "lodestar.python.evaluate"),
    **{name: f"lodestar.python.{name}" for name in ("compare", "convert", "plan", "quantize", "sweep", "train")},
    **dict.fromkeys(("Note", "Problem"), "lodestar.config"),
    **dict.fromkeys(
        ("APG", "CFG", "PAG", "SAG", "Autoguidance", "CFGpp", "Clamp", "Classifier", "Interval", "Threshold"), "lodestar.guidance"
    ),
    **dict.fromkeys(("Cascade", "Stage"), "lodestar.generators.cascade"),
    **dict.fromkeys(("Inpaint", "Interpolate", "Invert", "SDEdit", "Upsample"), "lodestar.generators.edits"),
    **dict.fromkeys(
        (
            "DDIM", "LMS", "PLMS", "Ancestral", "Consistency", "DPMAdaptive", "DPMpp", "DPMppSDE", "DPMppSingle", "EDMHeun",
            "Euler", "EulerAncestral", "Heun", "PredictorCorrector", "UniPC",
        ),
        "lodestar.samplers",
    ),
}  # fmt: skip
_SPACES = {
    "bundle": "lodestar.bundle", "data": "lodestar.data", "edits": "lodestar.generators.edits",
    "guidance": "lodestar.guidance", "metrics": "lodestar.evaluation.metrics", "nets": "lodestar.nets",
    "samplers": "lodestar.samplers", "shapes": "lodestar.data.shapes",
}  # fmt: skip

__all__ = [
    "APG", "CFG", "DDIM", "LMS", "PAG", "PLMS", "SAG", "Ancestral", "Autoguidance", "CFGpp", "Cascade", "Clamp", "Classifier",
    "Consistency", "DPMAdaptive", "DPMpp", "DPMppSDE", "DPMppSingle", "EDMHeun", "Euler", "EulerAncestral", "Heun", "Inpaint",
    "Interpolate", "Interval", "Invert", "Note", "PredictorCorrector", "Problem", "SDEdit", "Stage", "Threshold", "UniPC",
    "Upsample", "bpd", "bundle", "compare", "convert", "data", "edit", "edits", "evaluate", "from_pretrained", "guidance", "load",
    "metrics", "nets", "plan", "push_to_hub", "quantize", "samplers", "save", "shapes", "sweep", "train",
]  # fmt: skip


if not TYPE_CHECKING:  # which would take any name for one of ours

    def __getattr__(name: str) -> Any:
        # Modules are imported when something of theirs is first asked for: the command line answers before torch is there.
        if name in _HOME:
            return getattr(importlib.import_module(_HOME[name]), name)
        if name in _SPACES:
            return importlib.import_module(_SPACES[name])
        raise AttributeError(f"module 'lodestar' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


keep_earlier_names()
