"""One file that is a whole model: what goes in comes out, and whatever is damaged or foreign is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lodestar import checkpoint
from lodestar.config import Problem

TENSORS = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "empty": torch.zeros(0, 4),
}
CONFIG = '{"width":8}'
PROVENANCE = {"images_seen": 12345, "data": "x"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, "diffusion", CONFIG, TENSORS, PROVENANCE)
    return path


def refused(path: Path) -> str:
    with pytest.raises(Problem) as raised:
        checkpoint.load(path)
    text = str(raised.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_what_goes_in_comes_out(path: Path) -> None:
    header, tensors = checkpoint.load(path, "diffusion")
    assert header == checkpoint.peek(path)
    assert (header.kind, header.config, header.provenance) == ("diffusion", CONFIG, PROVENANCE)
    assert header.parameters == 9
    assert header.shapes["weight"] == (2, 3)
    assert header.dtypes["half"] == "BF16"
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_the_digest_is_of_what_the_model_is(path: Path, tmp_path: Path) -> None:
    def digest(kind: str = "diffusion", config: str = CONFIG, **changes: Tensor) -> str:
        checkpoint.save(tmp_path / "other", kind, config, {**TENSORS, **changes}, {})
        return checkpoint.peek(tmp_path / "other").digest

    same = checkpoint.peek(path).digest
    assert digest() == same
    different = {digest(kind="other"), digest(config="{}"), digest(weight=torch.ones(2, 3)), digest(weight=TENSORS["weight"].T)}
    assert len(different | {same}) == 5


def test_tensors_may_be_views_or_need_gradients(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    given: dict[str, Tensor] = {"columns": base[:, 1:3], "turned": base.T, "parameter": nn.Parameter(base)}
    checkpoint.save(tmp_path / "m", "k", "{}", given, {})
    for name, tensor in checkpoint.load(tmp_path / "m")[1].items():
        assert torch.equal(tensor, given[name])


# --------------------------------------------------------------------------------------------------------- damage


def test_a_file_cut_short_anywhere_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for length in range(1, len(data), 5):
        path.write_bytes(data[:length])
        text = refused(path)
        assert "cut short" in text, f"cut to {length}: {text}"


def test_a_longer_file_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    assert "has been changed" in refused(path)


def test_an_empty_file_is_refused(path: Path) -> None:
    path.write_bytes(b"")
    assert "is not a safetensors file, or it is cut short (0 bytes)" in refused(path)


@pytest.mark.parametrize("bit", [0x01, 0x20, 0x80])
def test_a_changed_byte_is_refused_wherever_it_is(path: Path, bit: int) -> None:
    data = path.read_bytes()
    for place in range(0, len(data), 3):
        changed = bytearray(data)
        changed[place] ^= bit
        path.write_bytes(changed)
        refused(path)


def test_a_changed_weight_is_named_as_such(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "has been changed since it was written: its SHA-256 does not match" in refused(path)
    assert checkpoint.peek(path).kind == "diffusion"  # the header alone is sound


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries["__metadata__"].update(kind=5), "kind is no text"),
        (lambda entries: entries["__metadata__"].pop("config"), "'config' is missing"),
        (lambda entries: entries.update(__metadata__=[]), "what is told of it is [], and no JSON object"),
        (lambda entries: told(entries, "[1]"), "its provenance is [1], and no JSON object"),
        (lambda entries: told(entries, "[" * 70 + "]" * 70), "it is nested deeper than 64 levels"),
        (lambda entries: entries["weight"].update(shape=[2, -3]), "the shape of 'weight' is [2, -3]"),
        (lambda entries: entries["weight"].update(shape=[True, 3]), "the shape of 'weight' is [True, 3]"),
        (lambda entries: entries["empty"].update(shape=[0, 10**30]), "the shape of 'empty' is"),
        (lambda entries: entries["weight"].update(shape=[10**6, 10**6]), "'weight' is at"),
        (lambda entries: entries["weight"].update(dtype="F9"), "'weight' is of numbers 'F9': choose from F64, F32"),
        (lambda entries: entries.update(weight=7), "'int' object is not subscriptable"),
    ],
)
def test_a_header_with_something_else_in_it_is_refused(path: Path, change: Callable[[Any], Any], message: str) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    change(entries)
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    assert message in refused(path)


def told(entries: dict[str, Any], provenance: str) -> None:
    """Write down another provenance, with its sum."""
    entries["__metadata__"].update(provenance=provenance, provenance_sha256=hashlib.sha256(provenance.encode()).hexdigest())


# ---------------------------------------------------------------------------------------------------- other files


def test_another_kind_is_refused(path: Path) -> None:
    with pytest.raises(Problem, match="holds a diffusion, and a classifier is needed here"):
        checkpoint.load(path, "classifier")


def test_a_foreign_safetensors_file_is_refused(path: Path) -> None:
    save_file({"a": torch.zeros(2)}, path)
    assert "safetensors file of another kind: format 'not stated', not 'lodestar/1'" in refused(path)
    save_file({"a": torch.zeros(2)}, path, metadata={"format": "pt"})
    assert "format 'pt', not" in refused(path)


def test_a_header_of_ours_with_something_missing_is_refused(path: Path) -> None:
    save_file({"a": torch.zeros(2)}, path, metadata={"format": checkpoint.FORMAT, "kind": "diffusion"})
    assert "cannot be read: 'config' is missing" in refused(path)


class Evil:
    """Unpickling one writes a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_never_unpickled(path: Path, protocol: int) -> None:
    witness = path.with_name("witness")
    path.write_bytes(pickle.dumps(Evil(witness), protocol))
    text = refused(path)
    assert "pickle" in text if protocol >= 2 else "is not a safetensors file" in text
    assert not witness.exists()
    pickle.loads(path.read_bytes())  # the trap works
    assert witness.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torch_save_is_refused(path: Path, zipped: bool) -> None:
    witness = path.with_name("witness")
    torch.save({"w": torch.zeros(2), "x": Evil(witness)}, path, _use_new_zipfile_serialization=zipped)
    assert "is a pickle or zip archive, which could run code: only safetensors files are read" in refused(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n" + bytes(100), b"plain text that is long enough", bytes(64), b"\xff" * 64]
)
def test_any_other_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path)


def test_no_file_and_a_folder_are_problems(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(tmp_path / "absent")
    assert "cannot be read: it is a folder" in refused(tmp_path)


# -------------------------------------------------------------------------------------------------------- writing


def test_a_failure_to_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Problem, match=f"cannot write {path}: No space left on device"):
        checkpoint.save(path, "diffusion", CONFIG, {"weight": torch.ones(1000)}, {})
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


# -------------------------------------------------------------------------------------------------------- filling


def test_filling_a_module() -> None:
    module = nn.Linear(3, 2)
    given = {"weight": torch.ones(2, 3, dtype=torch.bfloat16), "bias": torch.zeros(2)}
    checkpoint.fill(module, given, "here")
    assert torch.equal(module.weight, torch.ones(2, 3))
    assert module.weight.dtype == torch.float32


def test_filling_a_module_without_memory() -> None:
    module = nn.Linear(3, 2, device="meta")
    given = {"weight": torch.ones(2, 3, dtype=torch.bfloat16), "bias": torch.zeros(2)}
    checkpoint.fill(module, given, "here")
    assert torch.equal(module.weight, torch.ones(2, 3)) and module.weight.dtype == torch.float32 and module.weight.requires_grad
    given["bias"].fill_(1)
    assert torch.equal(module.bias, torch.zeros(2)), "a copy"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight": torch.ones(2, 3)}, "here: 'bias' is missing"),
        ({"weight": torch.ones(2, 3), "bias": torch.zeros(2), "b": torch.zeros(1)}, "here: 'b' is not part of this model"),
        ({"weight": torch.ones(3, 2), "bias": torch.zeros(2)}, r"here: 'weight' has shape \(3, 2\), this model has \(2, 3\)"),
    ],
)
def test_filling_is_strict(given: dict[str, Tensor], message: str) -> None:
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    with pytest.raises(Problem, match=message):
        checkpoint.fill(module, given, "here")
    assert torch.equal(module.weight, before)
