"""Beginning with another model's weights: what fits is taken, what does not stays as built, and both are told."""

from __future__ import annotations

from typing import Any

from lodestar import checkpoint, library
from lodestar.config import Problem, decode
from lodestar.nets.unet import BackboneConfig
from lodestar.tasks import Learner

_SILENT = ("layout", "norm_groups", "rescale_residuals")
"""Settings of a network that give weights of the same names and shapes another meaning; so does the number of heads."""


def initialize(learner: Learner, name: str) -> str:
    """Give a learner the tensors of a model (see `library.find`) that have the names and shapes of its own; tells the others.

    Raises Problem if there is no such model, if it is of another kind, if none of its weights fits, or if they mean something
    else here.
    """
    made = learner.exports()["model"]
    path = library.find(name)
    _, tensors = checkpoint.load(path, made.kind)
    _check_meaning(name, library.config(path), decode(type(library.config(path)), made.config))
    ours = made.module.state_dict()
    fitting = {key: tensor for key, tensor in tensors.items() if key in ours and tensor.shape == ours[key].shape}
    if not any(tensor.ndim > 1 for tensor in fitting.values()):
        raise Problem(f"--init {name}: none of its weights fits this run: {_differences(tensors, ours, fitting, shown=2)}")
    made.module.load_state_dict({**ours, **fitting})
    share = sum(tensor.numel() for tensor in fitting.values()) / sum(tensor.numel() for tensor in ours.values())
    told = f"begins with {len(fitting)} of {name}'s {len(tensors)} tensors, which are {share:.1%} of the parameters here"
    return told if len(fitting) == len(ours) == len(tensors) else f"{told}; {_differences(tensors, ours, fitting)}"


def _differences(theirs: dict[str, Any], ours: dict[str, Any], fitting: dict[str, Any], shown: int = 8) -> str:
    """What stays as built, and what is left out, by name."""
    fresh = [
        f"{key} {list(tensor.shape)}" + (f" (there {list(theirs[key].shape)})" if key in theirs else " (not there)")
        for key, tensor in ours.items()
        if key not in fitting
    ]
    unused = [key for key in theirs if key not in ours]
    parts = [("as built", fresh), ("left out", unused)]
    return "; ".join(f"{len(names)} {what}: {_list(names, shown)}" for what, names in parts if names)


def _list(names: list[str], shown: int) -> str:
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")


def _check_meaning(name: str, theirs: Any, ours: Any) -> None:
    there, here = _network(theirs), _network(ours)
    for field in _SILENT:
        if getattr(there, field) != getattr(here, field):
            raise Problem(
                f"--init {name}: its network's {field} is {getattr(there, field)!r}, this run's {getattr(here, field)!r}, and "
                f"weights of one mean nothing to the other: set {_path(ours)}.{field}={getattr(there, field)}"
            )
    for width in {*there.attended, there.widths[-1]} & {*here.attended, here.widths[-1]}:
        if there.heads_at(width) != here.heads_at(width):
            raise Problem(
                f"--init {name}: its attention has {there.heads_at(width)} heads at {width} channels, this run's "
                f"{here.heads_at(width)}: set {_path(ours)}.heads and .head_channels as there, "
                f"{there.heads or 'null'} and {there.head_channels or 'null'}"
            )


def _network(config: Any) -> BackboneConfig:
    return config.denoiser.network if config.kind == "diffusion" else config.network


def _path(config: Any) -> str:
    return "task.model.denoiser.network" if config.kind == "diffusion" else "task.model.network"
