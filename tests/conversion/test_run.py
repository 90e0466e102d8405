"""Converting files: what is recognised and written, and everything that is refused."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lodestar import checkpoint, library
from lodestar.config import Problem
from lodestar.conversion import FAMILIES, foreign
from lodestar.conversion.run import Converted, convert
from lodestar.generators.diffusion import Diffusion

from .foreign import MODEL, PUBLISHED, STATES, Shapes, state, unet_shapes


def write(path: Path, shapes: Shapes) -> Path:
    torch.save(state(shapes), path)
    return path


def converted(path: Path, given: str | None = None) -> Converted:
    return convert(path, path.parent / "models", FAMILIES, PUBLISHED, given)


def refusal(path: Path, given: str | None = None) -> str:
    with pytest.raises(Problem) as raised:
        converted(path, given)
    assert "\n" not in str(raised.value)
    assert not (path.parent / "models").exists()
    return str(raised.value)


@pytest.mark.parametrize("file", STATES)
def test_a_file_is_known_by_its_name_and_becomes_a_model(file: str, tmp_path: Path) -> None:
    path = write(tmp_path / file, STATES[file])
    done = converted(path)
    assert done.path == tmp_path / "models" / f"{done.published.short}.safetensors"
    assert done.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    provenance = checkpoint.peek(done.path).provenance
    assert (provenance["source"], provenance["source_sha256"], provenance["published"]) == (
        file,
        done.sha256,
        done.published.name,
    )
    model = library.load(done.path, "cpu", dtype=torch.float32)
    assert model.config == done.published.model()
    total = sum(tensor.numel() for tensor in state(STATES[file]).values())
    assert sum(parameter.numel() for parameter in model.parameters()) == total == done.parameters


def test_a_converted_model_has_the_weights_of_the_file(tmp_path: Path) -> None:
    model = library.load(converted(write(tmp_path / "tiny.pt", unet_shapes(MODEL))).path, "cpu", dtype=torch.float32)
    assert isinstance(model, Diffusion) and model.denoiser.label is not None
    weights = state(unet_shapes(MODEL))
    assert torch.equal(model.denoiser.label.table.weight, weights["label_emb.weight"])
    assert torch.equal(model.denoiser.network.head.weight, weights["out.2.weight"])
    assert torch.equal(
        model.denoiser.network.get_parameter("middle.0.attention.qkv.weight"), weights["middle_block.1.qkv.weight"][..., 0]
    )


def test_files_of_before_zip_archives_and_half_precision_are_read(tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in state(STATES["tiny.pt"]).items()}
    torch.save(half, tmp_path / "tiny.pt", _use_new_zipfile_serialization=False)
    done = converted(tmp_path / "tiny.pt")
    assert set(checkpoint.peek(done.path).dtypes.values()) == {"F16"}
    assert checkpoint.load(done.path)[1]["denoiser.network.head.weight"].dtype == torch.float16


def test_a_renamed_file_needs_to_be_told_what_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "model.pt", STATES["tiny.pt"])
    assert "its weights are those of ada/tiny or ada/twin; say which with --as NAME" in refusal(path)
    assert "no published model 'twni'" in refusal(path, "twni") and "did you mean 'twin'?" in refusal(path, "twni")
    assert converted(path, "twin").published.name == "ada/twin"
    odd = write(tmp_path / "odd.pt", unet_shapes({**MODEL, "model_channels": 16}))
    with pytest.raises(Problem, match="those of no published model known here"):
        converted(odd)


def test_what_is_mixed_up_is_said(tmp_path: Path) -> None:
    guide = write(tmp_path / "tiny.pt", STATES["tiny_guide.pt"])
    assert refusal(guide) == "tiny.pt is a classifier model, and ada/tiny is a diffusion model"
    upsampler = write(tmp_path / "up.pt", STATES["tiny_up.pt"])
    assert "denoiser.network.in_channels is 6, not 3" in refusal(upsampler, "ada/tiny")


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    whole = write(path, STATES["tiny.pt"]).read_bytes()
    flag = tmp_path / "ran"

    class Code:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return os.mkdir, (str(flag),)

    cases: list[tuple[Any, str]] = [
        (whole[: len(whole) // 2], "cut short"),
        (b"hello", "no PyTorch file"),
        (b"", "no PyTorch file"),
        ({"a": Code()}, "posix.mkdir of its choice would have to run"),
        ([torch.zeros(1)], "holds no state dict, but one list"),
        ({}, "holds no state dict, but nothing"),
        ({"weights": state(STATES["tiny.pt"])}, "'weights' is a dict"),
    ]
    for content, said in cases:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        assert said in refusal(path), said
    assert not flag.exists()
    assert "cannot be read as a PyTorch file: No such file" in refusal(tmp_path / "absent.pt")
    checkpoint.save(path, "diffusion", "{}", {}, {})
    assert "is a safetensors file" in refusal(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensor: tensor.to(torch.complex64), "is of complex64, strided"),
        (lambda tensor: tensor.to_sparse(), "is of float32, sparse_coo"),
        (lambda tensor: tensor.to("meta"), "is of float32, without values"),
        (
            lambda tensor: torch.zeros(1).expand(10**8),
            r"has 100,000,000 values by its shape [100000000], and 1 are in the file",
        ),
        (
            lambda tensor: tensor[:1, :1, :1, :1].clone().expand_as(tensor),
            f"has {math.prod(STATES['tiny.pt']['out.2.weight']):,} values by its shape",
        ),
        (lambda tensor: tensor.long(), "is of int64, strided: only plain tensors of float16, bfloat16"),
    ],
)
def test_a_tensor_that_no_network_has_is_named(change: Callable[[Tensor], Tensor], said: str, tmp_path: Path) -> None:
    held = state(STATES["tiny.pt"])
    torch.save({**held, "out.2.weight": change(held["out.2.weight"])}, tmp_path / "tiny.pt")
    assert f"tiny.pt: out.2.weight {said}" in refusal(tmp_path / "tiny.pt")


def test_a_part_of_a_larger_tensor_is_read(tmp_path: Path) -> None:
    """As a share of one tensor that others have the rest of, and one that two names have."""
    held = state(STATES["tiny.pt"])
    apart = {name: tensor.clone() for name, tensor in held.items()}
    name = "out.2.weight"
    held[name] = torch.cat([held[name], held[name]])[: len(held[name])]
    for folder, weights in (("a", held), ("b", apart)):
        (tmp_path / folder).mkdir()
        torch.save(weights, tmp_path / folder / "tiny.pt")
    one, other = (checkpoint.load(converted(tmp_path / folder / "tiny.pt").path)[0].digest for folder in "ab")
    assert one == other


def test_a_tensor_of_too_few_dimensions_is_named(tmp_path: Path) -> None:
    """Those that are changed on the way too."""
    weight = next(name for name, shape in STATES["tiny.pt"].items() if name.endswith("qkv.weight"))
    shapes = {**STATES["tiny.pt"], weight: (math.prod(STATES["tiny.pt"][weight]),)}
    assert f"1 has another shape ({weight} [" in refusal(write(tmp_path / "tiny.pt", shapes))


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("tiny.pt", {"input_blocks.99999999.0.weight": (2,)}, "input_blocks.99999999 is the last of "),
        ("tiny.pt", {"output_blocks.99999999.0.out_layers.3.weight": (2,)}, "output_blocks.99999999 is the last of "),
        ("tiny.pt", {f"input_blocks.{'9' * 5_000}.0.weight": (2,)}, "a name or a size that no network has"),
        ("tiny_guide.pt", {"out.2.positional_embedding": (4, 0)}, "a name or a size that no network has"),
    ],
    ids=["input", "output", "digits", "empty"],
)
def test_numbers_that_no_network_has_are_refused(file: str, changes: Shapes, said: str, tmp_path: Path) -> None:
    assert said in refusal(write(tmp_path / file, {**STATES[file], **changes}))


def test_averaged_weights_are_found_inside(tmp_path: Path) -> None:
    torch.save({"net_model": {"a": torch.zeros(1)}, "ema_model": {"a": torch.ones(1)}, "step": 3}, tmp_path / "ckpt.pt")
    assert foreign.read(tmp_path / "ckpt.pt", ["ema_model"])["a"].item() == 1


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    shapes = {**STATES["tiny.pt"], "time_embed.2.bias": (31,)}
    assert "1 has another shape (time_embed.2.bias [31] for time.linear2.bias [32])" in refusal(
        write(tmp_path / "tiny.pt", shapes)
    )


def test_a_file_is_fetched_once_and_checked_where_its_hash_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))
    there = write(tmp_path / "server.pt", STATES["tiny.pt"])
    published = replace(PUBLISHED[0], url=there.as_uri())
    path = published.fetch()
    assert path.read_bytes() == there.read_bytes()
    there.unlink()
    assert published.fetch() == path
    with pytest.raises(Problem, match=r"its SHA-256 is not 0+; remove it"):
        replace(published, sha256="0" * 64).fetch()
    with pytest.raises(Problem, match=r"^cannot fetch file:.*other\.pt .*: put the file at "):
        replace(published, url=(tmp_path / "other.pt").as_uri()).fetch()
    with pytest.raises(Problem, match=r"get tiny_up\.pt from https://localhost/"):
        PUBLISHED[2].fetch()


def test_a_known_hash_is_checked_of_any_file(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.pt", STATES["tiny.pt"])
    with pytest.raises(Problem, match="is not ada/tiny: its SHA-256 is"):
        convert(path, tmp_path / "models", FAMILIES, [replace(PUBLISHED[0], sha256="0" * 64)])
