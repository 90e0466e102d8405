"""Pictures to train on and to compare with: sources, what is done to them, and batches of them."""

from lodestar.data.batch import Batch, DataFacts, Row, Stream
from lodestar.data.part import divide, part
from lodestar.data.source import NAMED, Pictures, Source, ending, open_source
from lodestar.data.stream import Shuffled, sequential
from lodestar.data.transforms import Transforms

__all__ = [
    "NAMED", "Batch", "DataFacts", "Pictures", "Row", "Shuffled", "Source", "Stream", "Transforms", "divide", "ending",
    "open_source", "part", "sequential",
]  # fmt: skip
