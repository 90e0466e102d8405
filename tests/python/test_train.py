"""`lodestar.train`: the run is the command's, the model comes back ready, and pictures of Python are known again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lodestar
from lodestar import checkpoint
from lodestar.__main__ import main
from lodestar.core.draws import LogNormal
from lodestar.data import open_source
from lodestar.generators.diffusion import Diffusion
from lodestar.models.classifier import PictureClassifier
from lodestar.presets import RUNS
from lodestar.python.train import configured
from lodestar.tasks import TrainDenoiser
from lodestar.tasks.denoise import DenoiseLearner
from lodestar.training.run import Run

NETWORK = "task.model.denoiser.network"
SMALL: dict[str, Any] = {
    f"{NETWORK}.width": 8, f"{NETWORK}.norm_groups": 4, f"{NETWORK}.head_channels": 8, "task.model.steps": "2",
    "train.precision": "float32",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_previews(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DenoiseLearner, "preview", lambda _: None)


def pictures(count: int = 12) -> list[tuple[np.ndarray, str]]:
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 256, (8, 8), dtype=np.uint8), ("cat", "dog")[k % 2]) for k in range(count)]


def weights(path: str | Path) -> dict[str, Tensor]:
    return checkpoint.load(Path(path) / "model.safetensors")[1]


def run_of(folder: str) -> Run:
    return Run.model_validate_json((Path(folder) / "run.json").read_text())


def test_the_function_and_the_command_train_the_same_model(tmp_path: Path) -> None:
    model = lodestar.train("digits", SMALL, "train.seed=3", images=8, batch_size=4, out="a")
    assert isinstance(model, Diffusion)
    assert (model.name, model.config.names, model.provenance["images_seen"]) == ("a", tuple("0123456789"), 8)
    assert len(model.sample(label=3, count=2)) == 2
    words = [f"{path}={value}" for path, value in SMALL.items()]
    with pytest.raises(SystemExit) as stop:
        main(["train", "digits", "train.seed=3", *words, "--images", "8", "--batch-size", "4", "--out", "b"])
    assert not stop.value.code
    assert (tmp_path / "a" / "run.json").read_text() == (tmp_path / "b" / "run.json").read_text()
    mine, theirs = weights("a"), weights("b")
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_a_run_that_is_done_is_loaded_and_a_longer_one_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    given: Any = {"images": 8, "batch_size": 8, "out": "a"}
    first = lodestar.train("digits", SMALL, **given)
    assert lodestar.train("digits", SMALL, **given).digest == first.digest
    assert lodestar.train("digits", SMALL, **given | {"images": 16}).provenance["images_seen"] == 16
    with pytest.raises(lodestar.Problem, match=r"a holds another run \(its train.seed is 0, yours 1\)"):
        lodestar.train("digits", SMALL, **given, seed=1)


def test_settings_are_texts_mappings_and_words_of_their_own(tmp_path: Path) -> None:
    levels = LogNormal(mean=0.5)
    made = configured(
        "digits", {"task.levels": levels}, "task.levels.std=2", {"train.optimizer": {"rate": 0.25}, "train.microbatch": 2},
        data=tmp_path, validation="held", images=5, batch_size=6, seed=7, init=tmp_path / "m", skip_bad=True,
    )  # fmt: skip
    assert isinstance(made.task, TrainDenoiser)
    assert made.task.levels == levels.replace(std=2.0) and levels.std != 2.0
    assert (made.train.optimizer.rate, made.train.microbatch, made.train.images) == (0.25, 2, 5)
    assert (made.train.batch_size, made.train.seed, made.train.init) == (6, 7, str(tmp_path / "m"))
    assert (made.data.source, made.data.validation, made.data.skip_bad) == (str(tmp_path), "held", True)
    assert configured("digits_classifier").data.held_out and not configured("digits_classifier", validation="x").data.held_out
    assert configured("digits") == configured(RUNS["digits"]()) == RUNS["digits"]()


def test_a_run_of_ones_own_and_a_classifier(tmp_path: Path) -> None:
    small = {path.replace("denoiser.", ""): value for path, value in SMALL.items() if "steps" not in path}
    run = configured("digits_classifier", small, images=8, batch_size=8)
    with pytest.raises(lodestar.Problem, match=r"^out is missing: the folder of this run"):
        lodestar.train(run)
    assert isinstance(lodestar.train(run, out=tmp_path / "a"), PictureClassifier)


@pytest.mark.parametrize("kind", ["list", "source"])
def test_pictures_that_are_there_in_python_are_trained_on_and_known_again(kind: str) -> None:
    def given(count: int = 12) -> Any:
        return pictures(count) if kind == "list" else open_source(pictures(count))

    def train(data: Any, **more: Any) -> Any:
        return lodestar.train("digits", SMALL, data=data, images=8, batch_size=8, out="a", **more)

    model = train(given())
    assert (model.config.names, model.shape) == (("cat", "dog"), (1, 8, 8))
    source = run_of("a").data.source
    assert source.startswith("list ") and model.provenance["data"] == source
    assert train(given()).digest == model.digest
    with pytest.raises(lodestar.Problem, match=r"a holds another run \(its data.source is 'list"):
        train(given(10))
    with pytest.raises(lodestar.Problem, match="no data 'list"):
        train(source)


def test_pictures_of_python_may_be_held_out_and_validated_on() -> None:
    more: Any = {"images": 8, "batch_size": 8}
    lodestar.train("digits", SMALL, {"data.held_out": 0.25}, data=pictures(), out="a", **more)
    lodestar.train("digits", SMALL, data=pictures(), validation=pictures(4), out="b", **more)
    first, second = run_of("a").data, run_of("b").data
    assert (first.held_out, first.validation, second.held_out) == (0.25, None, 0.0)
    assert second.validation is not None and second.validation.startswith("list ") and second.validation != second.source


@pytest.mark.parametrize(
    ("run", "overrides", "given", "said"),
    [
        ("digts", (), {}, "unknown run 'digts': choose from cifar10, .*did you mean 'digits'"),
        ("digits", ("train.rate=3",), {}, "no field 'train.rate'"),
        ("digits", ({"train.optimizer.rate": "fast"},), {}, "train.optimizer.rate is 'fast'"),
        ("digits", ({"train.init": Path("m")},), {}, r"train.init: PosixPath\('m'\) \(PosixPath\) has no place"),
        ("digits", (), {"rate": 3}, "unknown setting 'rate': choose from data, .*; settings of the run itself are overrides"),
        ("digits", (), {"images": 0}, "train.images is 0"),
        ("digits", (), {"data": "nowhere"}, "no data 'nowhere'"),
        ("digits", (), {"data": 5}, "int is no data set"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    tmp_path: Path, run: str, overrides: Any, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(lodestar.Problem, match=said):
        lodestar.train(run, *overrides, out="a", **given)
    assert not (tmp_path / "a").exists()
