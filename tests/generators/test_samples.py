"""What `sample` takes and gives: a sequence of pictures, settings as text or functions, own noise and seeds, a callback."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lodestar.config import SEEDS, Problem
from lodestar.core.estimate import Denoise, Noise
from lodestar.core.noise import SeededNoise
from lodestar.core.transition import Transition
from lodestar.denoiser import Denoiser
from lodestar.generators.album import Manifest
from lodestar.generators.edits import SDEdit
from lodestar.generators.request import Frame, Settings, settings
from lodestar.guidance import CFG, Clamp, Context, Interval
from lodestar.guidance import Own as OwnGuidance
from lodestar.images import load_png, sheet
from lodestar.samplers import DDIM, Ancestral, DPMAdaptive, State
from lodestar.samplers import Own as OwnSampler
from tests.evaluation import tiny

MODEL = tiny.diffusion()


def floats(**given: Any) -> Tensor:
    """Three pictures before they are rounded, in batches of two."""
    frames: list[Frame] = []
    MODEL.sample(["cat", "dog", "none"], **{"steps": 3, "batch_size": 2, "callback": frames.append, **given})
    return torch.cat([frame.x for frame in frames if frame.final])


# ----------------------------------------------------------------------------------------------------------- a sequence


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_a_sequence_of_pictures(channels: int) -> None:
    made = tiny.diffusion(channels=channels).sample(count=3, steps=2)
    arrays = [image.permute(1, 2, 0).numpy().squeeze() for image in made.images]
    assert len(made) == 3
    pictures = list(made)
    assert all(isinstance(picture, Image.Image) and picture.size == (8, 8) for picture in pictures)
    assert [picture.mode for picture in pictures] == [{1: "L", 3: "RGB"}[channels]] * 3
    for several in (pictures, made.pil(), made[:], [made[k] for k in range(3)], [made[k] for k in (-3, -2, -1)]):
        assert all(np.array_equal(np.asarray(picture), array) for picture, array in zip(several, arrays, strict=True))
    for some in (slice(1, None), slice(None, None, -1), slice(0, 9, 2), slice(2, 1)):
        assert [np.asarray(each).tolist() for each in made[some]] == [each.tolist() for each in arrays[some]]
    with pytest.raises(IndexError):
        made[3]


def test_they_are_saved_and_shown_in_a_notebook(tmp_path: Path) -> None:
    made = MODEL.sample(count=5, steps=2)
    assert made.save(tmp_path / "out") == tmp_path / "out"
    assert Manifest.read(tmp_path / "out").request == made.request
    assert all(torch.equal(load_png(tmp_path / "out" / f"{k:05d}.png"), made.images[k]) for k in range(5))
    shown = np.asarray(Image.open(io.BytesIO(made._repr_png_())))
    assert np.array_equal(shown, sheet(made.images).permute(1, 2, 0).numpy())
    assert repr(made) == f"Samples(5 of {', '.join(tiny.NAMES)}, 8×8, RGB, by a model built in code)"


# ------------------------------------------------------------------------------------------------------------- settings


def test_settings_are_objects_or_their_short_forms() -> None:
    how = settings(steps=20, sampler="ddim:eta=0.5", guidance=["cfg:2", Clamp(), "interval:0.3,5"], clamp=False, temperature=0.9)
    guidance = (CFG(scale=2.0), Clamp(), Interval(low=0.3, high=5.0))
    assert how == Settings(steps="20", sampler=DDIM(eta=0.5), guidance=guidance, clamp=False, temperature=0.9)
    for one in ("cfg:2", CFG(scale=2.0), ["cfg:2"], (CFG(scale=2.0),), [None, "cfg:2"]):
        assert settings(guidance=one) == Settings(guidance=(CFG(scale=2.0),))
    assert settings() == settings(steps=None, sampler=None, guidance=None) == settings(guidance=[]) == Settings()
    text, objects = (MODEL.sample("dog", 2, **how) for how in (
        {"steps": "3", "guidance": "cfg:2", "sampler": "ancestral"},
        {"steps": 3, "guidance": CFG(scale=2.0), "sampler": Ancestral()},
    ))  # fmt: skip
    assert text.request == objects.request
    assert torch.equal(text.images, objects.images)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"guidence": "cfg"}, "unknown setting 'guidence': choose from steps, sampler, guidance, .*; did you mean 'guidance'"),
        ({"num_steps": 4}, "unknown setting 'num_steps': .*; did you mean 'steps'"),
        ({"guidance": "cgf:2"}, "unknown guidance 'cgf': .*; did you mean 'cfg'"),
        ({"guidance": ["cfg:2", "cfg:-1"]}, "guidance cfg scale is -1"),
        ({"guidance": 3}, "guidance.0 is 3: "),
        ({"guidance": DDIM()}, "guidance.0 'ddim': choose from cfg"),
        ({"guidance": CFG}, "guidance.0 is "),
        ({"sampler": CFG()}, "sampler 'cfg': choose from ancestral"),
        ({"sampler": "ddmi"}, "unknown sampler 'ddmi': .*; did you mean 'ddim'"),
        ({"sampler": "ddim:etta=1"}, "did you mean 'eta'"),
        ({"sampler": 3}, "sampler is 3: "),
        ({"steps": "twenty"}, "steps 'twenty'"),
        ({"steps": 0}, "at least 1"),
        ({"clamp": "yes"}, "clamp is 'yes'"),
        ({"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_settings_that_are_none_are_refused_before_any_work(
    given: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Denoiser, "output", None)
    for ask in (settings, MODEL.sample):
        with pytest.raises(Problem, match=message) as caught:
            ask(**given)
        assert "\n" not in str(caught.value)


def plain(denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
    """DDIM in its shortest form."""
    for index, step in enumerate(steps):
        estimate = denoise(x, step.t).folded()
        x = step.s.alpha * estimate.x0 + step.s.sigma * estimate.eps
        yield State(x, estimate, index)


def dimmed(inner: Denoise, context: Context) -> Denoise:
    """Half of what is believed."""
    return lambda x, level: replace(inner(x, level), x0=inner(x, level).x0 / 2)


def test_functions_are_samplers_and_guidance_and_named_in_the_manifest(tmp_path: Path) -> None:
    made = MODEL.sample("dog", 2, steps=3, sampler=plain)
    assert (made.images.int() - MODEL.sample("dog", 2, steps=3, sampler="ddim").images).abs().max() <= 1
    guided = MODEL.sample("dog", 2, steps=3, sampler=plain, guidance=["cfg:2", dimmed])
    assert not torch.equal(guided.images, MODEL.sample("dog", 2, steps=3, sampler=plain, guidance="cfg:2").images)
    known = Manifest.read(guided.save(tmp_path / "out")).request
    assert known.settings.sampler == OwnSampler(name="plain")
    assert known.settings.guidance == (CFG(scale=2.0), OwnGuidance(name="dimmed"))
    for asked, message in (
        (known, "guidance own: 'dimmed' was an object of the program that used it"),
        (known.replace(settings=Settings(sampler=known.settings.sampler)), "sampler own: 'plain' was an object of the program"),
    ):
        with pytest.raises(Problem, match=message):
            MODEL.prepare(asked)


# ------------------------------------------------------------------------------------------------- noise, seeds, callback


def test_noise_of_ones_own_stands_for_what_the_seeds_draw() -> None:
    drawn = SeededNoise([7, 8, 9]).start(MODEL.shape)
    for sampler in ("ddim", DPMAdaptive()):
        torch.testing.assert_close(floats(seed=0, sampler=sampler, start=drawn), floats(seed=7, sampler=sampler))
    assert not torch.allclose(floats(start=drawn), floats(start=-drawn))
    for same in (drawn.numpy(), drawn.double()):
        assert torch.equal(floats(start=same), floats(start=drawn))
    best = {"best_of": 2, "guides": {"judge": tiny.classifier()}}
    with pytest.raises(Problem, match=r"start is \(3, 3, 8, 8\): it has to be \(2, 3, 8, 8\)"):
        MODEL.sample("dog", start=drawn, **best)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 3, 8, 8), (3, 1, 8, 8), (3, 3, 8, 9), (3, 8, 8, 3)])
def test_noise_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(Problem, match=r"start is .*: it has to be \(3, 3, 8, 8\)") as caught:
        floats(start=torch.zeros(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("given", [np.array([1, 0]), torch.tensor([1, 0]), (1, "cat"), [np.int64(1), torch.tensor(0)]])
def test_labels_and_seeds_may_be_numpys_or_torchs(given: Any) -> None:
    for seed in (5, np.int64(5), np.uint64(5), torch.tensor(5)):
        made = MODEL.sample(given, seed=seed, steps=2).request
        assert (made.labels, made.seeds) == ([1, 0], [5, 6])
    assert MODEL.sample(np.int64(2), steps=2).request.labels == [2]
    picture = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    assert MODEL.edit(SDEdit(), picture, given, steps=2).request.labels == [1, 0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": 1.5}, "label 1.5: a class by name or number, or a list of them"),
        ({"label": [1.5]}, "unknown label '1.5'"),
        ({"count": 2.5}, "count is 2.5: input should be a valid integer"),
        ({"count": 0}, "count is 0"),
    ],
)
def test_what_is_no_label_or_count_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(Problem, match=message):
        MODEL.sample(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 10**8}, "count is 100000000: input should be less than or equal to 10000000"),
        ({"count": 10**30}, "count is 10+: "),
        ({"count": True}, "count is True: input should be a valid integer"),
        ({"count": "2"}, "count is '2': input should be a valid integer"),
        ({"count": float("nan")}, "count is nan: "),
        ({"batch_size": 10**8}, "batch size is 100000000: input should be less than or equal to 100000"),
        ({"batch_size": None}, "batch size is None: "),
        ({"batch_size": 1.5}, "batch size is 1.5: "),
        ({"best_of": 10**8}, "best of is 100000000: input should be less than or equal to 10000"),
        ({"best_of": None}, "best of is None: "),
        ({"best_of": "x"}, "best of is 'x': "),
        ({"best_of": 10_000, "count": 2_000}, "best of 10000: 2,000 pictures have 20,000,000 candidates then, and 10,000,000 is"),
        ({"label": []}, r"label is \[\]: give at least one"),
        ({"label": {}}, "label {}: a class by name or number"),
        ({"label": b"cat"}, "label b'cat': a class by name or number"),
        ({"label": 10**5_000}, "unknown label 'int'"),
        ({"label": "9" * 10_000}, "unknown label '9+'"),
        ({"callback": 3}, "callback is 3: input should be callable"),
        ({"guides": 3}, "guides is 3: input should be an instance of Mapping"),
        ({"start": "x"}, "start is no array of numbers: "),
        ({"start": [[1.0], [1.0, 2.0]]}, "start is no array of numbers: "),
        ({"steps": 10**5_000}, "Settings steps: "),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "-",
)  # fmt: skip
def test_what_nobody_means_in_python_is_refused_before_any_work(
    given: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Denoiser, "output", None)
    with pytest.raises(Problem, match=f"^{message}") as caught:
        MODEL.sample(**{"guides": {"judge": tiny.classifier()}} | given if "best_of" in given else given)
    assert "\n" not in str(caught.value)


def test_numbers_of_other_libraries_are_whole_numbers() -> None:
    plain = MODEL.sample("cat", 2, steps=2, batch_size=1)
    other = MODEL.sample("cat", np.int64(2), steps=2, batch_size=torch.tensor(1))  # type: ignore[arg-type]
    assert torch.equal(plain.images, other.images)


def test_what_is_no_request_is_refused() -> None:
    asked, guides = MODEL.sample("cat", steps=2).request, {"classifier": 3}
    for call in (MODEL.stream, MODEL.prepare):
        with pytest.raises(Problem, match=r"^request is 'cat': input should be an instance of Request$"):
            call("cat")  # type: ignore[operator]
        with pytest.raises(Problem, match=r"^guides is 3: input should be an instance of Mapping$"):
            call(asked, guides=3)  # type: ignore[operator]
    with pytest.raises(Problem, match="guides: 'classifier' is 3, which is no model"):
        MODEL.prepare(asked.replace(settings=settings(guidance="classifier:1")), guides)  # type: ignore[arg-type]
    with pytest.raises(Problem, match=r"^batch size is 0: "):
        MODEL.stream(asked, batch_size=0)


def test_a_generator_of_torch_draws_the_first_seed() -> None:
    def made(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        first, second = (MODEL.sample(count=2, steps=2, seed=generator).request.seeds for _ in range(2))
        assert first[1] == first[0] + 1 and first != second, "the generator has moved on"
        return [*first, *second]

    assert made(3) == made(3) != made(4)
    assert torch.equal(
        MODEL.sample("cat", seed=torch.Generator().manual_seed(3), steps=2).images,
        MODEL.sample("cat", seed=made(3)[0], steps=2).images,
    )


@pytest.mark.parametrize("seed", [-1, SEEDS, 1.0, True, "3", None])
def test_what_is_no_seed_is_refused(seed: Any) -> None:
    with pytest.raises(Problem, match=rf"seed is .*from 0 to {SEEDS - 1}"):
        MODEL.sample(seed=seed)
    assert MODEL.sample("cat", seed=SEEDS - 1, steps=2).request.seeds == [SEEDS - 1]
    with pytest.raises(Problem, match="seed"):
        MODEL.sample("cat", 2, seed=SEEDS - 1)


def test_a_callback_sees_every_frame_as_it_comes() -> None:
    seen: list[Frame] = []
    made = MODEL.sample(count=3, steps=4, batch_size=2, callback=seen.append)
    assert [(frame.first, frame.step, frame.steps, frame.final) for frame in seen] == [
        (first, step, 4, step == 4) for first in (0, 2) for step in range(1, 5)
    ]
    assert torch.equal(torch.cat([frame.images for frame in seen if frame.final]), made.images)
    assert [frame.done for frame in seen] == sorted(frame.done for frame in seen) and seen[-1].done == 3

    def stop(frame: Frame) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MODEL.sample(count=3, steps=4, callback=stop)
    judged: list[Frame] = []
    MODEL.sample("dog", steps=2, best_of=3, guides={"judge": tiny.classifier()}, callback=judged.append)
    assert judged[-1].done == 3
