"""Forms made of the unions of kinds that the command line reads: a choice of kinds, and the settings of each."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from typing import Any

from lodestar.config import Config, kinds
from lodestar.extras import need

_JOIN = """(...values) => {
  const fields = %s, chosen = [].concat(values[0] ?? []);
  const texts = chosen.map(kind => {
    const told = [];
    fields.forEach(([owner, name, usual], k) => {
      const value = values[k + 1];
      const empty = value === null || value === undefined || value === "" || value === usual;
      if (owner === kind && !empty) told.push(`${name}=${value}`);
    });
    return told.length ? `${kind}:${told.join(",")}` : kind;
  });
  return texts.join("\\n");
}"""
"""Short forms of the chosen kinds, a line each, made where the fields are: nobody waits, and a click sees the last change."""


_WIDEST = 15
"""Largest scale of a slider."""
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Settings of an event without a queue, progress or an endpoint of its own."""


def form(label: str, union: Any, text: Any, several: bool = False, omit: tuple[str, ...] = ()) -> None:
    """Fields that write short forms of the kinds of a union into a text field, which may hold a kind already.

    several: kinds in the order in which they are chosen. omit: kinds that are left out.
    """
    gr = need("gradio")
    there = {kind: member for kind, member in kinds(union).items() if member.in_text and kind not in omit}
    chosen = gr.Dropdown(list(there), label=label, multiselect=several, value=[] if several else text.value or None)
    fields, owners, groups = [], [], {}
    for kind, member in there.items():
        with gr.Group(visible=kind == text.value) as groups[kind]:
            said = member.descriptions()
            for name, value in member.model_fields.items():
                if name != "kind":
                    fields.append(_field(f"{kind}: {name}", value.annotation, value, said.get(name, "")))
                    owners.append((kind, name, _usual(value)))
    shown: Mapping[str, Any] = groups

    def show(picked: Any) -> list[Any]:
        asked = picked if isinstance(picked, list) else [picked]
        return [gr.update(visible=kind in asked) for kind in shown]

    chosen.change(show, chosen, list(groups.values()), **QUIET)
    gr.on([each.change for each in (chosen, *fields)], None, [chosen, *fields], text, js=_JOIN % json.dumps(owners), **QUIET)


def settings(config: type[Config], names: tuple[str, ...], text: Any) -> None:
    """Fields that write some settings of a configuration into a text field, as NAME=VALUE after commas."""
    gr = need("gradio")
    said = config.descriptions()
    fields = [_field(name, config.model_fields[name].annotation, config.model_fields[name], said.get(name, "")) for name in names]
    owners = [("", name, _usual(config.model_fields[name])) for name in names]
    # The settings of a kind without a name.
    js = f'(...values) => ({_JOIN % json.dumps(owners)})("", ...values).slice(1)'
    gr.on([each.change for each in fields], None, fields, text, js=js, **QUIET)


def _usual(field: Any) -> Any:
    """The default of a field where it is a plain value, which need not be written."""
    return field.default if isinstance(field.default, bool | int | float | str) else None


def _field(label: str, kind: Any, field: Any, said: str) -> Any:
    """A field for a value of this kind."""
    gr = need("gradio")
    usual, told = _usual(field), " ".join(said.replace("`", "").split())
    if kind is bool:
        return gr.Checkbox(value=bool(usual), label=label, info=told)
    if typing.get_origin(kind) is typing.Literal:
        return gr.Dropdown(list(typing.get_args(kind)), value=usual, label=label, info=told)
    if kind is float and usual is not None:
        bounds = {type(each).__name__: each for each in field.metadata}
        most = getattr(bounds.get("Le"), "le", _WIDEST)
        if most <= 1 or label.endswith(": scale"):  # larger scales are written in the text
            return gr.Slider(0, min(most, _WIDEST), usual, step=0.05 if most <= 1 else 0.25, label=label, info=told)
    if kind in (int, float) and usual is not None:
        return gr.Number(usual, label=label, info=told, step=1 if kind is int else 0.1)
    # Empty is none, where a field for numbers has 0.
    return gr.Textbox(value=None if usual is None else str(usual), label=label, info=told)
