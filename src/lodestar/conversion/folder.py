"""The layout of a diffusers folder: today's, and the older one without subfolders; weights in several forms."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lodestar.config import Note, Problem
from lodestar.conversion import foreign
from lodestar.files import read_json

UNET, SCHEDULER, INDEX = "unet/config.json", "scheduler/scheduler_config.json", "model_index.json"
_STEM = "diffusion_pytorch_model"
WEIGHTS = f"unet/{_STEM}.safetensors"
_FORMS = (f"{_STEM}.safetensors", f"{_STEM}.safetensors.index.json", f"{_STEM}.bin", f"{_STEM}.bin.index.json")


@dataclass(frozen=True)
class Parts:
    """The files of a folder."""

    config: Path
    """The network's settings."""
    scheduler: Path
    index: Mapping[str, Any]
    """Index of the pipeline's parts, by name; empty without an index file."""
    weights: Path
    """File of the network's weights, or the index of several."""

    def scheduler_class(self, settings: Mapping[str, Any]) -> str:
        """The scheduler's class: the pipeline's entry takes precedence over the settings', as in diffusers. Raises Problem if
        missing."""
        listed = self.index.get("scheduler")
        name = listed[-1] if isinstance(listed, list) and listed else settings.get("_class_name")
        own = settings.get("_class_name", name)
        if isinstance(name, str) and own != name:
            text = f"{self.scheduler} is of {own}, {INDEX} of {name}: the latter counts, as in diffusers"
            warnings.warn(Note(text), stacklevel=2)
        if not isinstance(name, str):
            raise Problem(f"{self.scheduler}: _class_name is missing: nothing tells which scheduler's settings these are")
        return name

    def tensors(self) -> dict[str, Tensor]:
        """The network's weights by foreign name. Raises Problem for a missing or damaged file."""
        return tensors(self.weights)


def tensors(weights: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights, or of an index's files, by foreign name. Raises Problem."""
    if weights.suffix != ".json":
        return foreign.read(weights)
    listed = read(weights).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(_plain(file) for file in listed.values()):
        raise Problem(f"{weights}: weight_map is no list of files by the names of their tensors")
    found: dict[str, Tensor] = {}
    for file in sorted(set(listed.values())):
        found |= foreign.read(weights.parent / file)
    if odd := sorted(set(listed) ^ set(found)):
        where = "in none of its files" if odd[0] in listed else "in its files and not in the list"
        raise Problem(f"{weights}: {odd[0]} is {where}")
    return found


def find(folder: Path) -> Parts:
    """The parts of a folder. Raises Problem for a missing part, or unknown parts of the pipeline."""
    inside = folder / UNET if (folder / UNET).exists() else folder / "config.json"
    if not inside.exists():
        raise Problem(
            f"{folder} holds no {UNET} and no config.json: a folder is converted if it is one of diffusers, with a UNet2DModel"
        )
    kind = read(inside).get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise Problem(f"{inside} is of a {kind}: only UNet2DModel is read")
    index = read(folder / INDEX) if (folder / INDEX).exists() else {}
    others = [name for name, part in index.items() if name not in ("unet", "scheduler") and isinstance(part, list) and any(part)]
    if others:
        raise Problem(
            f"{folder / INDEX} has {', '.join(others)} beside unet and scheduler: only models of pictures alone are read"
        )
    scheduler = next((path for path in (folder / SCHEDULER, folder / "scheduler_config.json") if path.exists()), None)
    if scheduler is None:
        raise Problem(f"{folder} holds no {SCHEDULER} and no scheduler_config.json: weights do not tell the noise schedule")
    return Parts(inside, scheduler, index, weights_of(inside.parent))


def read(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises Problem if it cannot be read or is none."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise Problem(f"{path} is not a JSON object")
    return content


def weights_of(folder: Path) -> Path:
    """File of a folder's weights, or their index; of a variant (half precision) if there are no others. Raises Problem."""
    found = next((folder / name for name in _FORMS if (folder / name).exists()), None)
    if found is not None:
        return found
    variants = sorted(path for path in folder.glob(f"{_STEM}.*") if path.name.endswith((".safetensors", ".index.json", ".bin")))
    if not variants:
        raise Problem(f"{folder} holds no weights: {_FORMS[0]}, {_FORMS[2]}, or the index of several (….index.json)")
    whole = [path for path in variants if path.suffix != ".json" and "-of-" not in path.name]
    if len(whole or variants) > 1 and len({path.name.removeprefix(_STEM).split(".")[1] for path in variants}) > 1:
        raise Problem(f"{folder} holds weights in several variants: {', '.join(path.name for path in variants)}; keep one")
    return next((path for path in whole or variants if path.suffix in (".json", ".safetensors")), variants[0])


def _plain(file: Any) -> bool:
    """True for a bare file name, without a path out of the folder."""
    return isinstance(file, str) and Path(file).name == file
