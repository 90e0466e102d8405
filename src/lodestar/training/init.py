"""Initialization by another model's weights: fitting tensors are copied, others stay as built, and both are reported."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lodestar import checkpoint, library
from lodestar.conditions import TextCondition
from lodestar.conditions.embedding import EmbeddingEncoder
from lodestar.config import Problem, decode
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.clip import ClipModelConfig
from lodestar.models.diffusion import DiffusionConfig, DiffusionModel
from lodestar.models.labels import class_number
from lodestar.tasks import Learner
from lodestar.text import LanguageModel, OwnTokenizer
from lodestar.text.base import Tokenizer

_STEM = "denoiser.network.stem.weight"


def initialize(learner: Learner, name: str) -> str:
    """Copy a model's tensors (see `library.find`) with fitting names and shapes into a learner; returns a report of the others.

    Rows of classes are matched by class name, or by number without names, rows of tokens by the tokens' texts; the report tells
    how many. Raises Problem if the model is missing or of another kind, if none of its weights fits, or if their meaning is
    another one here.
    """
    made = learner.exports()["model"]
    path = library.find(name)
    _, tensors = checkpoint.load(path, made.kind)
    there = library.config(path)
    here = decode(type(there), made.config)
    _check_meaning(name, there, here)
    ours = made.module.state_dict()
    fitting = {key: tensor for key, tensor in tensors.items() if key in ours and tensor.shape == ours[key].shape}
    alike = {key for key in ours if key in tensors and ours[key].shape[1:] == tensors[key].shape[1:]}
    classes, words = [key for key in _class_tables(here) if key in alike], _token_table(here)
    pairs, notes = match_classes(there, here) if classes else ({}, [])
    tables = dict.fromkeys(classes, pairs)
    if words in alike and (found := match_tokens(tokenizer_of(there), tokenizer_of(here))) is not None:
        tables[words] = found
        notes = [*notes, f"tokens by text: {len(found)} of {len(ours[words])}"] if found else notes
    missing = 0
    for key, pairs in tables.items():
        fitting.pop(key, None)
        if pairs:
            fitting[key] = _rows(ours[key], tensors[key], pairs)
            missing += (len(ours[key]) - len(pairs)) * ours[key][0].numel()
    if (widened := _inputs(there, here, tensors, ours)) is not None:
        fitting[_STEM], new = widened
        missing += sum(new.values()) * ours[_STEM][:, 0].numel()
        notes = [*notes, f"inputs for {', '.join(new)} begin at zero"]
    if not any(tensor.ndim > 1 for tensor in fitting.values()):
        raise Problem(f"--init {name}: none of its weights fits this run: {_differences(tensors, ours, fitting, shown=2)}")
    made.module.load_state_dict({**ours, **fitting})
    if _began_without_embeddings(made.module, there, tensors):
        notes = [*notes, "of embeddings it says at first what was said of no text"]
    taken = sum(tensor.numel() for tensor in fitting.values()) - missing
    share = taken / sum(tensor.numel() for tensor in ours.values())
    told = f"begins with {len(fitting)} of {name}'s {len(tensors)} tensors, which are {share:.1%} of the parameters here"
    whole = len(fitting) == len(ours) == len(tensors)
    return "; ".join([told, *notes, *_meanings(there, here), *([] if whole else [_differences(tensors, ours, fitting)])])


def _began_without_embeddings(module: Any, there: Any, theirs: dict[str, Tensor]) -> bool:
    """Let new conditions on embeddings begin as the other model's null, so that the network begins as the other one did without a
    text; False where there is none, or where the other model knows more than texts."""
    if not isinstance(module, DiffusionModel) or not isinstance(there, DiffusionConfig):
        return False
    encoder = getattr(module.denoiser, "embedding", None)
    others = [each for each in there.denoiser.conditions if not isinstance(each, TextCondition)]
    if not isinstance(encoder, EmbeddingEncoder) or others:
        return False
    before = there.build()
    checkpoint.fill(before, theirs, "the model to begin with")
    with torch.no_grad():
        encoder.quieten(before.denoiser.null({}, 1))
    return True


def _inputs(there: Any, here: Any, theirs: dict[str, Tensor], ours: dict[str, Any]) -> tuple[Tensor, dict[str, int]] | None:
    """The first convolution with zero weights for further planes, so that the network begins as the other one, and the planes.

    None where there are no further planes.
    """
    if not isinstance(there, DiffusionConfig) or _STEM not in theirs or theirs[_STEM].shape == ours[_STEM].shape:
        return None
    before, now = _planes(there), _planes(here)
    if not before.items() <= now.items() or theirs[_STEM][:, :1].shape != ours[_STEM][:, :1].shape:
        return None
    taken = dict(zip(before, theirs[_STEM].split(list(before.values()), dim=1), strict=True))
    rooms = zip(now, ours[_STEM].split(list(now.values()), dim=1), strict=True)
    weights = [taken[name].to(room) if name in taken else torch.zeros_like(room) for name, room in rooms]
    return torch.cat(weights, dim=1), {name: count for name, count in now.items() if name not in before}


def _planes(config: DiffusionConfig) -> dict[str, int]:
    """The input channels of the network: of the picture, and of each condition with planes."""
    channels = config.denoiser.channels
    conditions = {each.kind: each.planes(channels) for each in config.denoiser.conditions}
    return {"x": channels, **{kind: count for kind, count in conditions.items() if count}}


def match_classes(there: Any, here: Any) -> tuple[dict[int, int], list[str]]:
    """The other model's class for each class here, by name or synonym, or else by number; and a description.

    Names that are numbers match the classes of these numbers if the other side has no names.
    """
    (theirs, those), (names, these) = _classes(there), _classes(here)
    if theirs is None and names is not None and all(_is_number(name, those) for name in names):
        theirs = [str(number) for number in range(those)]
    if names is None and theirs is not None and all(_is_number(name, these) for name in theirs):
        names = [str(number) for number in range(these)]
    if theirs is None or names is None:
        if those != these:
            return {}, []
        where = "on either side" if theirs is names is None else "there" if theirs is None else "here"
        return {number: number for number in range(these)}, [f"classes by number, as there are no names {where}"]
    found = {number: _known(name, theirs) for number, name in enumerate(names)}
    pairs = {number: other for number, other in found.items() if other is not None}
    new = [name.split(", ")[0] for number, name in enumerate(names) if number not in pairs]
    notes = f"classes by name: {len(pairs)} of {these}"
    return pairs, [f"{notes}, as built: {_list(new, 5)}" if new else notes]


def match_tokens(there: Tokenizer | None, here: Tokenizer | None) -> dict[int, int] | None:
    """The other tokenizer's token for each token here that stands for the same; None where all tokens are the same."""
    if there == here or there is None or here is None:
        return None
    if isinstance(there, LanguageModel) and isinstance(here, LanguageModel):
        return None if there.digest == here.digest else {}  # the columns are channels of its states
    if not isinstance(there, OwnTokenizer) or not isinstance(here, OwnTokenizer):
        return None if type(there) is type(here) else {}  # published ones of a kind have one vocabulary
    theirs = {symbol: token for token, symbol in enumerate(there.symbols)}
    return {token: theirs[symbol] for token, symbol in enumerate(here.symbols) if symbol in theirs}


def tokenizer_of(config: Any) -> Tokenizer | None:
    """The tokenizer whose tokens a model has a table of; None where it has none."""
    if isinstance(config, ClipModelConfig):
        return config.tokenizer
    text = config.denoiser.text if isinstance(config, DiffusionConfig) else None
    return text.tokenizer if isinstance(text, TextCondition) else None


def _token_table(config: Any) -> str:
    """The tensor that has a row for each token, if there is one."""
    return "network.text.token.weight" if isinstance(config, ClipModelConfig) else "denoiser.text.network.embedding.weight"


def _classes(config: Any) -> tuple[Sequence[str] | None, int]:
    """The names of a model's classes, if they have any, and how many there are."""
    return config.names, (config.denoiser.classes if isinstance(config, DiffusionConfig) else config.network.classes) or 0


def _is_number(name: str, count: int) -> bool:
    return name.isdecimal() and str(int(name)) == name and int(name) < count


def _known(name: str, names: Sequence[str]) -> int | None:
    """The number of a class by its name, else by one of its synonyms; None if missing or ambiguous."""
    for word in dict.fromkeys([name, *name.split(", ")]):
        with contextlib.suppress(Problem):
            return class_number(word, names, 0)
    return None


def _class_tables(config: Any) -> list[str]:
    """The tensors that have a row for each class."""
    if isinstance(config, DiffusionConfig):
        return ["denoiser.label.table.weight"]
    if not isinstance(config, ClassifierModelConfig):
        return []
    place = {"adaptive": "head", "attention": "head.out", "spatial": "head.2", "spatial_v2": "head.3"}[config.network.pool]
    return [f"network.{place}.{leaf}" for leaf in ("weight", "bias")]


def _rows(ours: Tensor, theirs: Tensor, pairs: Mapping[int, int]) -> Tensor:
    """A table with rows copied from another for matching classes; other rows as they are."""
    rows = ours.clone()
    rows[list(pairs)] = theirs[list(pairs.values())].to(rows)
    return rows


def _meanings(there: Any, here: Any) -> list[str]:
    """In what else weights of the same shapes meant something else; training goes on from there all the same."""
    if not isinstance(there, DiffusionConfig):
        return []
    sides = [
        (config.denoiser.prediction.kind, config.denoiser.variance, config.schedule.times()[-1].item())
        for config in (there, here)
    ]
    words = ("prediction", "variance", "last time that the network is told")
    return [
        f"its {word} was {_show(before)}, here it is {_show(now)}, which it has to learn"
        for word, before, now in zip(words, *sides, strict=True)
        if before != now
    ]


def _show(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _differences(theirs: dict[str, Any], ours: dict[str, Any], fitting: dict[str, Any], shown: int = 8) -> str:
    """Names of the tensors that stay as built, and of the unused ones."""
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
    match theirs, ours:
        case DiffusionConfig(), DiffusionConfig():
            reason = ours.denoiser.network.disagreement(theirs.denoiser.network, "task.model.denoiser.network")
        case ClassifierModelConfig(), ClassifierModelConfig():
            reason = ours.network.disagreement(theirs.network, "task.model.network")
        case _:
            reason = None
    if reason is not None:
        raise Problem(f"--init {name}: {reason}")
