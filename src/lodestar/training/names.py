"""The files of a run's folder."""

from lodestar.library import MODEL as MODEL  # the model, in the first average's weights

RUN = "run.json"
"""The configuration."""
STATE = "state.safetensors"
"""Everything that resuming needs."""
LOG = "log.jsonl"
"""Numbers along the way, a JSON object a line."""
LOCK = ".lock"
"""Lock file of the training process."""
BOARD = "tensorboard"
"""The folder of TensorBoard's files."""
