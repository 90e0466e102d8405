"""Settings of all tests."""

from __future__ import annotations

import os

# Pictures, losses and weights are compared with recorded ones: not in whatever format is fastest here. Commands inherit it.
os.environ.setdefault("LODESTAR_PRECISION", "float32")
