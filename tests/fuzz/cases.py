"""The cases: all kinds in turn, each a function of its number and the seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import albums, foreign, models, pictures, requests, settings
from tests.fuzz.sandbox import Call
from tests.fuzz.valid import Valid

Maker = Callable[[Valid, Random, Path], Callable[[], Any]]

KINDS: dict[str, Maker] = {
    "checkpoint bytes": models.bytes_of,
    "checkpoint header": models.header,
    "checkpoint told": models.told,
    "checkpoint weights": models.weights,
    "model elsewhere": models.elsewhere,
    "bundle": models.bundles,
    "configuration": settings.fields,
    "construction": settings.constructed,
    "overrides": settings.overrides,
    "training": settings.training,
    "short form": settings.short_forms,
    "sample": requests.sample,
    "sample in Python": requests.sample_python,
    "edit": requests.edits,
    "edit in Python": requests.edit_python,
    "measuring": requests.measuring,
    "remake": requests.remake,
    "any words": requests.anything,
    "manifest": albums.manifest,
    "album": albums.pictures,
    "run folder": albums.run,
    "taken folder": albums.taken,
    "packed pictures": pictures.packed,
    "picture": pictures.single,
    "picture folder": pictures.folders,
    "archive": pictures.archives,
    "tar": pictures.tars,
    "captions": pictures.captions,
    "arrays": pictures.arrays,
    "unpacking": pictures.unpacking,
    "table": pictures.tables,
    "diffusers settings": foreign.settings,
    "diffusers folder": foreign.folders,
    "torch file": foreign.files,
    "torch state": foreign.states,
    "scripted archive": foreign.scripted,
    "pickled module": foreign.modules,
    "autoencoder settings": foreign.autoencoders,
}

SPOKEN = {
    "training",
    "run folder",
    "taken folder",
    "measuring",
    "packed pictures",
    "picture",
    "picture folder",
    "archive",
    "tar",
    "captions",
    "arrays",
    "unpacking",
    "table",
}
"""Kinds of which some doors tell what they do before they read all that they are given."""


def kind_of(number: int) -> str:
    """The kind of a case."""
    return list(KINDS)[number % len(KINDS)]


def case(valid: Valid, number: int, seed: int = 0) -> Call:
    """The case of a number."""
    kind = kind_of(number)
    return Call(kind, number, lambda folder: KINDS[kind](valid, Random(f"{seed} {number}"), folder), spoken=kind in SPOKEN)
