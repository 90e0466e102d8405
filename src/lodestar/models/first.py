"""Model configurations of the first form, with a field for each condition in the denoiser."""

from __future__ import annotations

import json
from typing import Any

from lodestar.config import from_json

_FIELDS = ("classes", "low_res")


def upgraded(text: str | bytes) -> str | bytes:
    """A configuration, JSON, with denoisers of the first form in the present one, wherever they stand in it.

    What is no JSON comes back as it is, for `decode` to tell of.
    """
    try:
        return json.dumps(_upgraded(from_json(text)))
    except ValueError:
        return text


def _upgraded(value: Any) -> Any:
    if isinstance(value, list):
        return [_upgraded(each) for each in value]
    if not isinstance(value, dict):
        return value
    told = {name: _upgraded(each) for name, each in value.items()}
    is_denoiser = {"network", "prediction"} <= told.keys() and any(name in told for name in _FIELDS)
    return _denoiser(told) if is_denoiser else told


def _denoiser(told: dict[str, Any]) -> dict[str, Any]:
    classes, low_res = (told.pop(name, None) for name in _FIELDS)
    label = [] if classes is None else [{"kind": "label", "classes": classes}]
    small = [] if low_res is None else [{"kind": "low_res", "size": low_res}]
    return told | {"conditions": [*label, *small]}
