"""Imagen in small: two stages that read a frozen language model, the second told the noise of the first one's pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lodestar
from lodestar.conditions import LowRes
from lodestar.config import edit
from lodestar.guidance import Threshold
from lodestar.presets import RUNS, imagen
from lodestar.tasks import TrainDenoiser
from lodestar.text import LanguageModel

LARGEST = 8_000_000


@pytest.mark.parametrize("name", imagen.RUNS)
def test_the_parts_are_the_papers(name: str) -> None:
    task = RUNS[name]().task
    assert isinstance(task, TrainDenoiser)
    denoiser = task.model.denoiser
    assert isinstance(task.model.limit, Threshold) and task.model.droppable and denoiser.text is not None
    assert isinstance(denoiser.text.tokenizer, LanguageModel)
    assert (denoiser.low_res == (32, 32)) == name.endswith("_up")
    assert denoiser.network.attending, "text is attended"
    weights = task.model.replace(denoiser=denoiser.replace(conditions=tuple(denoiser.conditions[1:]))).build()
    assert sum(weight.numel() for weight in weights.parameters()) < LARGEST


def _encoder(folder: Path) -> Path:
    """A small language model of random weights, in the files of transformers."""
    transformers = pytest.importorskip("transformers")
    folder.mkdir()
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "red",
        "blue",
        "circle",
        "star",
        "square",
        "triangle",
        "large",
        "small",
    ]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    return folder


def test_both_stages_train_and_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = _encoder(tmp_path / "encoder")
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))
    settings = ["data.workers=0", f"task.model.denoiser.conditions.0.tokenizer.model={encoder}"]
    base, up = (
        lodestar.train(name, *settings, images=8, batch_size=4, out=tmp_path / name)
        for name in ("shapes.imagen", "shapes.imagen_up")
    )
    stage = lodestar.Stage(up, steps="trailing:2", augment=0.1, guidance="cfg:2")
    pictures = lodestar.Cascade([base, stage]).sample(prompt="a red circle", count=2, steps="trailing:2", guidance="cfg:3")
    assert pictures.images.shape == (2, 3, 64, 64)


def test_log_snrs_tell_small_levels_apart() -> None:
    level, logsnr = LowRes(size=(4, 4), augment=1.0), LowRes(size=(4, 4), augment=1.0, tells="logsnr")
    encoders = {"level": level.build(16), "logsnr": logsnr.build(16)}
    levels = torch.tensor([0.0, 1e-3, 0.5**0.5, 1.0])
    times = {}
    for told, encoder in encoders.items():
        seen: list[torch.Tensor] = []
        assert encoder.level is not None
        encoder.level.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        given = LowRes(size=(4, 4), augment=1.0).noised(torch.zeros(4, 3, 4, 4), levels)
        encoder(given)
        times[told] = seen[0]
    torch.testing.assert_close(times["level"], 1000 * levels)
    expected = 1000 * (0.5 - torch.tensor([20.0, 2 * torch.tensor(1e3).log(), 0.0, -20.0]) / 40)
    torch.testing.assert_close(times["logsnr"], expected, atol=1e-2, rtol=0)


def test_an_override_reaches_into_a_list() -> None:
    run = edit(RUNS["shapes.imagen"](), ["task.model.denoiser.conditions.0.tokenizer.model=models/t5"])
    assert isinstance(run.task, TrainDenoiser) and run.task.model.denoiser.text is not None
    assert run.task.model.denoiser.text.tokenizer.model == "models/t5"  # type: ignore[union-attr]
    with pytest.raises(lodestar.Problem, match=r"no field 'task.model.denoiser.conditions.1': choose from 0"):
        edit(RUNS["shapes.imagen"](), ["task.model.denoiser.conditions.1.kind=text"])
