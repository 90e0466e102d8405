"""Priors of codes: they learn, their likelihoods are distributions, and pictures of their codes depend on their seeds alone."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lodestar
from lodestar import checkpoint
from lodestar.__main__ import main
from lodestar.codecs import VQVAECodec
from lodestar.conditions import Ask, LabelCondition, TextCondition
from lodestar.config import Problem, decode
from lodestar.data import Transforms, open_source
from lodestar.files import cache_folder
from lodestar.generators.code_prior import CodePrior, likeliest
from lodestar.generators.request import Settings
from lodestar.models.code_prior import CodePriorConfig
from lodestar.nets import AnyMap
from lodestar.nets.codebook import CodebookConfig
from lodestar.nets.pyramid import PyramidConfig
from lodestar.nets.text import TextTransformerConfig
from lodestar.python.train import configured as with_changes
from lodestar.tasks import OptimizerConfig, TrainCodePrior, TrainVQVAE
from lodestar.text import OwnTokenizer
from lodestar.training.coding import FOLDER, codes_of, write
from lodestar.training.loop import train
from lodestar.training.run import DataConfig, Run
from tests.nets.test_maps import NETWORKS
from tests.training.runs import assert_same, denoising, logged, write_pictures

KINDS = ("pixelsnail", "pixelcnn", "transformer")


def codec(levels: int = 1, codes: int = 6, size: int = 8) -> VQVAECodec:
    book = CodebookConfig(codes=codes, channels=4)
    return VQVAECodec(network=PyramidConfig(levels=levels, width=8, blocks=1, hidden=4, book=book), size=(size, size))


def prior(kind: str = "pixelsnail", levels: int = 2, codes: int = 6, size: int = 8, classes: int | None = 3) -> CodePrior:
    torch.manual_seed(0)
    network = decode(AnyMap, {**NETWORKS[kind]})
    conditions = () if classes is None else (LabelCondition(classes=classes),)
    config = CodePriorConfig(
        codec=codec(levels, codes, size), networks=(network,), conditions=conditions, droppable=classes is not None
    )
    made = CodePrior(config).eval()
    for parameter in made.levels.parameters():  # so that conditions matter
        parameter.data += 0.4 * torch.randn_like(parameter)
    return made


def log_likelihood(model: CodePrior, codes: list[Tensor], cond: dict[str, Tensor]) -> Tensor:
    """log p of the codes of all levels, float64 [B]."""
    total = torch.zeros(len(codes[0]), dtype=torch.float64)
    for level, numbers in enumerate(codes):
        logits = model.logits(level, codes, cond).double()
        total -= F.cross_entropy(logits, numbers, reduction="none").flatten(1).sum(dim=1)
    return total


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_likelihoods_of_all_small_maps_sum_to_one(kind: str) -> None:
    model = prior(kind, levels=2, codes=2)
    every = torch.tensor(list(itertools.product(range(2), repeat=5)))
    codes = [every[:, :4].view(-1, 2, 2), every[:, 4:].view(-1, 1, 1)]
    for label in range(3):
        likelihoods = log_likelihood(model, codes, {"label": torch.full((len(every),), label)}).exp()
        assert likelihoods.sum().item() == pytest.approx(1, abs=1e-6)
        assert likelihoods.std() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_independent_uniform_codes_cost_log_k_bits(kind: str) -> None:
    model, generator = prior(kind, levels=1, codes=4, classes=None), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.levels.parameters(), 1e-2)
    model.train()
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 150)
        codes = torch.randint(4, (256, 2, 2), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model.logits(0, [codes], {}), codes).backward()
        optimizer.step()
    model.eval()
    codes = torch.randint(4, (4096, 2, 2), generator=generator)
    with torch.no_grad():
        bits = F.cross_entropy(model.logits(0, [codes], {}), codes).item() / math.log(2)
    assert 1.995 < bits < 2.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_codes_depend_on_their_seed_and_not_on_caches_or_batches(kind: str, scale: float) -> None:
    model, how = prior(kind, size=16), Settings(temperature=0.9, top_k=4, top_p=0.9)
    asks = [Ask(seed=seed, label=seed % 3) for seed in range(5)]
    whole, slow = model.draw(asks, how, scale), model.draw(asks, how, scale, cached=False)
    alone = [model.draw([ask], how, scale) for ask in asks]
    for level in range(2):
        assert whole[level].shape == (5, 4 >> level, 4 >> level) and len(whole[level].unique()) > 1
        assert torch.equal(whole[level], slow[level])
        assert torch.equal(whole[level], torch.cat([each[level] for each in alone]))
    other = model.draw([Ask(seed=ask.seed, label=(ask.seed + 1) % 3) for ask in asks], how, scale)
    assert not torch.equal(whole[0], other[0])


def test_draws_have_the_models_probabilities() -> None:
    model = prior("pixelcnn", levels=1, codes=3, size=4, classes=None)  # a map of one code
    with torch.no_grad():
        wanted = (model.logits(0, [torch.zeros(1, 1, 1, dtype=torch.int64)], {})[0, :, 0, 0] / 1.5).softmax(dim=0)
    drawn = model.draw([Ask(seed=seed) for seed in range(4000)], Settings(temperature=1.5))[0].flatten().bincount() / 4000
    torch.testing.assert_close(drawn, wanted, atol=0.03, rtol=0)


def test_the_likeliest_codes_are_kept() -> None:
    logits = torch.tensor([[0.1, 0.5, 0.3, 0.1], [0.7, 0.1, 0.1, 0.1]]).log()

    def kept(top_k: int | None, top_p: float = 1.0) -> list[list[bool]]:
        found: list[list[bool]] = likeliest(logits, top_k, top_p).isfinite().tolist()
        return found

    assert kept(2)[0] == [False, True, True, False] and kept(1)[1] == [True, False, False, False]
    assert kept(None, 0.79)[0] == [False, True, True, False] and kept(None, 0.81)[0].count(True) == 3
    assert kept(None, 0.01) == [[False, True, False, False], [True, False, False, False]]
    assert kept(2, 0.4) == [[False, True, False, False], [True, False, False, False]]
    assert torch.equal(likeliest(logits), logits) and torch.equal(likeliest(logits, 9), logits)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 12)


def data(source: str) -> DataConfig:
    return DataConfig(source=source, transforms=Transforms(size=(8, 8)))


def trained(source: str, out: Path, levels: int = 1, seed: int = 0) -> str:
    """A VQ-VAE that has hardly been trained; the folder of its run."""
    run = denoising(source, images=32, seed=seed)
    train(run.replace(task=TrainVQVAE(model=codec(levels)), data=data(source)), out)
    return str(out)


def run(source: str, kind: str = "pixelsnail", levels: int = 1, **settings: Any) -> Run:
    network = decode(AnyMap, {**NETWORKS[kind], "dropout": 0.2})
    task = TrainCodePrior(model=CodePriorConfig(codec=codec(levels), networks=(network,)))
    return denoising(source, images=settings.pop("images", 48), **settings).replace(task=task, data=data(source))


def configured(run: Run, codes: str) -> Run:
    return with_changes(run, codes=codes)


def test_a_resumed_run_ends_with_the_same_bits(source: str, tmp_path: Path) -> None:
    made = configured(run(source, levels=2, optimizer=OptimizerConfig(rate=3e-3)), trained(source, tmp_path / "codec", levels=2))
    train(made, tmp_path / "whole")
    train(made.replace(train=made.train.replace(images=32)), tmp_path / "parts")
    text = (tmp_path / "parts" / "run.json").read_text()
    (tmp_path / "parts" / "run.json").write_text(text.replace('"images":32', '"images":48'))
    train(made, tmp_path / "parts")
    assert_same(tmp_path / "whole", tmp_path / "parts")
    assert {"bottom/bits", "top/bits"} <= logged(tmp_path / "whole")[-1].keys()


def test_codes_are_kept_and_those_of_another_vqvae_refused(source: str, tmp_path: Path) -> None:
    first, second = (trained(source, tmp_path / name, 2, seed) for seed, name in enumerate(("a", "b")))
    model, pictures = lodestar.load(first, "cpu", "vqvae", "float32"), open_source(source, size=8)
    told = codes_of(pictures, model, 10)
    assert len(told) == 10 and told.instead["bottom"].shape == (10, 2, 2) and told.instead["top"].shape == (10, 1, 1)
    images = torch.stack([torch.from_numpy(pictures[number][0]) for number in range(10)])
    for field, codes in zip(told.instead.values(), model.codes(images / 127.5 - 1), strict=True):
        assert torch.equal(torch.from_numpy(field).long(), codes)
    (path,) = (cache_folder() / FOLDER).glob(f"{model.digest[:32]}-*-10.parquet")
    other = lodestar.load(second, "cpu", "vqvae", "float32")
    path.rename(path.with_name(path.name.replace(model.digest[:32], other.digest[:32])))
    with pytest.raises(Problem, match=f"holds codes of another VQ-VAE .SHA-256 {model.digest}, not {other.digest}"):
        codes_of(pictures, other, 10)
    about = {"codec": model.digest, "pictures": pictures.pictured}
    bottom, top = told.instead["bottom"], told.instead["top"]
    for fields in ({"bottom": bottom + 6, "top": top}, {"bottom": bottom[:9], "top": top[:9]}, {"top": top}):
        write(path, fields, about)
        with pytest.raises(Problem, match="is damaged, and may be removed"):
            codes_of(pictures, model, 10)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Problem, match="is damaged, and may be removed"):
        codes_of(pictures, model, 10)
    made = run(source, levels=2, images=8)
    train(configured(made, first), tmp_path / "prior")
    with pytest.raises(Problem, match=r"holds another run \(its task\.codec\.name is"):
        train(configured(made, second), tmp_path / "prior")
    shutil.copy(f"{second}/model.safetensors", f"{first}/model.safetensors")
    with pytest.raises(Problem, match=r"holds another run \(its task\.codec\.digest is"):
        train(configured(made, first), tmp_path / "prior")
    with pytest.raises(Problem, match="no VQ-VAE is named whose codes are learned: --codes MODEL"):
        train(made, tmp_path / "none")
    with pytest.raises(Problem, match=r"leave data\.transforms\.flip"):
        train(configured(made.replace(data=denoising(source).data), first), tmp_path / "flipped")
    with pytest.raises(Problem, match="networks are 2, and the VQ-VAE has 1 levels"):
        configured(made, trained(source, tmp_path / "one"))
    with pytest.raises(Problem, match="codec has no effect on a task 'code_prior', which takes codes"):
        lodestar.train(made, out=tmp_path / "x", codec=first)
    with pytest.raises(Problem, match="codes has no effect on a task 'denoise', which takes codec"):
        lodestar.train("digits", out=tmp_path / "x", codes=first)


def test_commands_make_pictures_of_classes_in_one_file(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def say(*words: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as stop:
            main([*words])
        told = capsys.readouterr()
        assert stop.value.code == status, told.err
        return told.err

    vqvae = trained(source, tmp_path / "codec", 2)
    model = lodestar.train(run(source, levels=2, images=16), out=tmp_path / "prior", codes=vqvae)
    assert "codec.network.books.0.codes" in checkpoint.load(tmp_path / "prior" / "model.safetensors")[1]
    name, out = str(tmp_path / "prior"), str(tmp_path / "s")
    say(
        "sample",
        name,
        "--label",
        "b=4",
        "--temperature",
        "0.9",
        "--top-k",
        "5",
        "--top-p",
        "0.95",
        "--guidance",
        "cfg:2",
        "--out",
        out,
    )
    asked = json.loads((tmp_path / "s" / "manifest.json").read_text())["manifest"]["request"]
    assert asked["settings"]["top_k"] == 5 and asked["settings"]["top_p"] == 0.95
    say("remake", out, "--picture", "3", "--out", str(tmp_path / "again"))
    assert (tmp_path / "again" / "00003.png").read_bytes() == (tmp_path / "s" / "00003.png").read_bytes()
    pictures = model.sample(label="b", count=4, temperature=0.9, top_k=5, top_p=0.95, guidance="cfg:2", batch_size=3)
    assert torch.equal(lodestar.load(name, "cpu").sample(count=3).images, model.sample(count=3, batch_size=1).images)
    assert pictures.images.shape == (4, 3, 8, 8)
    say("info", name)
    for words, reason in (
        (("--top-k", "0"), "top_k is 0"),
        (("--top-p", "0"), "top_p is 0.0"),
        (("--top-p", "1.5"), "top_p is 1.5"),
        (("--temperature", "0"), "temperature is 0.0"),
        (("--steps", "5"), "steps has no effect on"),
        (("--reuse", "2"), "reuse has no effect on"),
        (("--label", "a+b"), "label 'a+b': a prior of codes is told one class"),
        (("--prompt", "x"), f"prompt 'x': {name} knows no text"),
        (("--guidance", "apg:2"), "guidance apg: codes are guided by cfg"),
        (("--guidance", "cfg:2,rescale=0.5"), "without rescaling"),
    ):
        assert reason in say("sample", name, *words, "--out", str(tmp_path / "no"), status=2), words
    for other, reason in (("cifar10", "it draws noise, and no codes"), (vqvae, "an autoencoder decodes once")):
        for words in (("--top-k", "3"), ("--top-p", "0.5")):
            assert reason in say("sample", other, *words, "--out", str(tmp_path / "no"), status=2)
    with pytest.raises(Problem, match="start has no effect"):
        model.sample(count=1, start=torch.zeros(1, *model.space))


@pytest.mark.parametrize("kind", ["transformer", "pixelcnn"])
def test_captions_are_a_prefix(kind: str, tmp_path: Path) -> None:
    shapes = "shapes"
    out = tmp_path / "codec"
    small = DataConfig(source=shapes, transforms=Transforms(size=(8, 8)))
    train(denoising(shapes, images=8).replace(task=TrainVQVAE(model=codec(1)), data=small), out)
    network = TextTransformerConfig(context=5, width=8, layers=1, heads=2)
    words = TextCondition(tokenizer=OwnTokenizer(size=270), network=network)
    made = run(shapes, kind, images=8).replace(data=small)
    assert isinstance(made.task, TrainCodePrior)
    model = made.task.model.replace(conditions=(words,))
    task = made.task.replace(model=model, conditional=False, kept=40)
    prior = lodestar.train(made.replace(task=task), out=tmp_path / "prior", codes=str(out))
    assert prior.reads and prior.config.droppable
    with torch.no_grad():
        torch.manual_seed(0)
        for parameter in prior.levels.parameters():  # after two steps, a text changes next to nothing
            parameter.add_(torch.randn_like(parameter))
    codes = [prior.draw([Ask(seed=seed, text=text) for seed in range(40)], Settings())[0] for text in ("a red", "blue", None)]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(codes, 2))
    first = prior.sample(prompt="a red", count=8).images
    assert first.shape == (8, 3, 8, 8)
    assert torch.equal(prior.sample(prompt="a red", count=8, guidance="cfg:1").images, first)
    assert torch.equal(prior.sample(prompt="a red", count=8, guidance="cfg:0").images, prior.sample(count=8).images)
    with pytest.raises(Problem, match="prompt"):
        prior.sample(prompt="a text of far too many tokens")


def test_what_means_nothing_is_refused() -> None:
    label = LabelCondition(classes=2)
    for settings, reason in (
        ({"conditions": (label, label)}, "condition 'label' is given twice"),
        ({"conditions": (label,), "names": ("a",)}, "1 names are given for 2 classes"),
    ):
        with pytest.raises(Problem, match=reason):
            CodePriorConfig(**settings)


def test_bits_are_those_of_the_codes(source: str, tmp_path: Path) -> None:
    vqvae = trained(source, tmp_path / "codec", 2)
    model = lodestar.train(run(source, levels=2, images=16), out=tmp_path / "prior", codes=vqvae)
    pictures = open_source(source, size=8)
    found = lodestar.bpd(model, pictures, count=12, batch_size=5, out=tmp_path / "report").numbers
    images = torch.stack([torch.from_numpy(pictures[number][0]) for number in range(12)])
    labels = torch.tensor([pictures[number][1] for number in range(12)])
    with torch.no_grad():
        bits = -log_likelihood(model, model.codec.codes(images / 127.5 - 1), {"label": labels}) / math.log(2)
    assert found["bpd"] == pytest.approx(bits.mean().item() / (3 * 8 * 8), rel=1e-5)
    assert found["code"] == pytest.approx(bits.mean().item() / 5, rel=1e-5)
    assert 4 * found["code/bottom"] + found["code/top"] == pytest.approx(5 * found["code"])
    assert found["bpd_error"] == pytest.approx(bits.std().item() / (3 * 8 * 8) / 12**0.5, rel=1e-4)
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert told["classes"] == "those of the pictures" and told["numbers"] == found
    assert "code/top" in str(lodestar.bpd(model, pictures, count=2))
    for settings, reason in (({"top_k": 3}, "top_k has no effect"), ({"steps": "5"}, "steps has no effect on the bits")):
        with pytest.raises(Problem, match=reason):
            lodestar.bpd(model, pictures, count=2, **settings)
    with pytest.raises(Problem, match="count is 1: bits per dimension need 2"):
        lodestar.bpd(model, pictures, count=1)
    report = lodestar.evaluate(model, pictures, count=8, metrics="nearest", extractor="cifar10_features", top_p=0.9)
    assert report.top_p == 0.9
