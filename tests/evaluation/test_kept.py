"""Files of statistics, and their cache."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lodestar import checkpoint
from lodestar.config import Problem
from lodestar.evaluation.kept import cached, keep, load
from lodestar.evaluation.reference import collect
from lodestar.evaluation.statistics import PARTS, Collector, Part, Statistics

from . import tiny


def known(parts: Collection[Part] = PARTS) -> Statistics:
    return collect(tiny.reference(), tiny.extractor(), Collector(parts))


@pytest.mark.parametrize("parts", [PARTS, {"moments"}, {"moments", "features"}])
def test_a_file_gives_back_what_was_kept(tmp_path: Path, parts: Collection[Part]) -> None:
    path = tmp_path / "a.safetensors"
    keep(path, tiny.reference(), known(parts), tiny.extractor(), torch.float32)
    back = load(path)
    assert (back.spec, len(back), back.channels, back.size) == ("noise", 24, 3, (8, 8))
    assert back.statistics.parts == set(parts)
    for one, other in ((back.statistics, known(parts)),):
        assert torch.equal(one.moments.mean, other.moments.mean) and torch.equal(one.moments.scatter, other.moments.scatter)
        if "features" in parts:
            assert torch.equal(one.features, other.features)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_files_that_are_no_statistics_are_problems(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(Problem, match="cannot be read: No such file"):
        load(path)
    save_file({"features": torch.zeros(3, 2)}, path)
    with pytest.raises(Problem, match="of another kind"):
        load(path)
    model = tiny.classifier()
    checkpoint.save(path, "classifier", model.config.to_json(), model.state_dict(), {})
    with pytest.raises(Problem, match="holds a classifier, and a statistics is needed"):
        load(path)
    keep(path, tiny.reference(), known(), tiny.extractor())
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(Problem, match="cut short"):
        load(path)
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    with pytest.raises(Problem, match="SHA-256 does not match"):
        load(path)


def test_a_cache_makes_once_what_is_needed_and_makes_a_damaged_file_again(tmp_path: Path) -> None:
    made: list[set[str]] = []

    def make(parts: Collection[Part]) -> Statistics:
        made.append(set(parts))
        return known(parts)

    path = tmp_path / "new" / "key.safetensors"

    def call(*parts: Part) -> Statistics:
        return cached(path, parts, tiny.reference(), tiny.extractor(), make)

    assert call("moments").features is None
    call("moments")
    assert made == [{"moments"}]
    assert torch.equal(call("features").features, known().features)  # type: ignore[arg-type]
    call("moments", "features")
    assert made[1:] == [{"moments", "features"}]
    path.write_bytes(b"cut")
    call("moments")
    assert len(made) == 3 and load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"moments.scatter": None}, "'moments.scatter' is missing"),
        ({"moments.mean": None}, "'moments.mean' is missing"),
        ({"moments.mean": torch.zeros(3)}, r"moments have a mean of \[3\] and a scatter of"),
        ({"features": torch.zeros(24, 3)}, r"features are \[24, 3\], and their mean is"),
        ({"features": None}, "not one row for each of the features"),
        ({"logits": torch.zeros(23, 3)}, r"logits are \[23, 3\], and not one row"),
    ],
)
def test_statistics_that_do_not_belong_together_are_problems(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    path = tmp_path / "a.safetensors"
    keep(path, tiny.reference(), known(), tiny.extractor())
    header, tensors = checkpoint.load(path)
    changed = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
    checkpoint.save(path, header.kind, header.config, changed, {})
    with pytest.raises(Problem, match=f"^{path} cannot be read: .*{message}"):
        load(path)
