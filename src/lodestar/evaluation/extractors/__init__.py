"""Feature extractors, which turn pictures into feature vectors.

A new extractor is a file here, with an `Extractor` and its configuration, and a name in `Features`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from lodestar import bundle
from lodestar.config import Problem, kinds, nearest, parse
from lodestar.evaluation.extractors.base import Extractor, gives, note
from lodestar.evaluation.extractors.classifier import ClassifierExtractor, ClassifierFeatures
from lodestar.evaluation.extractors.inception import InceptionExtractor, InceptionFeatures
from lodestar.evaluation.extractors.vit import ClipFeatures, Dinov2Features

Features = Annotated[ClassifierFeatures | InceptionFeatures | Dinov2Features | ClipFeatures, Field(discriminator="kind")]

DEFAULT = ClassifierFeatures().model
"""The extractor in the package."""


def load_extractor(name: str | Path = DEFAULT, device: str | torch.device | None = None) -> Extractor:
    """The extractor called `name`: a kind of `Features`, with its settings (``kind:value``), or else a classifier.

    device: a GPU if available by default. Raises Problem if the extractor is missing or damaged.
    """
    text = str(name)
    known = text.partition(":")[0] in kinds(Features)
    if not known and nearest(text, kinds(Features)) and not _is_classifier(text):
        near = nearest(text, [*kinds(Features), *bundle.embedded()])
        raise Problem(
            f"no extractor {text!r}: choose from {', '.join(kinds(Features))}, or give a classifier's name or file{near}"
        )
    return (parse("extractor", text, Features) if known else ClassifierFeatures(model=text)).load(device)


def _is_classifier(text: str) -> bool:
    return text in bundle.embedded() or text.startswith("hf:") or Path(text).exists()


__all__ = [
    "DEFAULT", "ClassifierExtractor", "ClassifierFeatures", "Extractor", "Features", "InceptionExtractor", "gives",
    "load_extractor", "note",
]  # fmt: skip
