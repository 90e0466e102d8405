"""Foreign checkpoints: PyTorch's files, of which nothing but tensors is read, mapped into memory and not loaded."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lodestar.config import Problem


def read(path: Path, inside: Sequence[str] = ()) -> dict[str, Tensor]:
    """The state dict of a .pt file. inside: names under which families hold theirs, where the file is not one itself.

    The tensors are views of the file. Raises Problem if it cannot be read, is damaged, needs code to be run, or holds no
    state dict.
    """
    held = _load(path)
    held = next((held[name] for name in inside if isinstance(held, dict) and isinstance(held.get(name), dict)), held)
    if not isinstance(held, dict) or not held:
        raise Problem(f"{path} holds no state dict, but {'nothing' if held == {} else f'one {type(held).__name__}'}")
    odd = next((name for name, value in held.items() if not isinstance(value, Tensor) or not isinstance(name, str)), None)
    if odd is not None:
        names = ", ".join(map(str, list(held)[:6]))
        raise Problem(f"{path} holds no state dict: {str(odd)!r} is a {type(held[odd]).__name__} (it has {names}, …)")
    return held


def _load(path: Path) -> Any:
    try:
        # Files from before PyTorch 1.6 are no zip archives, and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        if not mapped and path.read_bytes()[:4] == b"PK\x03\x04":
            raise Problem(f"{path} is cut short: it begins as a PyTorch file, and its end is missing")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror or error}") from None
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted is None:
            raise Problem(f"{path} is no PyTorch file, or it is damaged") from None
        raise Problem(
            f"{path} is refused: to read it, {wanted[1]} of its choice would have to run, and only tensors are read"
        ) from None
    # A damaged archive or pickle raises whatever its reader stumbles over.
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, UnicodeDecodeError) as error:
        if isinstance(error, Problem):
            raise
        raise Problem(f"{path} is no PyTorch file, or it is damaged: {str(error).strip().splitlines()[0][:120]}") from None
