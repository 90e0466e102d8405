"""Inception as an extractor: where its weights come from, what it makes of pictures, and what is said of other files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lodestar import download
from lodestar.config import Problem
from lodestar.evaluation.extractors import inception as module
from lodestar.evaluation.extractors import load_extractor, note
from lodestar.evaluation.extractors.inception import InceptionExtractor
from lodestar.nets.inception import Inception, prepare


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the published one, its weights random."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    # The published file may or may not have the norms' counters.
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in Inception().state_dict().items() if not k.endswith("num_batches_tracked")}
    rng = torch.Generator().manual_seed(0)
    state = {name: torch.empty(shape).uniform_(-0.05, 0.05, generator=rng) for name, shape in shapes.items()}
    torch.save({name: each + 1 if name.endswith(("bn.weight", "var")) else each for name, each in state.items()}, path)
    return path


def test_the_extractor_gives_what_openais_evaluator_takes_from_the_graph(weights: Path) -> None:
    extractor = load_extractor(f"inception:{weights}", "cpu")
    assert (extractor.name, extractor.dtype, extractor.channels) == (f"inception:{weights}", "float32", 3)
    assert extractor.digest == hashlib.sha256(weights.read_bytes()).hexdigest()
    pictures = torch.randint(0, 256, (2, 1, 40, 50), dtype=torch.uint8)
    found = extractor(pictures)
    assert isinstance(extractor, InceptionExtractor)
    stored = torch.load(weights, weights_only=True)
    assert all(torch.equal(tensor, stored.get(name, tensor)) for name, tensor in extractor.network.state_dict().items())
    with torch.inference_mode():
        features, logits, maps = extractor.network(prepare(pictures.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(found.features, features)
    torch.testing.assert_close(found.logits, logits)
    assert found.spatial is not None and found.spatial.shape == (2, 2023)
    torch.testing.assert_close(found.spatial.reshape(2, 17, 17, 7)[1, 3, 5], maps[1, :7, 3, 5])
    assert note(extractor, "generated", 3, (64, 64)) is None  # resizing is part of what is published


def test_other_files_are_problems(tmp_path: Path, weights: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save(torch.load(weights, weights_only=True) | {"fc.bias": torch.zeros(1000)}, tmp_path / "imagenet.pth")
    torch.save({"x": Path("/")}, tmp_path / "code.pth")
    (tmp_path / "short.pth").write_bytes(weights.read_bytes()[:1000])
    torch.save([1], tmp_path / "list.pth")
    for name, complaint in (
        ("nowhere.pth", "nowhere.pth cannot be read.*: No such file"),
        ("other.pth", r"other.pth: '.*' is (missing|not part of this model)"),
        ("imagenet.pth", r"'fc.bias' has shape \(1000,\), this model has \(1008,\)"),
        ("code.pth", "code.pth is refused: to read it, pathlib.* would have to run, and only tensors are read"),
        ("short.pth", "short.pth is cut short"),
        ("list.pth", "list.pth holds no state dict"),
    ):
        with pytest.raises(Problem, match=complaint):
            load_extractor(f"inception:{tmp_path / name}", "cpu")
    with pytest.raises(Problem, match=r"unknown field 'extractor inception wieghts': .* did you mean 'weights'"):
        load_extractor("inception:wieghts=a", "cpu")
    with pytest.raises(Problem, match=r"no extractor 'incption': choose from classifier, inception, .*did you mean 'inception'"):
        load_extractor("incption", "cpu")


def test_published_weights_come_from_the_cache_or_the_network(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(weights.read_bytes()).hexdigest())
    monkeypatch.setattr(module, "URL", weights.as_uri())
    extractor = load_extractor("inception", "cpu")
    assert extractor.name == "inception" and extractor.digest == module.SHA256
    assert (tmp_path / "downloads" / weights.name).read_bytes() == weights.read_bytes()


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], tuple[str, str]]:
    """Publishes a file: its address and SHA-256. The cache folder is tmp_path/cache."""
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))

    def publish(content: bytes) -> tuple[str, str]:
        (tmp_path / "file.bin").write_bytes(content)
        return (tmp_path / "file.bin").as_uri(), hashlib.sha256(content).hexdigest()

    return publish


def test_what_is_fetched_is_checked_and_kept(address: Callable[[bytes], tuple[str, str]], tmp_path: Path) -> None:
    url, sha256 = address(b"weights" * 1000)
    path = download.fetch(url, sha256)
    assert path == tmp_path / "cache" / "downloads" / "file.bin" and path.read_bytes() == b"weights" * 1000
    (tmp_path / "file.bin").unlink()
    assert download.fetch(url, sha256) == path
    path.write_bytes(b"weight")
    with pytest.raises(Problem, match=r"cache/downloads/file.bin is damaged, or another file: .*; remove it"):
        download.fetch(url, sha256)


def test_another_file_is_not_kept(address: Callable[[bytes], tuple[str, str]], tmp_path: Path) -> None:
    url, _ = address(b"a page that asks to log in")
    with pytest.raises(Problem, match="gave another file: its SHA-256 is"):
        download.fetch(url, "0" * 64)
    assert not list(tmp_path.rglob("downloads/*"))


def test_without_a_network_the_message_says_where_to_put_the_file(
    address: Callable[[bytes], tuple[str, str]], tmp_path: Path
) -> None:
    address(b"")
    # A port of this machine where nobody listens.
    with pytest.raises(Problem, match=r"cannot fetch http://127.0.0.1:9/a.pth \(.*\): put the file at .*/cache/downloads/a.pth$"):
        download.fetch("http://127.0.0.1:9/a.pth", "0" * 64)
