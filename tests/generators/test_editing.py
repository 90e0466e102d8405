"""Edits on a tiny model with random weights: their ends, what they keep, their independence of the batch, what they refuse."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.config import Note, Problem, decode, kinds
from lodestar.core.exact import Gaussian
from lodestar.core.schedule import Linear
from lodestar.denoiser import Bound
from lodestar.generators.album import Manifest
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.edits import AnyEdit, Edit, Inpaint, Interpolate, Invert, Reconstruct, SDEdit, Upsample, Vary
from lodestar.generators.edits.arrange import arrange
from lodestar.generators.edits.request import EditRequest, Material
from lodestar.generators.request import Frame
from lodestar.generators.samples import Samples
from lodestar.guidance import CFG, Autoguidance, CFGpp, Classifier, Interval
from lodestar.samplers import DDIM, Ancestral, DPMAdaptive, DPMpp, Heun
from tests.evaluation import tiny

MODEL = tiny.diffusion()
PICTURES = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
MASK = torch.zeros(8, 8, dtype=torch.bool)
MASK[2:6, 2:6] = True
MODELS = {"upsample": tiny.diffusion(low_res=(4, 4))}
SETTINGS: dict[str, dict[str, Any]] = {
    "sdedit": {"pictures": PICTURES, "label": "dog", "how": SDEdit(strength=0.5)},
    "invert": {"pictures": PICTURES, "label": "dog", "origin": ["cat", "ship"], "how": Invert()},
    "interpolate": {"pictures": PICTURES, "label": "dog", "origin": "cat", "how": Interpolate(points=2)},
    "inpaint": {"pictures": PICTURES, "label": "dog", "mask": MASK, "how": Inpaint(resamples=2, jump=1)},
    "upsample": {"pictures": PICTURES[..., ::2, ::2], "label": ["cat", "dog"], "how": Upsample()},
    "reconstruct": {"pictures": PICTURES, "how": Reconstruct(), "steps": None},
    "vary": {"pictures": PICTURES, "label": "dog", "origin": "dog", "how": Vary(eta=0.5)},
}
SAMPLING = [kind for kind in SETTINGS if kind != "reconstruct"]
"""Edits that sample."""


def run(kind: str, model: Diffusion | None = None, **changes: Any) -> Samples:
    return (model or MODELS.get(kind, MODEL)).edit(**{"steps": 4, **SETTINGS[kind], **changes})


def answer(made: Samples, kind: str, *chosen: int) -> Iterator[Frame]:
    """The frames of what was made, or of some of it alone, once more."""
    assert isinstance(made.request, EditRequest) and made.material is not None
    asked = made.request.only(*chosen) if chosen else made.request
    return MODELS.get(kind, MODEL).prepare_edit(asked, made.material).frames()


def exact() -> Diffusion:
    """An exact model of pictures of independent values N(0, 0.3), in place of the network."""
    model, gaussian = tiny.diffusion(), Gaussian(torch.zeros(3, 8, 8), 0.3)
    model.config = model.config.replace(schedule=Linear())
    model.denoiser.forward = lambda x, level, signals, gather=None, kept=None: gaussian(x, level)  # type: ignore[method-assign]
    return model


def near(one: Tensor, other: Tensor, levels: int = 1) -> bool:
    return int((one.int() - other.int()).abs().max()) <= levels


@pytest.mark.parametrize("kind", SETTINGS)
def test_contract(kind: str) -> None:
    """Every kind is tested, is its JSON, is explained, yields as many states as it says, and depends on the batch in nothing."""
    assert set(SETTINGS) == set(kinds(AnyEdit))
    how = SETTINGS[kind]["how"]
    assert decode(AnyEdit, how.to_json()) == how
    assert isinstance(how, Edit) and type(how).__doc__
    given: dict[str, Any] = {"guidance": CFG(scale=2.0)} if kind in SAMPLING else {}
    made = run(kind, **given)
    assert made.images.shape == (2, 3, 8, 8)
    assert decode(type(made.request), made.request.to_json()) == made.request
    assert near(run(kind, **given, batch_size=1).images, made.images)
    model = MODELS.get(kind, MODEL)
    for k in range(2):
        frames = list(answer(made, kind, k))
        assert [frame.step for frame in frames] == list(range(1, how.length(model.transitions(made.request.settings)) + 1))
        assert [frame.final for frame in frames].index(True) == len(frames) - 1
        assert near(frames[-1].images[0], made.images[k])


@pytest.mark.parametrize("kind", [kind for kind in SAMPLING if kind != "vary"])  # which has a sampler of its own
def test_a_sampler_with_steps_of_its_own_edits_one_picture_at_a_time(kind: str) -> None:
    made = run(kind, sampler=DPMAdaptive())
    assert torch.equal(run(kind, sampler=DPMAdaptive(), batch_size=1).images, made.images)
    assert not near(made.images, run(kind, sampler=DDIM()).images)
    frames = list(answer(made, kind))
    assert [frame.first for frame in frames if frame.final] == [0, 1]
    assert [frame.done for frame in frames] == sorted(frame.done for frame in frames)
    assert frames[-1].done == 2


@pytest.mark.parametrize("kind", SAMPLING)
def test_a_weaker_model_guides_every_edit(kind: str) -> None:
    model, plain, strong = MODELS.get(kind, MODEL), run(kind).images, Autoguidance(scale=3.0)
    assert near(run(kind, guidance=strong, guides={"weak": model}).images, plain), "the model itself is no worse"
    made = run(kind, guidance=strong, guides={"weak": tiny.diffusion(seed=3, low_res=model.config.denoiser.low_res)})
    assert not near(made.images, plain)
    assert list(made.origin.guides) == ["weak"]
    with pytest.raises(Problem, match="needs a weaker model"):
        run(kind, guidance=strong)


def test_pixels_in_the_middle_of_their_bins_come_back() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(pixels.decode(pixels.centre(every)), every)
    assert pixels.centre(every).abs().max() <= 1


# -------------------------------------------------------------------------------------------------------------- SDEdit


def test_sdedit_of_little_strength_returns_the_picture_and_of_full_strength_ignores_it() -> None:
    apart = [
        float((run("sdedit", exact(), how=SDEdit(strength=strength), steps=50).images.float() - PICTURES).abs().mean())
        for strength in (0.01, 0.2, 0.5, 0.9)
    ]
    assert apart[0] < 2
    assert apart == sorted(apart)
    assert apart[-1] > 40
    made = run("sdedit", how=SDEdit(strength=1.0), sampler=Ancestral()).images
    assert torch.equal(made, run("sdedit", how=SDEdit(strength=1.0), sampler=Ancestral(), pictures=255 - PICTURES).images)
    assert torch.equal(made, MODEL.sample("dog", 2, steps=4, sampler=Ancestral()).images)
    assert not torch.equal(run("sdedit").images, run("sdedit", pictures=255 - PICTURES).images)
    cool = run("sdedit", how=SDEdit(strength=1.0), sampler=Ancestral(), temperature=0.5)
    assert torch.equal(cool.images, MODEL.sample("dog", 2, steps=4, sampler=Ancestral(), temperature=0.5).images)
    assert not torch.equal(cool.images, made) and cool.request.settings.temperature == 0.5


def test_every_picture_is_made_into_every_label() -> None:
    made = run("sdedit", label=["cat", "dog", "ship"])
    assert made.request.labels == [0, 1, 2, 0, 1, 2]
    assert made.request.sources == [0, 0, 0, 1, 1, 1]
    assert made.request.seeds == [0, 1, 2, 3, 4, 5]
    more = run("sdedit", count=5, seed=7).request
    assert (more.sources, more.seeds) == ([0, 1, 0, 1, 0], [7, 8, 9, 10, 11])
    assert run("sdedit", label=None).request.labels == [None, None]


# ----------------------------------------------------------------------------------------------------------- inversion


def test_inversion_and_resynthesis_under_the_same_label_return_the_picture() -> None:
    model = exact()
    apart = [
        float((run("invert", model, steps=steps, sampler=DDIM(), clamp=False).images.float() - PICTURES).abs().mean())
        for steps in (10, 40, 160)
    ]
    assert apart[0] > 3 * apart[1] > 9 * apart[2]
    assert near(run("invert", model, steps=160, sampler=Heun(), clamp=False).images, PICTURES)


def test_labels_and_guidance_of_inversion_tell() -> None:
    plain = run("invert").images
    assert not torch.equal(plain, run("invert", origin=["dog", "dog"]).images)
    assert not torch.equal(plain, run("invert", label="ship").images)
    guided = run("invert", guidance=CFG(scale=3.0)).images
    assert not torch.equal(plain, guided)
    assert not torch.equal(guided, run("invert", guidance=CFG(scale=3.0), how=Invert(guided=True)).images)
    assert torch.equal(run("invert", origin="cat").images, run("invert", origin=["cat", "cat"]).images)


# ------------------------------------------------------------------------------------------------------- interpolation


def test_the_ends_between_pictures_are_their_inversions() -> None:
    made = run("interpolate", how=Interpolate(points=3)).images
    for end, label in ((0, "cat"), (1, "dog")):
        assert near(run("invert", pictures=PICTURES[end : end + 1], origin=label, label=label).images[0], made[2 * end])


def test_the_ends_between_labels_and_between_seeds_are_samples() -> None:
    def ends(origin: str, to: str, to_seed: int | None = None, **more: Any) -> Samples:
        return MODEL.edit(Interpolate(points=4, to_seed=to_seed), label=to, origin=origin, seed=3, steps=4, **more)

    def sample(label: str, seed: int = 3, **more: Any) -> Tensor:
        return MODEL.sample(label, 1, seed=seed, steps=4, **more).images[0]

    for more in ({}, {"guidance": CFG(scale=3.0)}, {"sampler": Ancestral()}):
        made = ends("dog", "cat", **more)
        assert near(made.images[0], sample("dog", **more))
        assert near(made.images[-1], sample("cat", **more))
        assert not near(made.images[1], made.images[0]) and not near(made.images[1], made.images[-1])
    made = ends("dog", "dog", 9)
    assert near(made.images[0], sample("dog"))
    assert near(made.images[-1], sample("dog", 9))
    assert near(ends("none", "cat").images[0], sample("none"))
    assert near(ends("dog", "cat", temperature=0.8).images[0], sample("dog", temperature=0.8))
    assert ends("dog", "cat").request.labels == [1, 1, 0, 0]
    guide = tiny.classifier()
    made = ends("dog", "cat", guidance=Classifier(scale=20.0), guides={"classifier": guide})
    assert near(made.images[-1], sample("cat", guidance=Classifier(scale=20.0), guides={"classifier": guide}))


def test_labels_are_interpolated_by_their_embeddings() -> None:
    cat, dog = (MODEL.denoiser.bind({"label": torch.tensor([label])}) for label in (0, 1))
    between = cat.toward(dog, torch.tensor([0.25]))
    assert isinstance(between, Bound)
    assert cat.signals.emb is not None and dog.signals.emb is not None and between.signals.emb is not None
    torch.testing.assert_close(between.signals.emb, 0.75 * cat.signals.emb + 0.25 * dog.signals.emb)


def test_guidance_of_an_edit_that_asks_for_no_class_says_so_unless_the_way_up_has_one() -> None:
    with pytest.warns(Note, match="guidance cfg has no effect: no label and no prompt is asked for"):
        run("invert", label=None, origin=None, guidance=CFG(scale=3.0), how=Invert(guided=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        guided = run("invert", label=None, guidance=CFG(scale=3.0), how=Invert(guided=True))
    assert not torch.equal(guided.images, run("invert", label=None).images)


# ---------------------------------------------------------------------------------------------------------- inpainting


@pytest.mark.parametrize("sampler", [None, DPMpp()], ids=str)
def test_inpainting_keeps_every_known_pixel_and_makes_the_others(sampler: DPMpp | None) -> None:
    made = run("inpaint", sampler=sampler)
    assert torch.equal(made.images[:, :, ~MASK], PICTURES[:, :, ~MASK])
    assert not torch.equal(made.images[:, :, MASK], PICTURES[:, :, MASK])
    # What was under the mask is not looked at.
    assert torch.equal(made.images, run("inpaint", sampler=sampler, pictures=PICTURES.masked_fill(MASK, 0)).images)


def test_it_is_the_sampler_of_the_edit_that_has_to_honour_the_guidance() -> None:
    model = tiny.diffusion()
    model.config = model.config.replace(sampler=Heun())
    assert len(run("inpaint", model, guidance=CFGpp()).images) == 2
    with pytest.raises(Problem, match="this sampler cannot"):
        run("sdedit", model, guidance=CFGpp())


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("sdedit", {"pictures": ()}, "sdedit needs a picture to start from"),
        ("upsample", {"origin": "cat"}, "the class that pictures have has no effect on upsample"),
        ("upsample", {"mask": MASK}, "a mask has no effect on upsample"),
        ("sdedit", {"mask": MASK}, "a mask has no effect on sdedit"),
        ("sdedit", {"origin": "cat"}, "the class that pictures have has no effect on sdedit"),
        ("sdedit", {"label": "dgo"}, "did you mean 'dog'"),
        (
            "sdedit",
            {"how": SDEdit(strength=0.25), "guidance": [CFG(), Interval(low=1, high=50)]},
            r"interval:1,50 has no step inside: the 1 that strength 0.25 takes have σ/α from 0.\d+ to",
        ),
        ("sdedit", {"pictures": PICTURES[:, :, :4]}, r"picture 0 is \(3, 4, 8\): the model's are \(3, 8, 8\)"),
        ("sdedit", {"batch_size": 0}, "batch size is 0"),
        ("sdedit", {"batch_size": "x"}, "batch size is 'x'"),
        ("sdedit", {"count": 0}, "count is 0"),
        ("sdedit", {"count": 10**8}, "count is 100000000: input should be less than or equal to 10000000"),
        ("upsample", {"count": 10**30}, "count is 10+: input should be less than or equal to 10000000"),
        (
            "sdedit",
            {"pictures": PICTURES[:1].expand(5_001, -1, -1, -1), "label": ["cat"] * 2_000},
            "count is 10002000: input should be less than or equal to 10000000",
        ),
        ("sdedit", {"seed": 2**64}, "seed is 18446744073709551616"),
        ("sdedit", {"seed": None}, "seed is None"),
        ("sdedit", {"guides": 3}, "guides is 3"),
        ("sdedit", {"how": 3}, "how is 3: input should be an instance of Edit"),
        ("sdedit", {"how": "sdeit:0.5"}, "unknown edit 'sdeit': .*; did you mean 'sdedit'"),
        ("sdedit", {"label": object()}, "a class by name or number, or a list of them"),
        (
            "sdedit",
            {"pictures": PICTURES.float()},
            r"the pictures are float32 \[2, 3, 8, 8\]: a tensor of them is uint8 \[P, C, H, W\]",
        ),
        ("sdedit", {"pictures": PICTURES[0]}, r"the pictures are uint8 \[3, 8, 8\]: a tensor of them is uint8 \[P, C, H, W\]"),
        ("sdedit", {"pictures": [PICTURES[0]]}, "picture 0 is .*: a file, a folder, a PIL picture or an array"),
        ("inpaint", {"mask": MASK.to(torch.uint8)}, r"the mask is uint8 \[8, 8\]: a tensor of them is bool \[H, W\]"),
        ("inpaint", {"mask": object()}, "the mask is neither a file, nor a picture, nor an array: "),
        ("invert", {"sampler": Ancestral()}, "inversion needs one that draws no noise"),
        ("invert", {"sampler": DPMpp(eta=1.0)}, "inversion needs one that draws no noise"),
        ("invert", {"origin": ["cat", "dog", "ship"]}, "3 classes are given for 2 pictures"),
        ("invert", {"temperature": 0.5}, r"temperature is 0.5: invert of pictures draws no noise"),
        ("interpolate", {"temperature": 2.0}, r"temperature is 2: interpolate of pictures draws no noise"),
        ("sdedit", {"temperature": 0.0}, "temperature is 0"),
        ("interpolate", {"pictures": PICTURES[:1]}, "between two pictures, and the number given is 1"),
        ("interpolate", {"sampler": DDIM(eta=1.0)}, "inversion needs one that draws no noise"),
        ("interpolate", {"pictures": (), "origin": "dog"}, "the same at both ends"),
        ("interpolate", {"label": "dog+ship"}, "a composed label is several"),
        ("interpolate", {"label": ["cat", "dog"]}, "one label to one label"),
        ("interpolate", {"count": 3}, "as many pictures as it has points"),
        ("interpolate", {"how": Interpolate(to_seed=3)}, "give the ones or the others"),
        ("interpolate", {"how": Interpolate(to_seed=3), "pictures": (), "sampler": Ancestral()}, "draws none on the way"),
        ("reconstruct", {"steps": 4}, "steps has no effect on reconstruct: pictures are encoded and decoded"),
        ("reconstruct", {"guidance": "cfg:2"}, "guidance has no effect on reconstruct"),
        ("reconstruct", {"sampler": "heun"}, "sampler has no effect on reconstruct"),
        ("reconstruct", {"clamp": False}, "clamp has no effect on reconstruct"),
        ("reconstruct", {"label": "dog"}, "labels and prompts have no effect on reconstruct"),
        ("inpaint", {"mask": None}, "inpaint needs a mask"),
        ("inpaint", {"mask": torch.zeros_like(MASK)}, "nothing is masked"),
        ("inpaint", {"mask": MASK[:4]}, r"the mask is \(4, 8\)"),
        ("inpaint", {"how": Inpaint()}, "jump is 10: of 4 steps, at most 3 can be gone back"),
    ],
)
def test_what_cannot_be_done_is_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Problem, match=message) as caught:
        run(kind, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(Problem, match="strength"):
        SDEdit(strength=strength)


def test_other_pictures_than_the_requests_are_refused() -> None:
    request = arrange(MODEL, SDEdit(), Material(PICTURES), ["dog"], None, None, 0)
    with pytest.raises(Problem, match="not the pictures that the request is made of"):
        MODEL.prepare_edit(request, Material(255 - PICTURES))


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        *((kind, {"source": None}, f"picture 1 has no source, and {kind} makes it of one: its source is one of 0 to 1")
          for kind in ("sdedit", "invert", "inpaint", "upsample")),
        *((kind, {"source": 2}, "picture 1 is made of picture 2: its source is one of 0 to 1")
          for kind in ("sdedit", "invert", "inpaint", "upsample", "interpolate")),
        ("interpolate", {"weight": None}, "picture 1 has no weight: interpolate needs one from 0"),
    ],
)  # fmt: skip
def test_a_request_that_does_not_say_what_a_result_is_made_of_is_refused(kind: str, change: dict[str, Any], message: str) -> None:
    made = run(kind)
    assert isinstance(made.request, EditRequest) and made.material is not None
    first, second, *rest = made.request.asks
    model = MODELS.get(kind, MODEL)
    with pytest.raises(Problem, match=message) as caught:
        model.prepare_edit(made.request.replace(asks=(first, second.replace(**change), *rest)), made.material)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("invert", "1 origins are given for 2 pictures: invert needs one of each"),
        ("interpolate", "1 origins are given: interpolate"),
    ],
)
def test_a_request_without_the_origins_that_an_edit_needs_is_refused(kind: str, message: str) -> None:
    made = run(kind)
    assert isinstance(made.request, EditRequest) and made.material is not None
    with pytest.raises(Problem, match=message):
        MODEL.prepare_edit(made.request.replace(origins=made.request.origins[:1]), made.material)


def test_a_request_without_pictures_says_so() -> None:
    made = run("sdedit")
    assert isinstance(made.request, EditRequest)
    bare = made.request.replace(asks=(made.request.asks[0].replace(source=None),), pictures=())
    with pytest.raises(Problem, match="picture 0 has no source, and sdedit makes it of one: the request has no pictures"):
        MODEL.prepare_edit(bare, Material(PICTURES[:0]))


def test_a_manifest_that_names_no_source_is_refused_by_name(tmp_path: Path) -> None:
    folder = run("sdedit").save(tmp_path / "out")
    whole = json.loads((folder / "manifest.json").read_text())
    whole["pictures"][1]["source"] = 9
    (folder / "manifest.json").write_text(json.dumps(whole))
    with pytest.raises(Problem, match=r"manifest\.json request: picture 1 is made of picture 9: its source is one of 0 to 1$"):
        Manifest.read(folder)


def test_an_edit_and_a_mask_may_be_text_and_an_array() -> None:
    made = run("sdedit")
    assert torch.equal(run("sdedit", how="sdedit:0.5").images, made.images)
    for mask in (MASK.numpy(), Image.fromarray(MASK.numpy())):
        assert torch.equal(run("inpaint", mask=mask).images, run("inpaint").images)


def test_a_model_that_was_never_unconditional_is_edited_under_labels() -> None:
    bare = tiny.diffusion(droppable=False)
    assert len(run("inpaint", bare).images) == 2
    assert len(run("invert", bare).images) == 2
    with pytest.raises(Problem, match="never trained without its classes"):
        run("invert", bare, origin=None)


# ------------------------------------------------------------------------------------------------------ pictures in memory


def test_pictures_of_pil_and_arrays_are_edited_as_their_files_are(tmp_path: Path) -> None:
    whole = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
    whole.save(tmp_path / "a.png")
    expected = MODEL.edit(SDEdit(0.5), tmp_path / "a.png", "dog", steps=4).images
    for given in (whole, np.asarray(whole), [whole], [np.asarray(whole)]):
        assert torch.equal(MODEL.edit(SDEdit(0.5), given, "dog", steps=4).images, expected)
    grey = MODEL.edit(SDEdit(0.5), [whole.convert("L"), np.asarray(whole.convert("L"))[:, :, None]], "dog", steps=4, count=2)
    assert torch.equal(grey.material.pictures[0], grey.material.pictures[1])  # type: ignore[union-attr]
    with pytest.raises(Problem, match=r"picture 1 is float64 \[8, 8\]: an array of one is uint8"):
        MODEL.edit(SDEdit(0.5), [whole, np.zeros((8, 8))], "dog")
