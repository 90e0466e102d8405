"""Folders of transformers' CLIPModel, without that library: settings and weights as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch

from lodestar import __version__, checkpoint
from lodestar.config import Config, Problem, decode
from lodestar.conversion import foreign
from lodestar.conversion.clip import FOLDER, MEAN, STD, of
from lodestar.conversion.rename import rename
from lodestar.conversion.settings import Foreign, Only, read
from lodestar.files import check_writable, read_json
from lodestar.models.clip import ClipModelConfig
from lodestar.nets.clip import ClipConfig

_EPSILON = Only((1e-5,), "the norms of all published models have this ε")


_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
C = TypeVar("C", bound=Config)


class _Tower(Foreign):
    """Settings of both towers, those of weights' shapes, activation and heads; the others say nothing of a trained model."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int = 12
    num_attention_heads: int
    hidden_act: str = "quick_gelu"
    layer_norm_eps: Annotated[float, _EPSILON] = 1e-5

    def fields(self, where: str) -> dict[str, Any]:
        """Our fields of both towers. Raises Problem where we have no such tower."""
        if self.intermediate_size != 4 * self.hidden_size:
            raise Problem(f"{where}: intermediate_size is {self.intermediate_size}: only 4·hidden_size is read")
        return {
            "width": self.hidden_size,
            "layers": self.num_hidden_layers,
            "heads": self.num_attention_heads,
            "activation": self.hidden_act,
        }


class _Text(_Tower):
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    vocab_size: int = 49_408
    max_position_embeddings: int = 77


class _Vision(_Tower):
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    num_channels: int = 3


class _Normalisation(Config):
    image_mean: tuple[float, ...] = MEAN
    image_std: tuple[float, ...] = STD


def config_of(folder: Path) -> ClipModelConfig:
    """The configuration of a folder. Raises Problem for settings that we have no network for."""
    where = folder / "config.json"
    whole = read_json(where)
    text = _known(_Text, whole.get("text_config", {}), f"{where}: text_config")
    vision = _known(_Vision, whole.get("vision_config", {}), f"{where}: vision_config")
    picture = {
        "kind": "vit", "in_channels": vision.num_channels, "size": [vision.image_size] * 2, "patch": vision.patch_size,
        "embed": whole.get("projection_dim", 512), **vision.fields(f"{where}: vision_config"),
    }  # fmt: skip
    words = {"vocabulary": text.vocab_size, "context": text.max_position_embeddings, **text.fields(f"{where}: text_config")}
    network = decode(ClipConfig, {"image": picture, "text": words}, str(where))
    beside = folder / "preprocessor_config.json"
    seen = _known(_Normalisation, read_json(beside) if beside.is_file() else {}, str(beside))
    return of(network).replace(mean=seen.image_mean, std=seen.image_std)


def _known(kind: type[C], settings: Any, where: str) -> C:
    """The settings that are asked for, of all that transformers writes."""
    if not isinstance(settings, dict):
        raise Problem(f"{where} is no JSON object")
    given = {name: value for name, value in settings.items() if name in kind.model_fields}
    return read(kind, given, where) if issubclass(kind, Foreign) else decode(kind, given, where)


def is_clip(folder: Path) -> bool:
    """True for a folder of transformers with a CLIPModel."""
    settings = folder / "config.json"
    content = read_json(settings) if settings.is_file() else None
    return isinstance(content, dict) and content.get("model_type") == "clip"


def convert_folder(folder: Path, out: Path) -> Path:
    """Convert a folder of transformers' CLIPModel into ``out/FOLDER.safetensors``; returns its path. Raises Problem."""
    config = config_of(folder)
    path = out / f"{folder.resolve().name}.safetensors"
    check_writable(path)
    weights = next((folder / name for name in _WEIGHTS if (folder / name).exists()), None)
    if weights is None:
        raise Problem(f"{folder} holds no weights: {' or '.join(_WEIGHTS)}")
    state = foreign.read(weights)
    state = {name: tensor for name, tensor in state.items() if not name.endswith("embeddings.position_ids")}
    with torch.device("meta"):
        expected = config.network.build().state_dict()
    tensors = {f"network.{name}": tensor for name, tensor in rename(state, FOLDER, expected, str(folder)).items()}
    provenance = {"source": str(folder), "lodestar": __version__, "torch": torch.__version__}
    checkpoint.save(path, config.kind, config.to_json(), tensors, provenance)
    return path
