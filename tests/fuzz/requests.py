"""Absurd requests to sample, edit, measure and remake: counts, seeds, labels, plans, sizes, names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

import lodestar
from lodestar import library
from lodestar.generators.edits import Inpaint, Interpolate, Invert, SDEdit
from lodestar.guidance import AnyGuidance
from lodestar.python import edit
from lodestar.samplers import AnySampler
from tests.fuzz.settings import spelled
from tests.fuzz.valid import Valid, command, python

LARGE = ("100000000", "1" + "0" * 30, "9" * 5_000, "-1", "0", "1.5", "x", "", "NaN", "1e9", "٣", "0x10", "18446744073709551616")
LABELS = ("cat=100000000", f"cat={'9' * 5_000}", "cat=0", "cat=-1", "cat==", "=", "=3", "", "+", "not ", "not", "not not cat",
          "cat+cat",
          "cat+dog+" * 1_000, "+" * 100_000, "x" * 100_000, "9" * 10_000, "-1", "3", "1e0", "none", "none=2", "null", "{}",
          "[0]", "\udcff",
          "cat\0", "cat\n", "CAT", "²", "cat+not cat", "none+cat")  # fmt: skip
PLANS = ("100000000", "9" * 5_000, "0", "-1", "1,0", "," * 1_000, "1," * 100_000 + "1", "ddim100000000", "ddim0",
         "ddim" + "9" * 5_000,
         "fast27", "fast28", "leading:100000000", "trailing:0", "trailing:100000000", "linspace:100000000", "linspace:1",
         "karras:100000000",
         "karras:5,1e308", "karras:5,1e-308", "karras:5,0", "logsnr:100000000", "logsnr:1", "at:100000000", "at:" + "9" * 5_000,
         "at:",
         "at:" + "1," * 100_000 + "1", "at:1", "1e3", "٣", "{}", "[" * 100_000, "x" * 100_000, "", " ", "5\n", "50", "51",
         "25,25", "30,30",
         "karras:nan", "linspace:5,whole=1", "leading:50,skip_zero=true", "logsnr:5,rho=1")  # fmt: skip
OPTIONS: dict[str, tuple[str, ...]] = {
    "--count": LARGE, "--seed": LARGE, "--batch-size": LARGE, "--best-of": LARGE, "--steps": PLANS, "--label": LABELS,
    "--temperature": ("nan", "inf", "-1", "0", "1e308", "x", ""),
    "--device": ("x", "", "cuda:99999999999", "cuda", "cpu:1", "meta", "mps", "cpu:" + "9" * 100, "xla", "\0"),
    "--classifier": ("x", "", "/dev/zero"), "--weak": ("x", "/"), "--judge": ("x", "/"),
    "--then": ("", ",", "x", ",steps=2", "x,steps", "x,step=2", "x,steps=" + "9" * 5_000, "cifar10_weak",
               "x,clamp=[", "x,guidance=cfg,,=",
               "x,temperature=nan,reuse=-1", "\0", "\udcff", "x,guidance=clip:1,clip="),
    "--style": ("x", "", "\udcff", "x" * 100_000),
    "--out": ("/dev/null", "/proc/x", "", "x" * 5_000, "\udcff", "a\0b"),
}  # fmt: skip


def option(rng: Random) -> tuple[str, str]:
    """An option of sampling with a value that is wrong, or at the edge of what is right."""
    name = rng.choice((*OPTIONS, "--sampler", "--guidance"))
    if name in OPTIONS:
        return name, rng.choice(OPTIONS[name])
    return name, spelled(AnySampler if name == "--sampler" else AnyGuidance, rng)


def sample(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """`sample`, with one or two options that nobody can mean."""
    given = dict([("--count", "2"), ("--steps", "2"), ("--out", "out"), *(option(rng) for _ in range(rng.choice((1, 1, 2))))])
    if "--label" in given:
        given.pop("--count") if rng.random() < 0.8 else None
    given["--classifier"] = given.get("--classifier", str(valid.path("classifier.safetensors")))
    if not given.get("--guidance", "").startswith("classifier") and given["--classifier"].endswith("classifier.safetensors"):
        del given["--classifier"]
    return command("sample", valid.path("model.safetensors"), *(word for pair in given.items() for word in pair))


def sample_python(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """`Diffusion.sample` with an argument of any kind."""
    name = rng.choice(("label", "count", "seed", "steps", "temperature", "batch_size", "best_of"))
    values: dict[str, tuple[Any, ...]] = {
        "label": (*LABELS, [], [[]], ["cat", []], [None], [0, {}], {}, 10**8, -1, 10**30, ["cat"] * 3, np.array([0]), object(),
                  b"cat"),
        "count": (10**8, 10**30, -1, 0, 1.5, "2", None, True, float("nan")),
        "seed": (2**63, 2**64 - 1, 2**64, 10**30, -1, -(2**70), 1.5, "x", None, float("nan")),
        "steps": (*PLANS, 10**8, 0, -1, 10**30, 1.5, [2], None),
        "temperature": (0, -1, float("nan"), float("inf"), "x", None, 1e308),
        "batch_size": (0, -1, 10**8, 10**30, 1.5, "x", None),
        "best_of": (0, -1, 10**8, 10**30, 1.5, "x", None),
    }  # fmt: skip
    given = {"count": 2, "steps": 2, name: rng.choice(values[name])}
    return python(lambda: lodestar.load(valid.path("model.safetensors")).sample(**given))  # type: ignore[union-attr]


def edits(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """`edit` and `upsample` with an option that nobody can mean."""
    picture, mask = valid.path("picture.png"), valid.path("mask.png")
    one: list[object] = [valid.path("model.safetensors"), picture, "--steps", 4, "--out", "out"]
    larger = [valid.path("upsampler.safetensors"), picture, "--steps", 2, "--out", "out"]
    doors: dict[str, list[object]] = {
        "sdedit": ["edit", "sdedit", *one], "invert": ["edit", "invert", *one, "--sampler", "ddim"],
        "interpolate": ["edit", "interpolate", *one, picture], "inpaint": ["edit", "inpaint", *one, "--mask", mask],
        "upsample": ["upsample", *larger],
    }  # fmt: skip
    own: dict[str, dict[str, tuple[Any, ...]]] = {
        "sdedit": {"--strength": ("0", "-1", "2", "nan", "inf", "1e-300", "x"), "--picture": LARGE},
        "invert": {"--from": LABELS, "--picture": LARGE},
        "interpolate": {"--points": LARGE, "--from": LABELS, "--to": LABELS, "--to-seed": LARGE},
        "inpaint": {"--resamples": LARGE, "--jump": LARGE, "--mask": ("x", "/", "/dev/zero", str(picture))},
        "upsample": {"--picture": LARGE, "--overlap": ("0", "0.9", "1", "-1", "nan", "x")},
    }  # fmt: skip
    kind = rng.choice(list(doors))
    pairs = own[kind]
    name, value = option(rng) if rng.random() < 0.4 else (lambda name: (name, rng.choice(pairs[name])))(rng.choice(list(pairs)))
    return command(*doors[kind], name, value)


def edit_python(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """`lodestar.edit` with pictures, masks and labels of any kind."""
    how = rng.choice((SDEdit(strength=0.7), Invert(), Interpolate(points=2), Inpaint(resamples=1, jump=1)))
    whole, mask = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.ones(8, 8, dtype=torch.bool)
    given: dict[str, Any] = {"how": how, "pictures": whole, "label": "cat", "batch_size": 2}
    given |= {"mask": mask} if isinstance(how, Inpaint) else {"origin": "dog"} if isinstance(how, Interpolate) else {}
    wrong: dict[str, tuple[Any, ...]] = {
        "pictures": (whole[:1], whole.float(), whole[0], whole[:0], whole[:, :1], torch.zeros(1, 3, 9, 9, dtype=torch.uint8),
                     whole[0, 0, 0, 0], whole[None], [], object(), [whole[0]], b"x", 3, [str(valid.path("picture.png"))],
                     str(valid.path("folder")), str(valid.path("folder.zip"))),
        "mask": (None, mask, mask.float(), mask[:3, :3], mask[:0], mask.numpy(), [[True]], "x", object(), 3, b"x"),
        "how": ("sdedit:0.5", "sdedit", "x", "", None, 3, SDEdit, object(), "{", "inpaint", "upsample"),
        "label": (*LABELS, None, [], {}, [[]], 10**8, -1, 10**5_000, ["cat", "dog"], object(), [None], b"cat"),
        "origin": (*LABELS, None, [], {}, [[]], 10**8, ["cat", "dog"], ["cat"] * 3, object()),
        "count": (2, 0, -1, 10**8, 10**30, 1.5, "2", True, float("nan"), [2]),
        "seed": (2**64, -1, 10**30, 1.5, None, "x", [0], 2**64 - 1),
        "batch_size": (0, -1, 10**8, 10**30, 1.5, None, "x"),
    }  # fmt: skip
    for name in rng.sample(sorted(wrong), rng.choice((1, 1, 1, 2))):
        given[name] = rng.choice(wrong[name])
    return python(lambda: edit(library.load_diffusion(valid.path("model.safetensors")), **given, steps=4))


def measuring(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """`evaluate`, `sweep`, `stats`, `label`, `distill`, `ablate`, `reproduce` with an option that nobody can mean."""
    model, data, out = valid.path("model.safetensors"), valid.path("folder"), ("--out", "out")
    doors: tuple[tuple[tuple[object, ...], dict[str, tuple[str, ...]]], ...] = (
        (("evaluate", model, "--reference", data, "--count", 8, *out), {"--count": LARGE[:2], "--seeds": LARGE[:2],
                                                                        "--metric": METRICS}),
        (("sweep", model, "--reference", data, "--count", 8, "--guidance", "cfg:1", *out), {"--over": OVER, "--scales": SCALES,
                                                                                            "--count": LARGE[:2],
                                                                                            "--plans": PLANS}),
        (("stats", data, "--out", "out.safetensors"), {"--size": LARGE, "--keep": LARGE[1:8], "--batch-size": LARGE[1:8]}),
        (("label", data, "--out", "out.parquet"), {"--clusters": LARGE, "--seed": LARGE[1:8], "--batch-size": LARGE[1:8]}),
        (("distill", valid.path("run"), "--data", "digits", *out), {"--from": LARGE, "--to": LARGE[:7], "--images": LARGE[1:8]}),
        (("ablate", "digits", *out), {"--images": LARGE[1:8], "--variant": ("x", ""), "--count": LARGE}),
        (("reproduce", "x", *out), {"--count": LARGE}),
    )  # fmt: skip
    words, options = rng.choice(doors)
    name = rng.choice(list(options))
    return command(*words, name, rng.choice(options[name]))


METRICS = ("x", "kid:100000000,1000000000", "kid:0", "kid:1,1", "precision_recall:100000000", "precision_recall:0", "frechet:1",
           "density_coverage:1e9", "cmmd:0", "score:0", "bpd", "{}", "x" * 100_000, "nearest:1")  # fmt: skip
OVER = ("", "=", "scale", "scale=", "scale=" + "1," * 100_000, "scale=nan", "steps=100000000", "x" * 100_000 + "=1",
        "guidance=" + "cfg+" * 10_000,
        "sampler=x", "sampler.eta=x", "temperature=1e400", "scale=" + ",".join(map(str, range(100_000))))  # fmt: skip
SCALES = ("", "x", "nan", "1,1", "1e400", "-1", "," * 10_000)


def remake(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """`remake` of pictures that are not there."""
    return command("remake", valid.path("album"), "--picture", rng.choice(LARGE), "--out", "out")


def anything(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A command line of words that mean nothing."""
    words = ("sample", "train", "edit", "info", "--help", "--version", "--", "-", "", "\0", "\udcff", "x" * 10_000, "--x", "-h",
             "--out",
             str(valid.path("model.safetensors")), "--count", "🜂", "[bold]", "%s", "../..", "evaluate", "convert", "export",
             "demo=")  # fmt: skip
    return command(*(rng.choice(words) for _ in range(rng.randrange(1, 5))))
