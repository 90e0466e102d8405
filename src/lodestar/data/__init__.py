"""Pictures to train on and to compare with: sources, what is done to them, and batches of them."""

from lodestar.data.source import Source, open_source
from lodestar.data.stream import Batch, batches, sequential
from lodestar.data.transforms import Transforms

__all__ = ["Batch", "Source", "Transforms", "batches", "open_source", "sequential"]
