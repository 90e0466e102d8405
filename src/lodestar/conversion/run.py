"""Conversion of a foreign file: recognised, renamed, written tensor by tensor, with configuration and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lodestar import __version__, checkpoint
from lodestar.config import Problem
from lodestar.conversion import foreign
from lodestar.conversion.family import Facts, Family, ModelConfig, recognize, resampled
from lodestar.conversion.published import Published, identify
from lodestar.conversion.rename import rename
from lodestar.files import check_writable, sha256
from lodestar.samplers import AnySampler


@dataclass(frozen=True)
class Converted:
    """Result of a conversion."""

    path: Path
    """The new file."""
    published: Published
    """Model recognised in the file."""
    parameters: int
    sha256: str
    """SHA-256 of the foreign file."""


def convert(
    source: Path,
    folder: Path,
    families: Sequence[Family],
    published: Sequence[Published],
    given: str | None = None,
    flags: Mapping[str, str] | None = None,
    sampler: AnySampler | None = None,
    plan: str | None = None,
) -> Converted:
    """Convert a foreign checkpoint into ``folder/NAME.safetensors``, NAME the published model's short name, or the file's.

    given: the published model's name, if unclear from the file's. flags: training flags of a user-trained file
    (`lodestar.conversion.flags`); `given` is then the name of the code with the defaults, or None for the family's. sampler,
    plan: defaults of the converted model's sampling, if given. Peak memory is about the file's size. Raises Problem, without
    writing anything, if the file cannot be read, is of no known family, or contradicts its name.
    """
    source, state = _read(source, families)
    family = recognize(families, state, source.name)
    told = facts(family, state, source.name)
    chosen = identify(source.name, given, family, told, published) if flags is None else _own(source, family, told, flags, given)
    path = folder / f"{chosen.short}.safetensors"
    check_writable(path)
    digest = sha256(source)
    chosen.check_hash(digest, source)
    config = resampled(chosen.model(), sampler, plan)
    tensors = ours(family, config, state, source.name)
    provenance = {
        "source": source.name,
        "source_sha256": digest,
        "source_url": chosen.url or chosen.page,
        **({"published": chosen.name} if flags is None else {"flags": dict(flags)}),
        "lodestar": __version__,
        "torch": torch.__version__,
    }
    checkpoint.save(path, config.kind, config.to_json(), tensors, provenance)
    return Converted(path, chosen, sum(tensor.numel() for tensor in tensors.values()), digest)


def _read(source: Path, families: Sequence[Family]) -> tuple[Path, dict[str, Tensor]]:
    """The state dict of a file, and of those beside it where the model has several; and the first of them."""
    parts = next((family.parts for family in families if source.name in family.parts), None)
    if parts is None:
        return source, foreign.read(source, [family.inside for family in families if family.inside])
    state: dict[str, Tensor] = {}
    for name, prefix in parts.items():
        path = source.with_name(name)
        if not path.exists():
            raise Problem(f"{source} is one of a model's files {' and '.join(parts)}, and {path} is missing")
        inside = [family.inside for family in families if family.inside]
        state |= {f"{prefix}{key}": tensor for key, tensor in foreign.read(path, inside).items()}
    return source.with_name(next(iter(parts))), state


def _own(source: Path, family: Family, told: Facts, flags: Mapping[str, str], code: str | None) -> Published:
    """Description of a user-trained file. Raises Problem if its family has no flags, or its weights contradict them."""
    if family.own is None:
        raise Problem(f"{source.name} has the names of {family.name}, whose flags are not read: say what it is with --as NAME")
    config = family.own(flags, told, code or family.name, source.name)
    return Published(source.stem, source.name, lambda: config, family)


def facts(family: Family, state: dict[str, Tensor], what: str) -> Facts:
    """Settings determined by the weights. Raises Problem naming the file if they are of no network of the family."""
    try:
        return family.facts({name: tuple(tensor.shape) for name, tensor in state.items()})
    except Problem as problem:
        raise Problem(f"{what} has the names of {family.name}, and {problem}") from None
    except KeyError as error:
        raise Problem(f"{what} has the names of {family.name}, and lacks {error}") from None
    except IndexError:
        raise Problem(f"{what} has the names of {family.name}, and a tensor with fewer dimensions than it has there") from None
    except (ValueError, ArithmeticError):
        raise Problem(f"{what} has the names of {family.name}, and a name or a size that no network has") from None


def ours(family: Family, config: ModelConfig, state: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    """The tensors of a foreign state dict under the names and shapes of this configuration's model.

    Most are views of the foreign tensors. Raises Problem naming mismatches.
    """
    with torch.device("meta"):
        expected = config.build().state_dict()
    network = "denoiser.network." if config.kind == "diffusion" else "network."
    labels = "denoiser."
    beside = family.beside(config)
    expected = {name: tensor for name, tensor in expected.items() if name not in beside}
    short = {name.removeprefix(network) if name.startswith(network) else name.removeprefix(labels): name for name in expected}
    renamed = rename(family.fixed(state), family.rules_for(config), {each: expected[name] for each, name in short.items()}, what)
    return {**{short[each]: tensor for each, tensor in renamed.items()}, **beside}
