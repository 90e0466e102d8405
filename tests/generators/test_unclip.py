"""DALL·E 2 in small: a CLIP of random weights, a prior and a decoder trained on it for a moment, and their bundle."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lodestar
from lodestar import bundle
from lodestar.__main__ import main
from lodestar.codecs.embeddings import Whitening
from lodestar.conditions import Ask, ClipText
from lodestar.config import Note, Problem
from lodestar.conversion import karlo
from lodestar.data import open_source
from lodestar.generators import unclip_edits as edits
from lodestar.generators.album import Manifest
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.edits.request import EditRequest, Material
from lodestar.generators.priors import Autoregressive, DiffusionPrior
from lodestar.generators.request import Settings, seeded
from lodestar.generators.unclip import UnClip
from lodestar.images import load_png, save_png
from lodestar.models.autoregressive import AutoregressiveConfig
from lodestar.models.clip import ClipModelConfig, PictureClip
from lodestar.nets.clip import ClipConfig, TextTowerConfig
from lodestar.nets.clip_image import ViTConfig
from lodestar.nets.codes import CodesConfig
from lodestar.presets import shapes
from lodestar.samplers import DDIM, Heun
from lodestar.text import OwnTokenizer
from lodestar.training.embedding import embedded
from lodestar.training.loop import train
from lodestar.training.run import Run

KEPT = 24
NETWORK = {"width": 8, "norm_groups": 4, "head_channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (2,)}


def clip(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    image = ViTConfig(size=(16, 16), embed=12, patch=8, width=16, layers=1, heads=2)
    network = ClipConfig(image=image, text=TextTowerConfig(vocabulary=300, context=160, width=16, layers=1, heads=2))
    return PictureClip(ClipModelConfig(network=network, tokenizer=OwnTokenizer(size=300, merges=""))).save(path)


def small(run: Run, clip: Path, **network: object) -> Run:
    """A preset's run in tiny."""
    data = run.model_dump(mode="json")
    denoiser = data["task"]["model"]["denoiser"]
    denoiser["network"] |= network
    for condition in denoiser["conditions"]:
        condition["width"] = 16
    return tiny(data, clip)


def tiny(data: dict[str, Any], clip: Path) -> Run:
    """A run with settings changed: a few pictures, and this CLIP."""
    data["task"] |= {"clip": str(clip), "kept": KEPT}
    data["data"] |= {"transforms": {"size": 16}, "workers": 0}
    data["train"] |= {"images": 16, "batch_size": 8, "precision": "float32"}
    return Run.model_validate_json(json.dumps(data))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unclip")
    tower = clip(folder / "clip.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LODESTAR_CACHE", str(folder / "cache"))
        train(small(shapes.prior(), tower, width=16, layers=1, heads=2), folder / "prior", device="cpu")
        train(small(shapes.decoder(), tower, **NETWORK), folder / "decoder", device="cpu")
        codes = shapes.prior_ar().model_dump(mode="json")
        codes["task"]["model"]["network"] |= {"codes": 6, "buckets": 8, "similarities": 4, "width": 16, "layers": 1, "heads": 2}
        codes["task"]["model"]["text"] |= {"width": 16}
        train(tiny(codes, tower), folder / "prior_ar", device="cpu")
    bundle.save(folder / "all.bundle.json", files(folder))
    return folder


def files(folder: Path, **others: Path) -> dict[str, Path]:
    own = {"model": "decoder/model.safetensors", "clip": "clip.safetensors"}
    own |= {role: f"{role}/model.safetensors" for role in ("prior", "prior_ar")}
    return {**{role: folder / file for role, file in own.items()}, **others}


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def lively(parts: Path) -> Path:
    """A bundle whose decoder has random weights, and makes other pictures of other embeddings; as built, its head is zero."""
    decoder = lodestar.load(parts / "decoder", "cpu", dtype="float32")
    torch.manual_seed(0)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    decoder.save(parts / "lively.safetensors")
    bundle.save(parts / "lively.bundle.json", files(parts, model=parts / "lively.safetensors"))
    return parts / "lively.bundle.json"


def load(parts: Path, file: str = "all.bundle.json") -> UnClip:
    model = lodestar.load(parts / file, "cpu", dtype="float32")
    assert isinstance(model, UnClip)
    return model


def test_a_prior_is_whitened_by_all_embeddings_which_are_kept_on_disk(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LODESTAR_CACHE", str(parts / "cache"))
    (kept,) = (parts / "cache" / "embeddings").glob("*.safetensors")
    tower = lodestar.load(parts / "clip.safetensors", "cpu", dtype="float32")
    source, before = open_source("shapes", size=16, captions=True), kept.stat().st_mtime_ns
    whole = embedded(source, tower, KEPT)
    values = whole.instead["embedding"]
    assert values is not None and values.shape == (KEPT, 12) and kept.stat().st_mtime_ns == before
    pictures = torch.from_numpy(np.stack([source.image(row) for row in range(KEPT)]))
    assert np.allclose(tower.image_features(pictures.float() / 127.5 - 1).detach(), values, atol=1e-5)
    codec = lodestar.load(parts / "prior", "cpu", dtype="float32").codec
    assert isinstance(codec, Whitening)
    assert np.allclose(codec.mean, values.mean(0), atol=1e-5) and np.allclose(codec.std, values.std(0, ddof=1), atol=1e-5)
    row = whole.row(3)
    assert row is not None and set(row) == {"embedding", "caption"} and len(whole) == KEPT


def test_a_prompt_becomes_an_embedding_and_that_a_picture(parts: Path) -> None:
    model = load(parts)
    asks = [Ask(seed=seed, text=text) for seed, text in ((0, "a red circle"), (1, "a blue square"), (0, "a red circle"))]
    told = model.embedded(asks)
    assert told[0].others == told[2].others != told[1].others and all(ask.text is None for ask in told)
    alone = model.embedded(asks[1:2])[0].others["embedding"]
    assert np.allclose(alone, told[1].others["embedding"], atol=1e-4)
    pictures = model.sample(prompt=["a red circle", "a blue square"], count=4, steps=2, batch_size=3)
    assert pictures.images.shape == (4, 3, 16, 16)
    frames = model.decoder.stream(seeded(model.embedded(pictures.request.asks), 0, pictures.request.settings))
    again = torch.cat([frame.images for frame in frames if frame.final])
    assert (again.int() - pictures.images.int()).abs().max() <= 1


def test_the_candidate_nearest_to_the_text_is_kept(parts: Path) -> None:
    model = load(parts)
    asks, prior = [Ask(seed=4, text="a red circle")], model.model_of(model.prior)
    text = torch.nn.functional.normalize(model.clip.text_features(["a red circle"]))

    def similarity(best_of: int) -> float:
        found = DiffusionPrior(best_of=best_of, steps="4").embed(prior, model.clip, asks)
        return float((torch.nn.functional.normalize(found) * text).sum())

    assert similarity(1) <= similarity(2) <= similarity(8)
    assert similarity(1) < similarity(8)


def test_the_command_samples_and_remakes(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, out = str(parts / "all.bundle.json"), tmp_path / "out"
    options = ["--prompt", "a red circle", "--prompt", "a blue square", "--steps", "2", "--precision", "float32"]
    assert run(["sample", whole, *options, "--count", "3", "--prior", "diffusion:scale=1.5,best_of=1", "--out", str(out)]) == 0
    told = Manifest.read(out).request.asks[2].others["prior"]
    assert told == {"kind": "diffusion", "scale": 1.5, "steps": None, "best_of": 1}
    assert run(["remake", str(out), "--picture", "2", "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "00002.png").read_bytes() == (out / "00002.png").read_bytes()
    capsys.readouterr()
    assert run(["sample", str(parts / "prior"), "--prompt", "a"]) == 2
    assert "makes embeddings and no pictures" in capsys.readouterr().err
    assert run(["sample", str(parts / "decoder"), "--prior", "text"]) == 2
    assert "prior 'text' is for a bundle" in capsys.readouterr().err
    assert run(["sample", whole, "--prior", "diffusoin", "--prompt", "a"]) == 2
    assert "did you mean 'diffusion'" in capsys.readouterr().err


def test_priors_are_measured_and_swept(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = str(lively(parts))
    model = load(parts, "lively.bundle.json")
    usual: Any = {"captions": "shapes@held_out", "count": 3, "steps": 2, "metrics": ["caption", "clip_score"]}
    report = lodestar.evaluate(model.using("text"), **usual)
    assert report.prior == "text" and {"caption_right", "clip_score"} <= set(report.numbers)
    words = "--count 3 --steps 2 --precision float32 --captions shapes@held_out --metric clip_score --metric caption"
    assert run(["evaluate", whole, *words.split(), "--prior", "text", "--out", "a"]) == 0
    assert json.loads(Path("a/report.json").read_text())["numbers"] == pytest.approx(report.numbers, abs=1e-5)
    priors = "prior=diffusion:best_of=1 text autoregressive:scale=1"
    assert run(["sweep", whole, *words.split(), "--over", priors, "--out", "b"]) == 0
    rows = list(csv.DictReader(Path("b/sweep.csv").read_text().splitlines()))
    assert [row["prior"] for row in rows] == ["diffusion:best_of=1", "text", "autoregressive:scale=1"]
    assert len({row["clip_cosine"] for row in rows}) == 3
    assert float(rows[1]["clip_cosine"]) == pytest.approx(report.numbers["clip_cosine"], abs=1e-5)
    lodestar.sweep(model, over={"scale": [1, 2]}, guidance="cfg", out="c", **usual)
    capsys.readouterr()
    for given, said in (
        (["--over", "prior=text", "--prior", "text"], "--prior is what this sweep goes over"),
        (["--over", "prior=txet"], "did you mean 'text'"),
    ):
        assert run(["sweep", whole, *words.split(), *given]) == 2
        assert said in capsys.readouterr().err
    assert run(["evaluate", str(parts / "decoder"), "--prior", "text", "--metric", "caption"]) == 2
    assert "prior 'text' is for a bundle" in capsys.readouterr().err


def test_the_clip_of_a_bundle_guides_its_decoder(parts: Path) -> None:
    model, how = load(parts), {"count": 1, "steps": 2}
    guided = model.sample(prompt="a red circle", guidance="clip:20,sees=clean", **how).images
    assert not torch.equal(guided, model.sample(prompt="a red circle", **how).images)
    first = model.sample(prompt="a red circle", guidance="clip:20,sees=clean", best_of=2, **how)
    assert first.images.shape == guided.shape


def test_parts_of_different_clips_are_refused(parts: Path) -> None:
    bundle.save(parts / "mixed.bundle.json", files(parts, clip=clip(parts / "other.safetensors", seed=1)))
    with pytest.raises(Problem, match="knows the embeddings of another CLIP"):
        lodestar.load(parts / "mixed.bundle.json", "cpu").sample(prompt="a red circle", steps=2)
    bundle.save(parts / "bare.bundle.json", {role: file for role, file in files(parts).items() if role != "prior"})
    with pytest.raises(Problem, match="has no part 'prior'"):
        lodestar.load(parts / "bare.bundle.json", "cpu").sample(prompt="a red circle", steps=2)
    with pytest.raises(Problem, match="told texts by a CLIP, and has none"):
        lodestar.load(parts / "prior", "cpu").sample(prompt="a red circle")


def test_a_picture_without_a_prompt_is_unconditional(parts: Path) -> None:
    model = load(parts)
    ours = model.sample(count=2, steps=2)
    assert torch.equal(ours.images, model.decoder.sample(count=2, steps=2).images)
    with pytest.warns(Note, match="prompt ' ' is empty, and asks for nothing"):
        assert torch.equal(model.sample(prompt=" ", count=2, steps=2).images, ours.images)
    assert isinstance(lodestar.load(parts / "all.bundle.json", "cpu", "diffusion"), Diffusion)


def test_an_autoregressive_prior_is_of_ordered_components_and_even_buckets() -> None:
    torch.manual_seed(0)
    config = AutoregressiveConfig(
        network=CodesConfig(context=4, codes=6, buckets=64, similarities=4, width=16, layers=1, heads=2),
        text=ClipText(length=4, embed=6, width=16, tokenizer=OwnTokenizer()),
    )
    prior = config.build()
    values = torch.randn(4000, 6) @ torch.diag(torch.tensor([1.0, 5.0, 2.0, 0.5, 3.0, 4.0])) + 7
    similarities = torch.linspace(0, 1, 101)
    prior.fit(values, similarities)
    codes = prior.encode(values)
    assert [int(row.abs().argmax()) for row in prior.components] == [1, 5, 4, 2, 0, 3]
    counts = torch.bincount(codes[:, 0], minlength=64)
    assert counts.min() > 30 and counts.max() < 130
    error = (prior.decode(codes) - values).std() / values.std()
    assert error < 0.1
    assert prior.level(torch.tensor([0.1, 0.4, 0.6, 0.9])).tolist() == [0, 1, 2, 3]


def test_keys_that_are_kept_change_no_code(parts: Path) -> None:
    model = load(parts)
    prior = model.model_of(Autoregressive())
    texts, seeds = ["a red circle", "a blue square"], [1, 2**40]
    cached = prior.sample(texts, seeds, scale=2.0)
    assert torch.allclose(cached, prior.sample(texts, seeds, scale=2.0, cached=False), atol=1e-5)
    assert torch.allclose(cached[1:], prior.sample(texts[1:], seeds[1:], scale=2.0), atol=1e-5)
    assert not torch.allclose(cached, prior.sample(texts, [3, 4], scale=2.0))
    pictures = model.sample(prompt=texts, prior="autoregressive:scale=1", steps=2)
    assert pictures.request.asks[0].others["prior"] == {"kind": "autoregressive", "scale": 1.0, "temperature": 1.0}


def test_codes_have_the_probabilities_of_the_logits(parts: Path) -> None:
    prior = load(parts).model_of(Autoregressive())
    text = ["a red circle"]
    first = torch.stack([prior.encode(prior.sample(text, [seed]))[0] for seed in range(200)])
    signals = prior.text(prior.config.text.read(text))
    shares = torch.zeros(8)
    for level in (2, 3):  # the upper half of four
        shares += prior.logits(signals, torch.tensor([level]), first[:1]).softmax(-1)[0, 0] / 2
    counted = torch.bincount(first[:, 0], minlength=8) / 200
    assert (counted - shares).abs().max() < 4 * (0.25 / 200) ** 0.5


def test_components_are_fewer_than_pictures(parts: Path, tmp_path: Path) -> None:
    codes = tiny(shapes.prior_ar().model_dump(mode="json"), parts / "clip.safetensors")
    network = codes.task.model.network.replace(codes=12, width=16, heads=2, layers=1)
    task = codes.task.replace(model=AutoregressiveConfig(network=network, text=ClipText(length=32, width=16)), kept=12)
    with pytest.raises(Problem, match="codes is 12: principal components of 12 embeddings are fewer"):
        train(codes.replace(task=task), tmp_path / "run", device="cpu")


def material(*rows: int) -> Material:
    source = open_source("shapes", size=16)
    return Material(torch.from_numpy(np.stack([source.image(row) for row in rows])))


def made(model: UnClip, asked: EditRequest, there: Material, steps: str) -> torch.Tensor:
    asked = asked.replace(settings=Settings(steps=steps, sampler=None if asked.edit.kind == "vary" else DDIM()))
    return torch.cat([frame.images for frame in model.prepare_edit(asked, there).frames(2) if frame.final]).int()


def test_variations_keep_the_embedding_and_without_noise_the_picture(parts: Path) -> None:
    model, there = load(parts), material(0, 1)
    same = made(model, edits.vary(model, there, eta=0.0), there, "100")
    assert (same - there.pictures.int()).abs().float().mean() < 4
    asked = edits.vary(model, there, count=4, seed=3)
    assert [ask.source for ask in asked.asks] == [0, 1, 0, 1]
    assert asked.asks[0].others == asked.asks[2].others == asked.origins[0].others
    drawn = made(model, asked, there, "10")
    assert not torch.equal(drawn[0], drawn[2])
    with pytest.raises(Problem, match="seed is 3: vary of pictures draws no noise"):
        edits.vary(model, there, seed=3, eta=0.0)
    with pytest.raises(Problem, match="prompts and styles have no effect on edits in a CLIP's space"):
        edits.edited(model, there.pictures, edits.vary, prompt="a red circle")
    referring, _, _ = edits.asked(model, there.pictures, edits.vary, guidance="content:1", reference=there.pictures)
    assert [ask.reference for ask in referring.asks] == [0, 1]
    with pytest.raises(Problem, match="sampler heun: variations are DDIM's"):
        model.prepare_edit(asked.replace(settings=Settings(steps="10", sampler=Heun())), there)


def test_a_blend_begins_and_ends_with_its_pictures(parts: Path) -> None:
    model, there = load(parts), material(0, 1)
    asked = edits.blend(model, there, points=3)
    ends = [asked.asks[place].others["embedding"] for place in (0, 2)]
    assert np.allclose(ends, model.seen(there.pictures).numpy(), atol=1e-6)
    path = made(model, asked, there, "100")
    assert (path[[0, 2]] - there.pictures.int()).abs().float().mean() < 4
    with pytest.raises(Problem, match="the number given is 1"):
        edits.blend(model, material(0))


def test_a_difference_of_texts_turns_the_embedding_toward_it(parts: Path) -> None:
    model, there = load(parts), material(0)
    before, after = torch.nn.functional.normalize(model.clip.text_features(["a red circle", "a blue circle"]))
    seen = model.seen(there.pictures)[0]

    def turned(strength: float) -> torch.Tensor:
        asked = edits.textdiff(model, there, "a red circle", "a blue circle", strength)
        return torch.tensor(asked.asks[0].others["embedding"])

    assert torch.allclose(turned(0.0), seen, atol=1e-6)
    along = [float(torch.cosine_similarity(turned(strength), after - before, dim=0)) for strength in (0.0, 0.5, 1.0)]
    assert along == sorted(along) and along[2] == pytest.approx(1, abs=1e-5)
    assert turned(0.5).norm() == pytest.approx(float(seen.norm()), rel=1e-4)
    with pytest.raises(Problem, match="have the same embedding"):
        edits.textdiff(model, there, "a red circle", "a red circle")
    with pytest.raises(Problem, match="strength is 2: from 0"):
        edits.textdiff(model, there, "a", "b", 2.0)


def test_more_components_tell_more_of_an_embedding(parts: Path) -> None:
    model, there = load(parts), material(0, 1)
    asked = edits.components(model, there, [1, 3, 6], seed=4)
    assert [(ask.source, ask.seed) for ask in asked.asks] == [(0, 4)] * 3 + [(1, 5)] * 3
    told = torch.tensor([ask.others["embedding"] for ask in asked.asks]).unflatten(0, (2, 3))
    seen, prior = model.seen(there.pictures), model.model_of(Autoregressive())
    errors = (told - seen[:, None]).norm(dim=2)
    assert (errors[:, 0] > errors[:, 1]).all() and (errors[:, 1] > errors[:, 2]).all()
    scores = (told - prior.mean) @ prior.components.T
    assert scores[:, 0, 1:].abs().max() < 1e-5
    assert torch.allclose(scores[:, 2], (seen - prior.mean) @ prior.components.T, atol=1e-5)
    for count in (0, 7):
        with pytest.raises(Problem, match=f"components {count}: .*prior_ar/model.safetensors has 1 to 6 principal components"):
            edits.components(model, there, [count])


def test_the_commands_edit_and_their_pictures_are_remade(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = str(parts / "all.bundle.json")
    for number, picture in enumerate(material(0, 1).pictures):
        save_png(tmp_path / f"{number}.png", picture)
    first, second = (str(tmp_path / f"{number}.png") for number in (0, 1))
    usual = ["--steps", "3", "--precision", "float32"]
    for how, given in (
        ("vary", [first, "--count", "2", "--seed", "5"]),
        ("blend", [first, second, "--points", "3", "--sampler", "ddim"]),
        ("textdiff", [first, "--from", "a red circle", "--to", "a blue circle", "--sampler", "ddim"]),
        ("components", [first, "--components", "1,6", "--seed", "3"]),
    ):
        out = tmp_path / how
        assert run(["edit", how, whole, *given, *usual, "--out", str(out)]) == 0
        assert run(["remake", str(out), "--picture", "0", "--out", str(tmp_path / f"{how}-again")]) == 0
        assert (tmp_path / f"{how}-again" / "00000.png").read_bytes() == (out / "00000.png").read_bytes()
    capsys.readouterr()
    for given, said in (("1,7", "has 1 to 6 principal components"), ("1,x", "numbers of principal components, such as 1,4")):
        assert run(["edit", "components", whole, first, "--components", given]) == 2
        assert said in capsys.readouterr().err
    assert run(["edit", "vary", str(parts / "decoder"), first]) == 2
    assert "is no bundle of a decoder and its CLIP" in capsys.readouterr().err


def test_embeddings_that_are_not_finite_are_refused(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path))
    tower = lodestar.load(parts / "clip.safetensors", "cpu", dtype="float32")
    tower.network.image.out.weight.data[0, 0] = torch.nan
    with pytest.raises(Problem, match="embeddings that are not finite"):
        embedded(open_source("shapes", size=16), tower, 4)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_what_the_models_are_is_told(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {}
    for part in ("prior", "prior_ar", "decoder"):
        assert run(["info", str(parts / part)]) == 0
        told[part] = " ".join(capsys.readouterr().out.split())
    digest = lodestar.load(parts / "clip.safetensors", "cpu").digest
    assert all(digest[:16] in each for each in told.values())
    assert "6 codes of 8 values" in told["prior_ar"] and "decodes embeddings of 12 channels" in told["decoder"]


def test_a_decoder_of_karlo_s_form_is_told_the_text_too(parts: Path, tmp_path: Path) -> None:
    arguments = {
        "image_size": 16, "num_channels": 8, "num_res_blocks": 1, "channel_mult": "1,2", "attention_resolutions": "8",
        "num_head_channels": 8, "use_scale_shift_norm": True, "resblock_updown": True, "dropout": 0.1, "clip_dim": 12,
        "clip_emb_mult": 4, "text_ctx": 80, "xf_width": 16,
    }  # fmt: skip
    torch.manual_seed(0)
    decoder = Diffusion(karlo.decoder(arguments, OwnTokenizer(size=300, merges=""), states=16))
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    decoder.save(parts / "karlo.safetensors")
    bundle.save(parts / "karlo.bundle.json", files(parts, model=parts / "karlo.safetensors"))
    model = lodestar.load(parts / "karlo.bundle.json", "cpu", dtype="float32")
    how = {"guidance": "cfg:3", "steps": 2}
    pictures = model.sample(prompt=["a red circle", "a blue square"], **how)
    assert not torch.equal(pictures.images[0], model.sample(prompt="a blue square", **how).images[0])
    embedding = model.embedded(pictures.request.asks)[0].others["embedding"]
    same = [Ask(text=text, others={"embedding": embedding}) for text in ("a red circle", "a blue square")]
    first, second = (
        torch.cat([frame.images for frame in model.stream(seeded([ask], 0, pictures.request.settings)) if frame.final])
        for ask in same
    )
    assert torch.equal(first[0], pictures.images[0]) and not torch.equal(first, second)
    assert not torch.equal(model.sample(count=1, steps=2).images, first)
    with pytest.raises(Problem, match="more than this model's 80 tokens"):
        model.sample(prompt="a" * 100, **how)


def test_karlo_s_upsampler_enlarges_what_the_decoder_makes(parts: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    arguments = {"channels": 8, "depth": 1, "channels_multiple": (1, 2), "dropout": 0.0}
    upsampler = Diffusion(karlo.upsampler(arguments, size=32, small=16))
    for parameter in upsampler.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    then = str(upsampler.save(tmp_path / "upsampler.safetensors"))
    out = tmp_path / "out"
    asked = ["--prompt", "a red circle", "--steps", "2", "--precision", "float32", "--then", then]
    assert run(["sample", str(parts / "all.bundle.json"), *asked, "--out", str(out)]) == 0
    assert load_png(out / "00000.png").shape == (3, 32, 32)
    assert run(["remake", str(out), "--picture", "0", "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "00000.png").read_bytes() == (out / "00000.png").read_bytes()


def test_a_decoder_is_quantized_with_its_clip(parts: Path) -> None:
    out = lodestar.quantize(lively(parts), "shapes", parts / "eight.safetensors", count=6, steps="linspace:3", device="cpu")
    bundle.save(parts / "eight.bundle.json", files(parts, model=out))
    made = lodestar.load(parts / "eight.bundle.json", "cpu", dtype="int8").sample(prompt=["a red circle"], steps=2, count=1)
    assert len(made) == 1 and made.images.float().std() > 0
    with pytest.raises(Problem, match="decodes embeddings of a CLIP: quantize the bundle that it is in"):
        lodestar.quantize(parts / "lively.safetensors", "shapes", parts / "alone.safetensors")


def test_a_model_of_pictures_is_told_texts_by_a_clip(tmp_path: Path) -> None:
    tower = clip(tmp_path / "clip.safetensors")
    given = small(shapes.decoder(), tower, **NETWORK).model_dump(mode="json")
    given["task"]["model"]["denoiser"]["conditions"] = [{"kind": "clip_text", "width": 12}]
    trained = tmp_path / "run"
    train(Run.model_validate_json(json.dumps(given)), trained, device="cpu")
    with pytest.raises(Problem, match="is told texts by a CLIP, and has none: load the bundle that names both"):
        lodestar.load(trained, "cpu").sample(prompt="a red circle")
    alone = lodestar.load(trained, "cpu", dtype="float32")
    torch.manual_seed(0)
    for parameter in alone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    alone.save(tmp_path / "lively.safetensors")
    whole = tmp_path / "whole.bundle.json"
    bundle.save(whole, {"model": tmp_path / "lively.safetensors", "clip": tower})
    model = lodestar.load(whole, "cpu", dtype="float32")
    assert isinstance(model, Diffusion) and model.reads and model.droppable
    made = model.sample(
        prompt=["a red circle", "a blue square", None, "a red circle"], steps="3", guidance="cfg:2", seed=5
    ).images
    again = model.sample(prompt="a blue square", steps="3", guidance="cfg:2", seed=6).images
    assert torch.equal(made[1], again[0])
    of_one_seed = model.sample(prompt=["a red circle", "a blue square"], steps="3", start=torch.zeros(2, 3, 16, 16)).images
    assert not torch.equal(of_one_seed[0], of_one_seed[1])
    assert run(["sample", str(whole), "--prompt", "a red circle", "--steps", "2", "--out", str(tmp_path / "out")]) == 0
    out = lodestar.quantize(whole, "shapes", tmp_path / "eight.safetensors", count=6, steps="linspace:3", device="cpu")
    bundle.save(tmp_path / "eight.bundle.json", {"model": out, "clip": tower})
    eight = lodestar.load(tmp_path / "eight.bundle.json", "cpu", dtype="int8")
    assert isinstance(eight, Diffusion) and eight.sample(prompt="a star", steps="2").images.shape == (1, 3, 16, 16)
    given["task"]["model"]["denoiser"]["conditions"] = []
    with pytest.raises(Problem, match="of the CLIP this model is told nothing: name embedding or clip_text"):
        train(Run.model_validate_json(json.dumps(given)), tmp_path / "nothing", device="cpu")
