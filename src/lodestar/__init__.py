"""Guided diffusion of images: train, sample, guide and measure.

import lodestar
dogs = lodestar.load("cifar10").sample(label="dog", count=8, guidance=lodestar.CFG(scale=3.0), seed=0)
lodestar.save(dogs, "out/dogs")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lodestar.album import save
    from lodestar.config import Problem
    from lodestar.editor import edit
    from lodestar.guidance import APG, CFG, PAG, SAG, Autoguidance, CFGpp, Classifier, Clip, Interval, Threshold
    from lodestar.library import from_pretrained, load, push_to_hub
    from lodestar.models.edits import Inpaint, Interpolate, Invert, SDEdit, Upsample
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
    "save": "lodestar.album",
    "edit": "lodestar.editor",
    "Problem": "lodestar.config",
    **dict.fromkeys(
        ("APG", "CFG", "PAG", "SAG", "Autoguidance", "CFGpp", "Classifier", "Clip", "Interval", "Threshold"), "lodestar.guidance"
    ),
    **dict.fromkeys(("Inpaint", "Interpolate", "Invert", "SDEdit", "Upsample"), "lodestar.models.edits"),
    **dict.fromkeys(
        (
            "DDIM", "LMS", "PLMS", "Ancestral", "Consistency", "DPMAdaptive", "DPMpp", "DPMppSDE", "DPMppSingle", "EDMHeun",
            "Euler", "EulerAncestral", "Heun", "PredictorCorrector", "UniPC",
        ),
        "lodestar.samplers",
    ),
}  # fmt: skip

__all__ = [
    "APG", "CFG", "DDIM", "LMS", "PAG", "PLMS", "SAG", "Ancestral", "Autoguidance", "CFGpp", "Classifier", "Clip",
    "Consistency", "DPMAdaptive", "DPMpp", "DPMppSDE", "DPMppSingle", "EDMHeun", "Euler", "EulerAncestral", "Heun", "Inpaint",
    "Interpolate", "Interval", "Invert", "PredictorCorrector", "Problem", "SDEdit", "Threshold", "UniPC", "Upsample", "edit",
    "from_pretrained", "load", "push_to_hub", "save",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Modules are imported when something of theirs is first asked for: the command line answers before torch is there.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'lodestar' has no attribute {name!r}")
