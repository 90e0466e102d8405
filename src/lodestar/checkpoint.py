"""Checkpoints: a whole model in one safetensors file, with weights, configuration and provenance.

The header carries the configuration as JSON, so `peek` identifies a file without reading its weights, and SHA-256 sums, so a file
with a changed byte is refused. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lodestar.config import Problem, from_json, shown
from lodestar.files import atomic, reading, regular

FORMAT = "lodestar/1"
_TEXTS = ("kind", "config", "provenance")
_CODE = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""First bytes of zip archives and pickles."""
_FORMATS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""Number formats as safetensors names them."""
_WIDTHS = {name: dtype.itemsize for dtype, name in _FORMATS.items()}
"""Bytes of a number in each format."""
_LARGEST = 1 << 40
"""Limit of a tensor's rows; an empty one may claim any."""


@dataclass(frozen=True)
class Header:
    """The header of a checkpoint."""

    texts: Mapping[str, str]
    """Kind, configuration and provenance, as in the file."""
    digest: str
    """SHA-256 of the model: kind, configuration and weights. Provenance is hashed separately."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of each tensor."""
    dtypes: Mapping[str, str]
    """Number format of each tensor, as safetensors names them."""
    provenance: Mapping[str, Any]
    """Provenance of the weights: images seen, data, version, measured numbers."""

    @property
    def kind(self) -> str:
        """Kind of the contents: "diffusion", "classifier", "state" and so on."""
        return self.texts["kind"]

    @property
    def config(self) -> str:
        """The configuration, JSON."""
        return self.texts["config"]

    @property
    def parameters(self) -> int:
        """Number of values in the file."""
        return sum(map(math.prod, self.shapes.values()))


def save(path: str | Path, kind: str, config: str, tensors: Mapping[str, Tensor], provenance: Mapping[str, Any]) -> None:
    """Write a file atomically, one tensor after another, without a second copy in memory. Raises Problem if it cannot be
    written."""
    texts = {"kind": kind, "config": config, "provenance": json.dumps(dict(provenance))}
    metadata = {
        "format": FORMAT, **texts, "sha256": content_digest(texts, tensors), "provenance_sha256": _sha256(texts["provenance"]),
    }  # fmt: skip
    # Wide formats first, as safetensors orders them: so every tensor begins at a multiple of its values' width.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    with atomic(path) as file:
        file.write(_header(metadata, {name: tensors[name] for name in names}))
        for name in names:
            file.write(_bytes(tensors[name]))


def peek(path: str | Path) -> Header:
    """Read a file's header alone. Raises Problem if it is no checkpoint."""
    path = Path(path)
    with reading(path):
        length, header = _read_header(path)
        metadata = _object(header.pop("__metadata__", {}), "what is told of it")
        if (found := metadata.get("format", "not stated")) != FORMAT:
            raise Problem(f"{path} is a safetensors file of another kind: format {shown(found)}, not {FORMAT!r}")
        shapes, end = {}, 0
        for name, entry in sorted(header.items(), key=lambda each: each[1]["data_offsets"]):
            shapes[name], end = _entry(name, entry, end)
        if (size := path.stat().st_size) != 8 + length + end:
            raise Problem(f"{path} is cut short or has been changed: {size} bytes, its header says {8 + length + end}")
        if odd := [name for name in (*_TEXTS, "sha256", "provenance_sha256") if not isinstance(metadata[name], str)]:
            raise ValueError(f"{odd[0]} is no text")
        if metadata["provenance_sha256"] != _sha256(metadata["provenance"]):
            raise ValueError("its provenance is not the one that was written")
        return Header(
            {name: metadata[name] for name in _TEXTS},
            metadata["sha256"],
            shapes,
            {name: entry["dtype"] for name, entry in header.items()},
            _object(from_json(metadata["provenance"]), "its provenance"),
        )


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """The length of a safetensors file's header in bytes, and its contents. Raises Problem, or ValueError."""
    with open(regular(path), "rb") as file:
        size, start = path.stat().st_size, file.read(9)
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{" or length > size - 8:
            if start.startswith(_CODE):
                raise Problem(f"{path} is a pickle or zip archive, which could run code: only safetensors files are read")
            raise Problem(f"{path} is not a safetensors file, or it is cut short ({size} bytes)")
        return length, _object(from_json(start[8:] + file.read(length - 1)), "its header")


def _entry(name: str, entry: Any, begin: int) -> tuple[tuple[int, ...], int]:
    """The shape of a tensor, and the end of its values if they begin at `begin`. Raises ValueError unless both agree."""
    shape, width = _object(entry, f"the entry of {name!r}")["shape"], _WIDTHS.get(str(entry["dtype"]))
    if not isinstance(shape, list) or not all(type(side) is int and 0 <= side < _LARGEST for side in shape):
        raise ValueError(f"the shape of {name!r} is {shown(shape)}")
    if width is None:
        raise ValueError(f"{name!r} is of numbers {shown(entry['dtype'])}: choose from {', '.join(_WIDTHS)}")
    end = begin + math.prod(shape) * width
    if entry["data_offsets"] != [begin, end]:
        raise ValueError(f"{name!r} is at {shown(entry['data_offsets'])}, and its shape and those before it say {[begin, end]}")
    return tuple(shape), end


def _object(value: Any, what: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError for any other value."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is {shown(value)}, and no JSON object")
    return value


def load(path: str | Path, kind: str | None = None) -> tuple[Header, dict[str, Tensor]]:
    """Read a whole file and check it. `kind`: the required kind. Raises Problem if it is damaged or of another kind."""
    from safetensors.torch import load_file

    header = peek(path)
    if kind is not None and header.kind != kind:
        raise Problem(f"{path} holds a {header.kind}, and a {kind} is needed here")
    with reading(path):
        tensors = load_file(path)
    if content_digest(header.texts, tensors) != header.digest:
        raise Problem(f"{path} has been changed since it was written: its SHA-256 does not match")
    return header, tensors


def annotate(source: str | Path, path: str | Path, provenance: Mapping[str, Any]) -> Path:
    """Write a file's model with another provenance, in place where both paths are one; returns the path. Raises Problem."""
    header, tensors = load(source)
    save(path, header.kind, header.config, tensors, provenance)
    return Path(path)


def fill(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Copy tensors into a module, strictly, in the module's own precision. Raises Problem naming the first misfit.

    A module built on "meta" is moved to the CPU, with copies of the tensors.
    """
    expected = module.state_dict()
    if odd := expected.keys() ^ tensors.keys():
        name = min(odd)
        raise Problem(f"{where}: {name!r} is {'missing' if name in expected else 'not part of this model'}")
    for name, tensor in expected.items():
        if tensor.shape != tensors[name].shape:
            raise Problem(f"{where}: {name!r} has shape {tuple(tensors[name].shape)}, this model has {tuple(tensor.shape)}")
    # Not `Module.to_empty`: for a tensor on "meta" PyTorch loads its compiler (70 MB, a second) to allocate this.
    bare = any(tensor.is_meta for tensor in expected.values())
    values = {name: tensor.to(expected[name].dtype, copy=bare) for name, tensor in tensors.items()}
    module.load_state_dict(values, assign=bare)


def content_digest(texts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a kind, a configuration (of `texts`) and tensors, which are on the CPU."""
    digest = hashlib.sha256(f"{texts['kind']}\n{texts['config']}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    """The values of a tensor in memory, row by row."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _header(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> bytes:
    """The beginning of a safetensors file: the header's length in 8 bytes, then what each tensor is and where it stands."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": _FORMATS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
