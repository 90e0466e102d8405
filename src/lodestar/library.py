"""Models by name: embedded ones, runs, files, and repositories of a hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import nn

from lodestar import bundle, checkpoint
from lodestar.bundle import MAIN, SUFFIX, Found, embedded, packaged
from lodestar.codecs import AutoencoderCodec, Embeddings, VQVAECodec
from lodestar.config import Config, Problem, decode, first_line, nearest, shown
from lodestar.data.remote import copied, is_address
from lodestar.extras import need
from lodestar.generators.album import Later, Manifest
from lodestar.generators.autoencoder import VQVAE, Autoencoder
from lodestar.generators.base import Generator
from lodestar.generators.cascade import Cascade, Stage
from lodestar.generators.code_prior import CodePrior
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.editor import Editor
from lodestar.generators.gan import Gan
from lodestar.generators.guide import Guide
from lodestar.generators.unclip import UnClip, is_unclip, join_text
from lodestar.guidance import REFERENCE
from lodestar.models.autoregressive import AutoregressiveConfig, AutoregressivePrior
from lodestar.models.classifier import ClassifierModelConfig, PictureClassifier
from lodestar.models.clip import ClipModelConfig, PictureClip
from lodestar.models.code_prior import CodePriorConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.models.discriminator import DiscriminatorModelConfig, PictureDiscriminator
from lodestar.models.first import upgraded
from lodestar.models.gan import GanConfig
from lodestar.nets.int8 import between
from lodestar.nets.precision import PRECISIONS, choose_device, choose_dtype, place

MODEL = "model.safetensors"
"""File of the model in a run's folder, or in a repository of a hub."""


@dataclass(frozen=True)
class Kind:
    """A kind of model in files."""

    config: type[Config]
    build: Callable[[Any], nn.Module]
    """Builder of the module with the weights, from its configuration; the module answers requests or guides."""


KINDS: dict[str, Kind] = {
    "diffusion": Kind(DiffusionConfig, Diffusion),
    "classifier": Kind(ClassifierModelConfig, PictureClassifier),
    "clip": Kind(ClipModelConfig, PictureClip),
    "autoregressive": Kind(AutoregressiveConfig, AutoregressivePrior),
    "autoencoder": Kind(AutoencoderCodec, Autoencoder),
    "vqvae": Kind(VQVAECodec, VQVAE),
    "gan": Kind(GanConfig, Gan),
    "discriminator": Kind(DiscriminatorModelConfig, PictureDiscriminator),
    "code_prior": Kind(CodePriorConfig, CodePrior),
}
"""The kinds of models, by name in files; a new kind is added here, also from outside of the package."""


def find(name: str | Path) -> Path:
    """The checkpoint of a model: an embedded one's name, a run's folder, a file, the address of either, or
    ``hf:owner/repository``; of a bundle, its part "model". Raises Problem.
    """
    if not isinstance(name, str | Path):
        raise Problem(f"model {shown(name)}: the name of a model, a run's folder, or a file")
    path = Path(name)
    if bundled(name) is not None:
        return find(part(name, MAIN).file)
    if str(name) in embedded():
        return packaged(str(name))
    if os.path.isfile(path):  # unlike Path's, it says no to a name that no system takes
        return path
    if os.path.isdir(path):
        if (path / MODEL).exists():
            return path / MODEL
        raise Problem(f"{path} holds no {MODEL}: a run writes it at its first checkpoint")
    if str(name).startswith("hf:"):
        return _download(str(name)[3:])
    if is_address(str(name)):
        return _copied(str(name))
    beside = path.parent.glob("[!.]*") if os.path.isdir(path.parent) else ()
    near = nearest(str(name), [*embedded(), *map(str, beside)])
    if path.suffix == ".safetensors" or len(path.parts) > 1:
        raise Problem(
            f"no model {str(name)!r}: no such file or folder (lodestar convert makes published checkpoints into models){near}"
        )
    raise Problem(f"no model {str(name)!r}: choose from {', '.join(embedded())}, or give a run's folder or a file{near}")


Dtype = torch.dtype | str | None
"""A number format: a name, torch's own, or None for the fastest."""


@overload
def load(name: str | Path, device: str | torch.device | None = None, kind: None = None, dtype: Dtype = None) -> Any: ...
@overload
def load(name: str | Path, device: str | torch.device | None, kind: Literal["diffusion"], dtype: Dtype = None) -> Diffusion: ...
@overload
def load(
    name: str | Path, device: str | torch.device | None, kind: Literal["classifier"], dtype: Dtype = None
) -> PictureClassifier: ...
@overload
def load(name: str | Path, device: str | torch.device | None = None, kind: str | None = None, dtype: Dtype = None) -> Any: ...
def load(
    name: str | Path,
    device: str | torch.device | None = None,
    kind: str | None = None,
    dtype: Dtype = None,
) -> Any:
    """Load a model for inference.

    name: see `find`. device: default a GPU where there is one. dtype: the number format of its torso, "float32", "bfloat16" or,
    for a diffusion model with ranges (`lodestar.quantize`), "int8", for which a classifier takes bfloat16 or float32; default the
    fastest on the device, measured once on CPUs (`lodestar.nets.precision.choose_dtype`). kind: "diffusion",
    "classifier" or "clip", if only that will do. Returns a `Diffusion`, a `PictureClassifier`, a `PictureClip`, or what another
    kind of `KINDS` builds; of a bundle with a decoder and a CLIP, and without `kind`, an `UnClip`.
    Raises Problem if there is no such model, or it is damaged or of another kind.
    """
    path = find(name)
    target = choose_device(device)
    header, tensors = checkpoint.load(path, kind)
    settings = _config(path, header)
    with torch.device("meta"):
        model: Any = KINDS[header.kind].build(settings)
    checkpoint.fill(model, tensors, path)
    place(model.requires_grad_(False).eval(), target)
    if hasattr(model, "lower"):
        model.lower(_chosen(name, dtype, target, settings))
    model.name, model.digest, model.provenance = str(name), header.digest, header.provenance
    if isinstance(model, Generator):
        model.companions = {role: partial(load, other, target, dtype=dtype) for role, other in companions(name).items()}
    if isinstance(model, Diffusion):
        join_text(model)
    parts_of = bundled(name)
    if kind is None and parts_of is not None and isinstance(model, Diffusion) and is_unclip(model):
        whole = UnClip(model)
        whole.digest = bundle.read(parts_of).digest
        return whole
    return model


def load_generator(name: str | Path, device: str | torch.device | None = None, dtype: Dtype = None) -> Generator:
    """Load a generator of pictures; see `load`. Raises Problem for a model of anything else."""
    model = load(name, device, dtype=dtype)
    if not isinstance(model, Generator):
        raise Problem(f"{name} holds a {model.config.kind}, and a model that makes pictures is needed here")
    if isinstance(model, Diffusion) and isinstance(model.config.codec, Embeddings):
        raise Problem(f"{name} makes embeddings and no pictures: sample from a bundle that has a decoder too")
    return model


def _chosen(name: str | Path, asked: Dtype, device: torch.device, settings: Any) -> torch.dtype:
    """The number format of a model; of a network that can have no ranges (a prior's), for 8 bits the one beside them.

    Raises Problem where it is asked for 8 bits and its ranges are not known.
    """
    ranged = isinstance(settings, DiffusionConfig) and settings.denoiser.network.ranged
    dtype = choose_dtype(asked, device, ranged=ranged)
    if dtype == torch.int8 and isinstance(settings, DiffusionConfig) and not ranged:
        if settings.denoiser.network.kind != "unet":
            return between()
        raise Problem(
            f"precision int8: {name} has no ranges of its activations; lodestar quantize {name} --data … --out … finds them, "
            "or choose from float32, bfloat16"
        )
    return dtype


def load_diffusion(name: str | Path, device: str | torch.device | None = None, dtype: Dtype = None) -> Diffusion:
    """Load a diffusion model; see `load`. Raises Problem if it is of another kind."""
    return load(name, device, "diffusion", dtype)


def load_editor(name: str | Path, device: str | torch.device | None = None, dtype: Dtype = None) -> Editor:
    """Load a model that makes pictures of pictures; see `load`. Raises Problem if it is of another kind."""
    model = load_generator(name, device, dtype)
    if not isinstance(model, Editor):
        raise Problem(f"{find(name)} edits no pictures")
    return model


def load_classifier(name: str | Path, device: str | torch.device | None = None, dtype: Dtype = None) -> PictureClassifier:
    """Load a classifier; see `load`. Raises Problem if it is of another kind."""
    return load(name, device, "classifier", dtype)


def from_pretrained(
    name: str | Path,
    device: str | torch.device | None = None,
    kind: str | None = None,
    dtype: Dtype = None,
) -> Any:
    """Alias of `load`. ``owner/repository`` is looked up on the hub if there is no such path."""
    elsewhere = str(name).count("/") == 1 and not str(name).startswith("hf:") and not os.path.exists(name)
    return load(f"hf:{name}" if elsewhere else name, device, kind, dtype)


def config(name: str | Path) -> Any:
    """A model's configuration, read from its header alone. Raises Problem as `load` does."""
    path = find(name)
    return _config(path, checkpoint.peek(path))


def bundled(name: str | Path) -> Path | None:
    """The bundle of this name, a file's or that of an embedded model; None where there is none."""
    path = packaged(str(name)) if str(name) in embedded() else Path(name)
    return path if path.name.endswith(SUFFIX) and os.path.isfile(path) else None


def parts(name: str | Path) -> dict[str, Found]:
    """The parts of a bundle, by role (`lodestar.bundle`); none of a model of one file. Raises Problem where one is not sound."""
    path = bundled(name)
    return {} if path is None else bundle.find(path)


def part(name: str | Path, role: str) -> Found:
    """The part of a bundle in a role: its name is what `load` takes. Raises Problem where there is none."""
    found = parts(name)
    if role not in found:
        there = f"it has {', '.join(found)}" if found else "it is a model of one file"
        raise Problem(f"{bundled(name) or name} has no part {role!r}: {there}{nearest(role, found)}")
    return found[role]


def companions(name: str | Path) -> dict[str, str]:
    """The names of the models that go with a model, by role: the other ones in its bundle."""
    return {role: each.name for role, each in parts(name).items() if role != MAIN and each.kind in {"bundle", *KINDS}}


def load_guides(names: Mapping[str, str], device: str | torch.device | None = None, dtype: Dtype = None) -> dict[str, Guide]:
    """Guides by role, of the models with these names (see `find`). Raises Problem."""
    return {role: load(name, device, dtype=dtype) for role, name in names.items()}


def load_origin(manifest: Manifest, device: str | None = None) -> tuple[Generator, dict[str, Guide]]:
    """The generator of a manifest's pictures, and its guides, by role, but for reference pictures, which are beside a manifest.

    Raises Problem if they have changed since.
    """
    model, guides = _made_by(manifest, device)
    if not manifest.later:
        return model, guides
    further = [(*_made_by(each, device), how) for each, how in zip(manifest.later, manifest.request.later, strict=False)]
    return Cascade([model, *(Stage(each, guides=theirs, **dict(how)) for each, theirs, how in further)]), guides


def _made_by(origin: Manifest | Later, device: str | None) -> tuple[Any, dict[str, Guide]]:
    """The generator of a manifest or of a further stage, and its guides by role. Raises Problem."""
    models = {role: each for role, each in origin.guides.items() if role != REFERENCE}
    dtype = None if origin.dtype is None else PRECISIONS[origin.dtype]
    for what, name in (
        ("diffusion model", origin.model),
        *((f"{role} model", each.name) for role, each in models.items()),
    ):
        if name == "":
            raise Problem(f"the {what} of these pictures was built in code, and not loaded by a name that could be loaded again")
    model = load(origin.model, device, dtype=dtype)
    if not isinstance(model, Generator):
        raise Problem(f"{origin.model} holds no generator of pictures")
    guides = load_guides({role: each.name for role, each in models.items()}, device, dtype)
    known = {role: each.digest for role, each in models.items()}
    for loaded, digest in ((model, origin.model_digest), *((guides[role], digest) for role, digest in known.items())):
        if loaded.digest != digest:
            raise Problem(f"{loaded.name} is not the model that made these pictures: its weights have changed since")
    return model, guides


def push_to_hub(name: str | Path, repository: str, *, private: bool = False) -> str:
    """Put a model, with a descriptive card, into a repository of the hub (made if missing); returns its address.

    name: see `find`. repository: "owner/name"; ``load("hf:owner/name")`` loads it from there. Raises Problem.
    """
    path, hub = find(name), need("huggingface_hub")
    header = checkpoint.peek(path)
    _config(path, header)
    with _hub(f"cannot write to {repository!r}"):
        api = hub.HfApi()
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_file(path_or_fileobj=path, path_in_repo=MODEL, repo_id=repository)
        api.upload_file(path_or_fileobj=_card(header, repository).encode(), path_in_repo="README.md", repo_id=repository)
    return str(address)


def _card(header: checkpoint.Header, repository: str) -> str:
    """The front page of a repository: description, provenance and use of the model, in Markdown."""
    lines = ["---", "library_name: lodestar", "pipeline_tag: unconditional-image-generation", "---", f"# {repository}", ""]
    lines += [f"A {header.kind} model of {header.parameters:,} parameters, for the library Lodestar.", ""]
    lines += ["```python", "import lodestar", "", f'model = lodestar.load("hf:{repository}")', "```", ""]
    lines += ["| | |", "|---|---|", *(f"| {key.replace('_', ' ')} | {value} |" for key, value in header.provenance.items())]
    return "\n".join(lines) + "\n"


def _config(path: Path, header: checkpoint.Header) -> Any:
    if header.kind not in KINDS:
        raise Problem(f"{path} holds a {header.kind}, not a model: choose from {', '.join(KINDS)}")
    return decode(KINDS[header.kind].config, upgraded(header.config), str(path))


def _copied(url: str) -> Path:
    """The copy of a model at an address, its own or that of a run's folder; made again where the file has changed."""
    if url.endswith(SUFFIX):
        raise Problem(f"{url} is a bundle, and its parts are files beside it: bring them here, or give the address of one part")
    return copied(url if url.endswith(Path(MODEL).suffix) else f"{url.rstrip('/')}/{MODEL}")


def _download(repository: str) -> Path:
    hub = need("huggingface_hub")
    with _hub(f"cannot fetch {MODEL} of {repository!r}"):
        return Path(hub.hf_hub_download(repository, MODEL))


@contextmanager
def _hub(failure: str) -> Iterator[None]:
    """Turn any exception of the hub's library into a Problem: its HTTP library's are of other kinds in each version."""
    try:
        yield
    except Exception as error:
        raise Problem(f"{failure}: {first_line(error)}") from error
