"""Models that are there in Python as files: the same file as a run writes, which `lodestar.load` reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from lodestar import __version__, checkpoint
from lodestar.config import Config, Problem, shown
from lodestar.models.look import parameters


class Model(nn.Module):
    """A model's weights, with its configuration as `config`."""

    name: str = ""
    """Name or path of the model; empty if built in code."""
    digest: str = ""
    """SHA-256 of the model's file, as `lodestar info` shows it; empty if built in code."""
    provenance: Mapping[str, Any] = MappingProxyType({})
    """Provenance in the loaded file: images seen, data, version, measured numbers."""

    def _repr_html_(self) -> str:
        """The table of parameters for a notebook."""
        return parameters(self)

    def save(self, path: str | Path) -> Path:
        """Write the model as one file for `lodestar.load`, which gives the same results in the same number format.

        path: ends in ``.safetensors``. Returns it. Raises Problem where there is something else already; see `save`.
        """
        return save(self, path)


def save(model: nn.Module, path: str | Path) -> Path:
    """Write a model as one file with its configuration, its provenance and its weights as they are; returns the path.

    path: ends in ``.safetensors``. A file that holds this model already stays as it is. Raises Problem where it holds another
    one, or something else, or cannot be written.
    """
    if not isinstance(path, str | Path):
        raise Problem(f"path {shown(path)}: the name of a model's file, which ends in .safetensors")
    path, config = Path(path), getattr(model, "config", None)
    if path.suffix != ".safetensors":
        raise Problem(f"{path}: the name of a model's file ends in .safetensors")
    if not isinstance(config, Config) or not isinstance(kind := getattr(config, "kind", None), str):
        raise Problem(f"{type(model).__name__} has no configuration of a model, so no file could be loaded again")
    text, tensors = config.to_json(), model.state_dict()
    if (there := os.path.exists(path)) and _there(path) != checkpoint.content_digest({"kind": kind, "config": text}, tensors):
        raise Problem(f"{path} holds another model: choose another name, or remove it")
    if not there:
        checkpoint.save(path, kind, text, tensors, _provenance(model))
    return path


def _there(path: Path) -> str:
    """The digest of the model that a file holds. Raises Problem where it is no file of ours."""
    try:
        return checkpoint.peek(path).digest
    except Problem as problem:
        raise Problem(f"{path} exists and holds no model ({problem}): choose another name") from None


def _provenance(model: nn.Module) -> dict[str, Any]:
    """Where a model is from: what is told of the file that it was loaded from, which file that was, and who writes this one."""
    told, name, digest = (getattr(model, each, None) for each in ("provenance", "name", "digest"))
    origin = {"saved_from": name, "saved_from_sha256": digest} if digest else {}
    return {**(told or {}), **origin, "lodestar": __version__, "torch": torch.__version__}
