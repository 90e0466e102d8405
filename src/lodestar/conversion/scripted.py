"""TorchScript archives and pickled modules, read as tensors alone: the code in them is neither run nor looked at."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.files import reading

_DTYPES = {
    "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16, "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32, "BoolStorage": torch.bool,
}  # fmt: skip
_DEEPEST = 64
"""Maximum nesting of modules."""


def scripted(path: Path) -> bool:
    """True if a zip archive is TorchScript's: it has constants, which an ordinary PyTorch file has not."""
    with reading(path), zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_scripted(path: Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript module by name, as its state dict has them. Raises Problem if damaged, or not a module."""
    with reading(path, "cannot be read as a TorchScript archive"):
        module = _load(path, pickled=False)
    if not isinstance(module, _Object):
        raise Problem(f"{path} holds no module, but {type(module).__name__}")
    return dict(_tensors(module, "", 0))


def read_module(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a pickled module by name, as its state dict has them; None of a zip archive that holds something else.

    Raises Problem if damaged.
    """
    with reading(path, "cannot be read as a pickled module"):
        module = _load(path, pickled=True)
    known = isinstance(module, _Object) and isinstance(getattr(module, "_modules", None), dict)
    return dict(_state(module, "", 0)) if known else None


def _load(path: Path, pickled: bool) -> Any:
    """What a zip archive holds, of tensors and `_Object`s."""
    with zipfile.ZipFile(path) as archive:
        (data,) = (name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
        with archive.open(data) as file:
            return _Unpickler(file, _storages(archive, data.removesuffix("data.pkl")), pickled).load()


class _Object:
    """A module of an archive, or any other object: its attributes alone."""

    def __new__(cls, *arguments: Any) -> _Object:
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            vars(self).update(state)


class _Storage:
    """Marker of a type of storage."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Unpickler(pickle.Unpickler):
    """A reader of pickles in which every class is `_Object`, and no function is called but those that make tensors and lists."""

    def __init__(self, file: Any, storage: Callable[[str, torch.dtype], Tensor], pickled: bool) -> None:
        super().__init__(file)
        self._storage, self._pickled = storage, pickled

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Object
        if module == "torch" and name in _DTYPES:
            return _Storage(_DTYPES[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":
            return lambda values, *_: values
        if name == "set" and module in ("builtins", "__builtin__"):
            return set
        if self._pickled:
            return _Object
        raise pickle.UnpicklingError(f"{module}.{name} of its choice would have to run, and only tensors are read")

    def persistent_load(self, pid: Any) -> Tensor:
        kind, storage, key, *_ = pid
        if kind != "storage" or not isinstance(storage, _Storage):
            raise pickle.UnpicklingError("it refers to something that is no storage")
        return self._storage(str(key), storage.dtype)


def _storages(archive: zipfile.ZipFile, root: str) -> Callable[[str, torch.dtype], Tensor]:
    """A reader of storages, float [n], by key; each is read once."""
    known: dict[str, Tensor] = {}

    def storage(key: str, dtype: torch.dtype) -> Tensor:
        if key not in known:
            entry = archive.getinfo(f"{root}data/{key}")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"storage {key} is compressed")
            known[key] = torch.frombuffer(bytearray(archive.read(entry)), dtype=dtype)
        return known[key]

    return storage


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _tensors(module: _Object, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a module and of the modules in it."""
    if depth > _DEEPEST:
        raise Problem(f"modules are nested deeper than {_DEEPEST} levels")
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Object):
            yield from _tensors(value, f"{prefix}{name}.", depth + 1)


def _state(module: Any, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a pickled module's state dict."""
    if depth > _DEEPEST:
        raise Problem(f"modules are nested deeper than {_DEEPEST} levels")
    held = vars(module)
    for kind in ("_parameters", "_buffers"):
        for name, value in held.get(kind, {}).items():
            if isinstance(value, Tensor) and name not in held.get("_non_persistent_buffers_set", ()):
                yield f"{prefix}{name}", value
    for name, inner in held.get("_modules", {}).items():
        if isinstance(inner, _Object):
            yield from _state(inner, f"{prefix}{name}.", depth + 1)
