"""Manifests in their first form, which had a field for each role, and a list for each property of the pictures."""

from __future__ import annotations

from typing import Any

_ROLES = ("classifier", "weak")
_EACH = {"labels": "label", "seeds": "seed", "sources": "source", "weights": "weight"}
"""Properties of single pictures, and their names in an `Ask`."""
_SETTINGS = {"plan": "steps", "clip": "clamp", "sampler": "sampler", "temperature": "temperature"}
"""Settings formerly in the request itself, and their present names."""


def read(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest in its present form, both as JSON has them."""
    told = dict(manifest)
    guides = {}
    for role in _ROLES:
        name, digest = told.pop(role, None), told.pop(f"{role}_digest", None)
        if name is not None:
            guides[role] = {"name": name, "digest": digest}
    return told | {"guides": guides, "request": _request(told["request"])}


def _request(request: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in request.items() if name not in _EACH}
    columns = {new: request[old] for old, new in _EACH.items() if request.get(old)}
    how = {new: rest.pop(old) for old, new in _SETTINGS.items() if old in rest}
    how["guidance"] = [each | {"kind": "clamp"} if each["kind"] == "clip" else each for each in rest.pop("guidance", ())]
    if rest.get("origins"):
        rest["origins"] = [{"label": label} for label in rest["origins"]]
    return {
        "asks": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        "settings": how,
        **rest,
    }
