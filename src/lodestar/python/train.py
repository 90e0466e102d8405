"""`lodestar.train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

from lodestar import checkpoint, library
from lodestar.codecs import VQVAECodec
from lodestar.codecs.autoencoder import LatentCodec
from lodestar.config import Config, Problem, choose, edit, nearest
from lodestar.data import Pictures, Source
from lodestar.models.diffusion import DiffusionConfig
from lodestar.presets import RUNS
from lodestar.results import results_folder
from lodestar.tasks import Task, TrainCodePrior, TrainDenoiser, TrainDiscriminator
from lodestar.training import loop
from lodestar.training.inputs import Given
from lodestar.training.run import Run


class Changes(TypedDict, total=False):
    """Changes to a run that have a keyword of their own, beside the overrides; None changes nothing."""

    data: str | Path | Source | Pictures | None
    """Pictures to train on."""
    validation: str | Path | Source | Pictures | None
    """Held-out pictures to report numbers on."""
    images: int | None
    """Images to see before the run ends, repeats counted."""
    batch_size: int | None
    """Pictures at once."""
    seed: int | None
    """Seed of weights, data order and noise, 64 bits."""
    codec: str | Path | None
    """Train a diffusion model in the latents of this autoencoder (a run's folder, a file)."""
    against: str | Path | None
    """Train a discriminator that tells real pictures from those of this diffusion model (a run's folder, a file)."""
    codes: str | Path | None
    """Train a prior of the codes of this VQ-VAE (a run's folder, a file)."""
    init: str | Path | None
    """Begin with the weights, where they fit, of this model (an embedded one's name, a run's folder, a file)."""
    shard: str | None
    """Division of the run's state among processes: "none" or "full"."""
    skip_bad: bool | None
    """Skip and count pictures that cannot be decoded, or have no caption."""


def train(
    run: str | Run,
    *overrides: str | Mapping[str, Any],
    out: str | Path | None = None,
    device: str | None = None,
    **changes: Unpack[Changes],
) -> Any:
    """Train a preset on pictures, and load the model: ``lodestar.train("digits", images=20_000, out="runs/digits")``.

    run: a preset's name, or a `Run`. overrides: settings to change, as texts ("train.optimizer.rate=3e-4") or as mappings
    (``{"train.optimizer.rate": 3e-4}``). out: the run's folder (default ``runs/NAME``), which is the model's `name`, or its
    address, as "s3://bucket/run"; the same call again goes on from its last checkpoint, and returns the model at once where the
    run is done. device: "cpu", "cuda" …; default a GPU where there is one. changes: data (default the preset's) and
    validation are anything
    that `lodestar.data.open_source` takes (a path or a name, a `datasets.Dataset`, a list of pictures and labels); images: number
    of images to see until the run ends, repeats counted; init: a model to begin with; codec: an
    autoencoder; against: a diffusion model; codes: a VQ-VAE; also batch_size, seed and skip_bad.

    Returns what `lodestar.load` loads from the folder: a `Diffusion`, which samples, or a `PictureClassifier`. Progress goes to
    standard error. Raises Problem, as `lodestar.training.loop.train` does.
    """
    return library.load(trained(run, *overrides, out=out, device=device, **changes), device)


def trained(
    run: str | Run,
    *overrides: str | Mapping[str, Any],
    out: str | Path | None = None,
    device: str | None = None,
    **changes: Unpack[Changes],
) -> Path:
    """The folder of a run that has been trained; see `train`."""
    for name in changes:
        if name not in (known := Changes.__annotations__):
            more = "; settings of the run itself are overrides, such as 'train.optimizer.rate=3e-4'"
            raise Problem(f"unknown setting {name!r}: choose from {', '.join(known)}, out, device{nearest(name, known)}{more}")
    if out is None and isinstance(run, Run):
        raise Problem("out is missing: the folder of this run, which has no name of its own")
    folder = Path(f"runs/{run}") if out is None else results_folder(out)
    loop.train(configured(run, *overrides, **changes), folder, device=device, given=_given(changes))
    return folder


def configured(run: str | Run, *overrides: str | Mapping[str, Any], **changes: Unpack[Changes]) -> Run:
    """A preset's run, or one that is given, with changes and, after them, overrides. Raises Problem."""
    start = run if isinstance(run, Run) else choose("run", run, RUNS)()
    taken = _taken(start.task)
    for name in ("codec", "codes", "against"):
        if changes.get(name) is not None and name != taken:
            instead = "" if taken is None else f", which takes {taken}"
            raise Problem(f"{name} has no effect on a task {start.task.kind!r}{instead}")
    return edit(start, [paths(changes), *overrides])


def _taken(task: Task) -> str | None:
    """Of the settings that name another model, the one that a task has a place for."""
    kinds = {TrainCodePrior: "codes", TrainDiscriminator: "against", TrainDenoiser: "codec"}
    return next((name for kind, name in kinds.items() if isinstance(task, kind)), None)


def paths(changes: Changes) -> dict[str, Any]:
    """Changes as overrides of a run. Pictures that are there in Python have none: no text names them."""
    init, validation = changes.get("init"), changes.get("validation")
    given = {
        "data.source": _text(changes.get("data")),
        "data.validation": _text(validation),
        "data.held_out": None if validation is None else 0.0,
        "data.skip_bad": changes.get("skip_bad") or None,
        "train.shard": changes.get("shard"),
        "train.images": changes.get("images"),
        "train.batch_size": changes.get("batch_size"),
        "train.seed": changes.get("seed"),
        "train.init": None if init is None else str(init),
    }
    told = {path: value for path, value in given.items() if value is not None}
    if changes.get("codec") is not None:
        told |= _codec("codec", str(changes["codec"]), LatentCodec, "autoencoder")
    if changes.get("codes") is not None:
        told |= _codec("codes", str(changes["codes"]), VQVAECodec, "VQ-VAE")
    return told if changes.get("against") is None else told | _against(str(changes["against"]))


def _codec(option: str, name: str, kind: type[Config], called: str) -> dict[str, Any]:
    """The codec of an autoencoder, as overrides of a run. Raises Problem for another kind of model."""
    config = library.config(name)
    if not isinstance(config, kind):
        raise Problem(f"{option} {name} is a {config.kind}, and no {called}")
    return {"task.model.codec": config, "task.codec": {"name": name, "digest": checkpoint.peek(library.find(name)).digest}}


def _against(name: str) -> dict[str, Any]:
    """The opponent of a discriminator, as overrides of a run. Raises Problem for another kind of model."""
    config = library.config(name)
    if not isinstance(config, DiffusionConfig):
        raise Problem(f"against {name}: that is a {config.kind}, and no diffusion model")
    return {"task.opponent": config, "task.against": {"name": name, "digest": checkpoint.peek(library.find(name)).digest}}


def _text(data: str | Path | Source | Pictures | None) -> str | None:
    return str(data) if isinstance(data, str | Path) else None


def _given(changes: Changes) -> Given:
    data, validation = (None if isinstance(each := changes.get(name), str | Path) else each for name in ("data", "validation"))
    return Given(data, validation)  # type: ignore[arg-type]
