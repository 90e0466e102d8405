"""The 1000 classes of ImageNet (ILSVRC 2012) by name. The words are WordNet's, whose licence is in `imagenet.txt`."""

from __future__ import annotations

from pathlib import Path

_LINES = [
    line.partition(" ")
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]

SYNSETS = tuple(synset for synset, _, _ in _LINES)
"""WordNet's identifiers, n01440764 to n15075141, which the folders of the data set are called; classes are in their order."""

NAMES = tuple(words for _, _, words in _LINES)
"""A name, all different, and its synonyms with ", " between them, as `lodestar.models.labels` reads them."""
