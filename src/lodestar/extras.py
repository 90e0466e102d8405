"""Optional libraries: imported on use, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from lodestar.config import Problem

_EXTRA = {
    "datasets": "train",
    "pyarrow": "train",
    "pyarrow.parquet": "train",
    "tensorboard": "train",
    "torch.utils.tensorboard": "train",
    "huggingface_hub": "hub",
    "gradio": "play",
    "gradio.route_utils": "play",
    "fastapi.responses": "play",
    "matplotlib": "eval",
    "matplotlib.pyplot": "eval",
    "transformers": "features",
    "scipy.optimize": "train",
    "fsspec.core": "remote",
    "ftfy": "text",
    "tokenizers": "text",
    "sklearn": "digits",
    "sklearn.cluster": "train",
    "sklearn.metrics": "train",
    "sklearn.datasets": "digits",
}


def need(module: str) -> ModuleType:
    """Import an optional module. Raises Problem naming the extra to install when it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Problem(f"this needs {module} ({error}): pip install 'lodestar[{_EXTRA[module]}]'") from error
