"""Models by name: those in the package, those of a run, files, and those of a hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import torch

from lodestar import checkpoint
from lodestar.config import Problem, decode, first_line, nearest
from lodestar.extras import need
from lodestar.models.classifier import ClassifierModelConfig, PictureClassifier
from lodestar.models.diffusion import Diffusion, DiffusionConfig
from lodestar.nets.precision import best_dtype, choose_device, place

WEIGHTS = Path(__file__).parent / "weights"
"""Where the embedded models are."""

MODEL = "model.safetensors"
"""What a run's folder, or a hub's repository, holds."""

_KINDS = {"diffusion": DiffusionConfig, "classifier": ClassifierModelConfig}


def embedded() -> list[str]:
    """Names of the models in the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def find(name: str | Path) -> Path:
    """The file of a model: an embedded one's name, a run's folder, a file, or ``hf:owner/repository``. Raises Problem."""
    path = Path(name)
    if str(name) in embedded():
        return WEIGHTS / f"{name}.safetensors"
    if os.path.isfile(path):  # unlike Path's, it says no to a name that no system takes
        return path
    if os.path.isdir(path):
        if (path / MODEL).exists():
            return path / MODEL
        raise Problem(f"{path} holds no {MODEL}: a run writes it at its first checkpoint")
    if str(name).startswith("hf:"):
        return _download(str(name)[3:])
    beside = path.parent.glob("*") if os.path.isdir(path.parent) else ()
    near = nearest(str(name), [*embedded(), *map(str, beside)])
    raise Problem(f"no model {str(name)!r}: choose from {', '.join(embedded())}, or give a run's folder or a file{near}")


def load(
    name: str | Path,
    device: str | torch.device | None = None,
    kind: str | None = None,
    dtype: torch.dtype | None = None,
) -> Diffusion | PictureClassifier:
    """Load a model for inference, to compute in `dtype`, or in the number format that the device is fastest in.

    name: see `find`. device: default a GPU where there is one. kind: "diffusion" or "classifier", if only that will do.
    Raises Problem if there is no such model, or it is damaged or of another kind.
    """
    path = find(name)
    target = choose_device(device)
    header, tensors = checkpoint.load(path, kind)
    settings = _config(path, header)
    with torch.device("meta"):
        model: Diffusion | PictureClassifier = settings.build()
    checkpoint.fill(model, tensors, path)
    place(model.requires_grad_(False).eval(), target)
    (model.denoiser if isinstance(model, Diffusion) else model).lower(dtype or best_dtype(target))
    model.name, model.digest = str(name), header.digest
    if isinstance(model, Diffusion):
        if (guide := companion(name)) is not None:
            model.guide = lambda: load_classifier(guide, target, dtype)
        if (weak := companion(name, "weak")) is not None:
            model.weaker = lambda: load_diffusion(weak, target, dtype)
    return model


def load_diffusion(name: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Diffusion:
    """`load`, of a diffusion model. Raises Problem if it is of another kind."""
    model = load(name, device, "diffusion", dtype)
    assert isinstance(model, Diffusion)
    return model


def load_classifier(
    name: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> PictureClassifier:
    """`load`, of a classifier. Raises Problem if it is of another kind."""
    model = load(name, device, "classifier", dtype)
    assert isinstance(model, PictureClassifier)
    return model


def from_pretrained(
    name: str | Path,
    device: str | torch.device | None = None,
    kind: str | None = None,
    dtype: torch.dtype | None = None,
) -> Diffusion | PictureClassifier:
    """`load` under the name that other libraries have for it: ``owner/repository`` is a hub's if there is no such path here."""
    elsewhere = str(name).count("/") == 1 and not str(name).startswith("hf:") and not Path(name).exists()
    return load(f"hf:{name}" if elsewhere else name, device, kind, dtype)


def config(name: str | Path) -> Any:
    """A model's configuration, read from its header alone. Raises Problem as `load` does."""
    path = find(name)
    return _config(path, checkpoint.peek(path))


def companion(name: str | Path, role: Literal["classifier", "weak"] = "classifier") -> str | None:
    """The embedded classifier that guides an embedded model, or the weaker model that it is led away from, if there is one."""
    other = f"{name}_{role}"
    return other if other in embedded() else None


def push_to_hub(name: str | Path, repository: str, *, private: bool = False) -> str:
    """Put a model, and a card of what it is, into a repository of the hub (made if it is not there); returns its address.

    name: see `find`. repository: "owner/name"; ``load("hf:owner/name")`` loads it from there. Raises Problem.
    """
    path, hub = find(name), need("huggingface_hub")
    header = checkpoint.peek(path)
    _config(path, header)
    try:
        api = hub.HfApi()
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_file(path_or_fileobj=path, path_in_repo=MODEL, repo_id=repository)
        api.upload_file(path_or_fileobj=_card(header, repository).encode(), path_in_repo="README.md", repo_id=repository)
    except (OSError, ValueError) as error:  # what the library raises are all of these two
        raise Problem(f"cannot write to {repository!r}: {first_line(error)}") from None
    return str(address)


def _card(header: checkpoint.Header, repository: str) -> str:
    """The front page of a repository: what the model is, where it comes from and how it is used, in Markdown."""
    lines = ["---", "library_name: lodestar", "pipeline_tag: unconditional-image-generation", "---", f"# {repository}", ""]
    lines += [f"A {header.kind} model of {header.parameters:,} parameters, for the library Lodestar.", ""]
    lines += ["```python", "import lodestar", "", f'model = lodestar.load("hf:{repository}")', "```", ""]
    lines += ["| | |", "|---|---|", *(f"| {key.replace('_', ' ')} | {value} |" for key, value in header.provenance.items())]
    return "\n".join(lines) + "\n"


def _config(path: Path, header: checkpoint.Header) -> Any:
    if header.kind not in _KINDS:
        raise Problem(f"{path} holds a {header.kind}, not a model: choose from {', '.join(_KINDS)}")
    return decode(_KINDS[header.kind], header.config, str(path))


def _download(repository: str) -> Path:
    hub = need("huggingface_hub")
    try:
        return Path(hub.hf_hub_download(repository, MODEL))
    except (OSError, ValueError) as error:  # what the library raises are all of these two
        raise Problem(f"cannot fetch {MODEL} of {repository!r}: {first_line(error)}") from None
