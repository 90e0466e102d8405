"""Foreign checkpoints: PyTorch or safetensors files, read as tensors alone, mapped into memory."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lodestar.checkpoint import FORMAT
from lodestar.config import Note, Problem
from lodestar.conversion.scripted import read_module, read_scripted, scripted
from lodestar.files import reading, regular

_ZIP = b"PK\x03\x04"
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod)\.)+")
"""Name prefixes added by DataParallel, DistributedDataParallel and torch.compile."""


def read(path: Path, inside: Sequence[str] = ()) -> dict[str, Tensor]:
    """Read the state dict of a .pt, .bin or safetensors file; prefixes of wrappers are removed with a Note. Tensors of a list
    are named by their numbers.

    inside: names of the entries in which families keep the state dict. The tensors are views of the file. Raises Problem if the
    file cannot be read, is damaged, needs code to be run, or holds no state dict.
    """
    held = _load_safe(path) if path.suffix == ".safetensors" else _load(path)
    held = next((held[name] for name in inside if isinstance(held, dict) and isinstance(held.get(name), dict)), held)
    if isinstance(held, list | tuple) and len(held) > 1 and all(isinstance(each, Tensor) for each in held):
        held = {str(number): each for number, each in enumerate(held)}
    if not isinstance(held, dict) or not held:
        raise Problem(f"{path} holds no state dict, but {'nothing' if held == {} else f'one {type(held).__name__}'}")
    odd = next((name for name, value in held.items() if not isinstance(value, Tensor) or not isinstance(name, str)), None)
    if odd is not None:
        names = ", ".join(map(str, list(held)[:6]))
        raise Problem(f"{path} holds no state dict: {str(odd)!r} is a {type(held[odd]).__name__} (it has {names}, …)")
    for name, tensor in held.items():
        counter = tensor.ndim == 0 and tensor.dtype == torch.int64
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or not (counter or tensor.dtype in _DTYPES):
            place = "without values" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
            raise Problem(
                f"{path}: {name} is of {str(tensor.dtype).removeprefix('torch.')}, {place}: only plain tensors of "
                f"{', '.join(str(dtype).removeprefix('torch.') for dtype in _DTYPES)} are read"
            )
        has = tensor.untyped_storage().nbytes() // tensor.element_size()
        if tensor.numel() > has:  # a view that repeats values: written out, a small file could fill any memory
            raise Problem(
                f"{path}: {name} has {tensor.numel():,} values by its shape {list(tensor.shape)}, and {has:,} are in the file"
            )
    return _unwrapped(held, path)


def _unwrapped(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The state without a wrapper's prefix."""
    prefixes = {match[0] if (match := _WRAPPERS.match(name)) else "" for name in state}
    if len(prefixes) > 1 or prefixes == {""}:
        return state
    (prefix,) = prefixes
    warnings.warn(
        Note(f"{path}: the prefix {prefix.rstrip('.')!r} of all names, a wrapper's for training, is left out"), stacklevel=2
    )
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _load_safe(path: Path) -> dict[str, Tensor]:
    with reading(path):
        with safe_open(regular(path), framework="pt") as file:
            ours = (file.metadata() or {}).get("format") == FORMAT
        if ours:
            raise Problem(f"{path} is a model of this library as it is: other projects' files are converted")
        return load_file(path)


def _load(path: Path) -> Any:
    with reading(path, "cannot be read as a PyTorch file"):
        with open(regular(path), "rb") as file:
            start = file.read(9)
        # Files from before PyTorch 1.6 are no zip archives, and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        if start.startswith(_ZIP) and not mapped:
            raise Problem(f"{path} is cut short: it begins as a PyTorch file, and its end is missing")
        if start[8:] == b"{":
            raise Problem(f"{path} is a safetensors file: PyTorch's .pt files are converted, ours are models as they are")
        if mapped and scripted(path):
            return read_scripted(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old protocols and the like: what matters raises
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            except (MemoryError, OSError):
                raise
            except Exception as error:  # whose text is advice to run the code, or what a damaged pickle stumbled over
                wanted = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
                if wanted is None:
                    raise Problem(f"{path} is no PyTorch file that can be read without running code, or it is damaged") from None
                if mapped and (module := read_module(path)) is not None:
                    return module
                raise Problem(
                    f"{path} is refused: to read it, {wanted[1]} of its choice would have to run, and only tensors are read"
                ) from None
