"""The weights of a diffusion model: what they say when called, and that a loaded one is an ordinary module."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from lodestar import checkpoint, library
from lodestar.config import decode
from lodestar.generators.diffusion import Diffusion
from lodestar.models.classifier import PictureClassifier
from lodestar.models.diffusion import DiffusionConfig, DiffusionModel
from tests.evaluation import tiny

MODEL = tiny.diffusion()
X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Diffusion | PictureClassifier]:
    """A diffusion model and a classifier, from files."""
    folder, found = tmp_path_factory.mktemp("models"), {}
    for kind, model in (("diffusion", MODEL), ("classifier", tiny.classifier())):
        checkpoint.save(folder / kind, kind, model.config.to_json(), model.state_dict(), {})
        found[kind] = library.load(folder / kind, "cpu", dtype=torch.float32)
    return found


def test_it_says_what_it_believes_of_noisy_pictures_at_a_step() -> None:
    level, label = MODEL.config.schedule.at(30), torch.tensor([0, 2, 1])
    said = MODEL(X, 30, {"label": label})
    expected = MODEL.denoiser.bind({"label": label})(X, level)
    assert torch.equal(said.x0, expected.x0)
    assert all(value.shape == X.shape for value in (said.eps, said.score, said.v))
    torch.testing.assert_close(level.alpha * said.x0 + level.sigma * said.eps, X)
    assert not torch.allclose(MODEL(X, 30).x0, said.x0), "without its classes"
    assert torch.equal(MODEL(X, torch.tensor(30), {"label": label}).x0, said.x0)


def test_every_picture_may_have_a_step_of_its_own() -> None:
    times, label = torch.tensor([0, 30, 49]), torch.tensor([0, 2, 1])
    together = MODEL(X, times, {"label": label})
    for k, time in enumerate(times.tolist()):
        alone = MODEL(X[k : k + 1], time, {"label": label[k : k + 1]})
        for name in ("x0", "eps", "score", "v"):
            ours, theirs = getattr(together, name)[k], getattr(alone, name)[0]
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
            assert ours.dtype == torch.float32


def test_it_can_be_trained_by_the_usual_loop() -> None:
    model = copy.deepcopy(MODEL).requires_grad_()
    loss = ((model(X, torch.tensor([3, 20, 40]), {"label": torch.tensor([0, 1, 2])}).eps - 1) ** 2).mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_an_old_configuration_is_read_and_weights_are_built_apart_from_sampling() -> None:
    now = MODEL.config.to_json()
    old = now.replace('"steps":"2"', '"plan":"2"')
    assert old != now and decode(DiffusionConfig, old) == MODEL.config
    built = MODEL.config.build()
    assert type(built) is DiffusionModel and not hasattr(built, "sample")
    assert built.load_state_dict(MODEL.state_dict())
    assert torch.equal(built(X, 30).x0, MODEL(X, 30).x0)


@pytest.mark.parametrize("kind", ["diffusion", "classifier"])
def test_a_loaded_model_is_pickled_and_copied(loaded: dict[str, Diffusion | PictureClassifier], kind: str) -> None:
    model, file = loaded[kind], io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert type(other) is type(model)
        assert (other.name, other.digest, other.config) == (model.name, model.digest, model.config)
        ours, theirs = model.state_dict(), other.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) and ours[name].data_ptr() != theirs[name].data_ptr() for name in ours)
        if isinstance(other, Diffusion) and isinstance(model, Diffusion):
            assert torch.equal(other.sample("dog", 2, guidance="cfg:2").images, model.sample("dog", 2, guidance="cfg:2").images)


def test_its_companions_come_along() -> None:
    model = library.load("cifar10", "cpu")
    assert isinstance(model, Diffusion)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), Diffusion(model.config)):
        names = {role: load().name for role, load in other.companions.items()}
        assert names == ({} if other.name == "" else {role: f"cifar10_{role}" for role in ("classifier", "features", "weak")})


@pytest.mark.parametrize("kind", ["diffusion", "classifier"])
def test_its_look_is_one_line(loaded: dict[str, Diffusion | PictureClassifier], kind: str) -> None:
    text = repr(loaded[kind])
    assert "\n" not in text and len(text) < 240
    for part in (loaded[kind].name, "8×8", "3 classes", "float32", "cpu"):
        assert part in text, part
    assert "built in code" in repr({"diffusion": MODEL, "classifier": tiny.classifier()}[kind])


def test_the_look_of_what_is_inside_is_torchs(loaded: dict[str, Diffusion | PictureClassifier]) -> None:
    assert all("GroupNorm" in repr(next(model.children())) for model in loaded.values())
