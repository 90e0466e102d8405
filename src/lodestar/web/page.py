"""The page: a tab for each kind of request, with the parameters that all of them have beside it."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lodestar.config import Note, Problem, choose, decode, first_line
from lodestar.extras import need
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.editor import Editor
from lodestar.generators.edits import AnyEdit
from lodestar.generators.request import Settings
from lodestar.generators.unclip import UnClip
from lodestar.guidance import AnyGuidance
from lodestar.samplers import AnySampler
from lodestar.web import forms, views
from lodestar.web.calls import Call
from lodestar.web.desk import Desk, Made, Preview, Waiting, bare, commands, out_of
from lodestar.web.requests import (
    MORE,
    BlendOrder,
    CompareOrder,
    EditOrder,
    Limits,
    Order,
    SampleOrder,
    ScalesOrder,
    TextDiffOrder,
    UpsampleOrder,
    VaryOrder,
)
from lodestar.web.shelf import Shelf

CSS = """
.results { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.results section { flex: 1 1 220px; }
.pictures img { image-rendering: pixelated; }
.results svg { flex: 1 1 280px; max-width: 420px; height: auto; }
.pictures [role=button] { cursor: pointer; }
.pictures [role=button]:focus { outline: none; stroke: #1f77b4; stroke-width: 2; }
"""
_PRESS = """
const press = event => {
  const mark = event.target.closest("[data-mark]");
  if (!mark || (event.type === "keydown" && event.key !== "Enter" && event.key !== " ")) return;
  event.preventDefault();
  trigger("select", {number: Number(mark.dataset.mark)});
};
element.addEventListener("click", press);
element.addEventListener("keydown", press);
"""
_SESSIONS = 100
"""Sessions whose state of the page is held, the last used; each takes half a megabyte."""
_LIVE = 2.0
"""Seconds between two looks at a training run."""


@contextmanager
def _told(folder: Path | None = None) -> Iterator[None]:
    """A context whose errors become the one line that a client is shown; what is no fault of a client's is printed here too.

    folder: that of the request, which clients need not know.
    """
    gr = need("gradio")
    try:
        yield
    except Problem as problem:
        raise gr.Error(bare(str(problem), folder) if folder else str(problem), print_exception=False) from None
    except OSError as error:
        raise gr.Error(f"input or output: {error.strerror or first_line(error)}") from error
    except (MemoryError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise gr.Error(f"{type(error).__name__}: {first_line(error)}") from error


@dataclass(frozen=True)
class _Facts:
    """The abilities of a model, as far as the page depends on them."""

    classes: list[str]
    reads: bool
    tabs: tuple[bool, ...]
    """Edits, enlarges, and works in a CLIP's space: varies, blends, and goes by the difference of texts."""


class Page:
    """A page of these models, at this desk."""

    def __init__(self, shelf: Shelf, limits: Limits) -> None:
        self.gr = need("gradio")
        self.shelf, self.limits, self.desk = shelf, limits, Desk(shelf, limits)
        self.common: dict[str, Any] = {}
        """Components of the parameters that all requests have, by name."""

    def build(self) -> Any:
        """The page, to be launched."""
        gr = self.gr
        with gr.Blocks(title="Lodestar", analytics_enabled=False, delete_cache=(600, 3_600)) as page:
            gr.Markdown("# Lodestar\nGuided diffusion of images.")
            with gr.Row():
                with gr.Column(scale=1, min_width=300):
                    self._parameters()
                with gr.Column(scale=2, min_width=300), gr.Tabs():
                    self._tabs()
            page.load(self._models, None, self.common["model"], **forms.QUIET)
        _guard(page)
        return page

    def _parameters(self) -> None:
        """The parameters that all requests have."""
        gr, common = self.gr, self.common
        models = self.shelf.models()
        common["model"] = gr.Dropdown(models, value=models[0], label="Model", allow_custom_value=True)
        facts = self._facts(models[0])
        common["label"] = gr.Dropdown(facts.classes, value=[], multiselect=True, label="Classes", allow_custom_value=True,
            info="In turn; dog+ship and “not cat” are composed ones. None: all in turn.")  # fmt: skip
        common["prompt"] = gr.Textbox(label="Prompts", lines=2, visible=facts.reads, info="One a line, in turn.")
        with gr.Row():
            common["count"] = gr.Number(8, precision=0, label="Pictures", min_width=100)
            common["seed"] = gr.Number(0, precision=0, label="Seed", min_width=100)
            common["steps"] = gr.Textbox(label="Steps", placeholder="the model's own", min_width=100)
        with gr.Accordion("Guidance", open=True):
            common["guidance"] = guidance = gr.Textbox(label="Guidance, one a line in order of application", lines=2)
            forms.form("Kinds of guidance", AnyGuidance, guidance, several=True, omit=("own",))
        with gr.Accordion("Sampler", open=False):
            common["sampler"] = sampler = gr.Textbox(label="Sampler", placeholder="the model's own")
            forms.form("Kind of sampler", AnySampler, sampler, omit=("own",))
        upsamplers = self.shelf.upsamplers()
        with gr.Accordion("Cascade", open=False, visible=bool(upsamplers)):
            common["then"] = then = gr.Textbox(label="Further stages, one a line", lines=2,
                info="Each enlarges the pictures. Its settings stand after commas: MODEL,steps=20,guidance=cfg:3.")  # fmt: skip
            chosen = gr.Dropdown(upsamplers, value=[], multiselect=True, label="Upsamplers")
            chosen.change(None, chosen, then, js='names => names.join("\\n")', **forms.QUIET)
        with gr.Accordion("More", open=False):
            common["more"] = more = gr.Textbox(label="Further settings")
            forms.settings(Settings, MORE, more)
            common["guides"] = gr.Textbox(label="Guides", lines=2, info="ROLE=MODEL, one a line, where guidance asks for others.")
            common["reference"] = self._upload("Reference picture of content, structure and style")

    def _upload(self, label: str) -> Any:
        return self.gr.Image(type="filepath", format="png", label=label, sources=["upload", "clipboard"])

    def _tabs(self) -> None:
        gr, common, models = self.gr, self.common, self.shelf.models()
        with gr.Tab("Sample"):
            self._endpoint("sample", SampleOrder, {})
        with gr.Tab("Side by side"):
            scales = gr.Textbox("0,1,3,10", label="Scales of the first guidance, on the same seeds")
            self._endpoint("side_by_side", ScalesOrder, {"scales": scales})
        edit, enlarge, *in_clip = self._facts(models[0]).tabs
        with gr.Tab("Edit", visible=edit) as editing:
            self._edit()
        with gr.Tab("Upsample", visible=enlarge) as enlarging:
            own = {"picture": self._upload("Picture to enlarge"), "fit": gr.Checkbox(label="Bring it to the model's input size")}
            self._endpoint("upsample", UpsampleOrder, own)
        clip_tabs = self._clip_tabs(in_clip)
        with gr.Tab("Compare"):
            other = gr.Dropdown(models, value=models[:2][-1], label="Other model, on the same seeds", allow_custom_value=True)
            self._endpoint("compare", CompareOrder, {"other": other})
        told = [common["label"], common["prompt"], editing, enlarging, *clip_tabs]
        common["model"].change(self._chosen, common["model"], told, **forms.QUIET)
        with gr.Tab("Sweeps"):
            self._sweeps()
        with gr.Tab("Training"):
            self._runs()

    def _clip_tabs(self, visible: Sequence[bool]) -> list[Any]:
        """The tabs of what is done in a CLIP's space."""
        gr = self.gr
        with gr.Tab("Variations", visible=visible[0]) as vary:
            own = {"picture": self._upload("Picture to vary"), "eta": gr.Slider(0, 1, 1, label="Noise on the way (η)")}
            self._endpoint("vary", VaryOrder, own)
        with gr.Tab("Blend", visible=visible[1]) as blend:
            with gr.Row():
                own = {"picture": self._upload("Picture"), "second": self._upload("Picture at the other end")}
            own["points"] = gr.Number(8, precision=0, minimum=2, label="Pictures, the two ends included")
            self._endpoint("blend", BlendOrder, own)
        with gr.Tab("Text difference", visible=visible[2]) as textdiff:
            own = {"picture": self._upload("Picture to change")}
            own["origin"] = gr.Textbox(label="Text that tells the picture as it is")
            own["to"] = gr.Textbox(label="Text that tells the result")
            own["strength"] = gr.Slider(0, 1, 0.4, label="Part of the way: 0 is the picture, 1 the difference of the texts alone")
            self._endpoint("textdiff", TextDiffOrder, own)
        return [vary, blend, textdiff]

    def _edit(self) -> None:
        gr = self.gr
        how = gr.Textbox("sdedit", label="Edit")
        forms.form("Kind of edit", AnyEdit, how, omit=("upsample", "vary"))
        own: dict[str, Any] = {"how": how}
        with gr.Row():
            own["picture"] = self._upload("Picture")
            own["second"] = self._upload("Second picture, of an interpolation")
        own["origin"] = gr.Dropdown([], value=[], multiselect=True, label="Classes of the pictures, for inversion",
            allow_custom_value=True)  # fmt: skip
        with gr.Accordion("Mask of inpaint: paint what is to be filled in, or upload black and white"):
            brush = gr.Brush(8, colors=["#ffffff"], color_mode="fixed")
            painted = gr.ImageEditor(type="numpy", label="Paint", brush=brush, eraser=gr.Eraser(), sources=[], transforms=[],
                layers=gr.LayerOptions(allow_additional_layers=False))  # fmt: skip
            own["mask"] = self._upload("Mask")
        own["picture"].change(lambda path: path, own["picture"], painted, **forms.QUIET)
        painted.change(_mask, painted, own["mask"], **forms.QUIET)
        self._endpoint("edit", EditOrder, own)

    def _endpoint(self, name: str, order: type[Order], own: Mapping[str, Any]) -> None:
        """A button, its results, and the endpoint of this name, whose parameters are the fields of the request."""
        gr = self.gr
        with gr.Row():
            words = {"textdiff": "Change"}.get(name, name.replace("_", " ").capitalize())
            start, stop = gr.Button(words, variant="primary"), gr.Button("Cancel")
        made = gr.HTML(elem_classes="pictures", label="Pictures", min_height=60)
        archive = gr.DownloadButton("Download PNG and manifest")
        shell = gr.Textbox(label="Command line", interactive=False, buttons=["copy"], elem_classes="command")
        python = gr.Textbox(label="Python", interactive=False, buttons=["copy"])
        fields = {field: {**self.common, **own}[field] for field in order.model_fields}
        answer = self._handler(order)
        asked = {"fn": answer, "inputs": list(fields.values()), "outputs": [made, archive, shell, python]}
        asked |= {"concurrency_limit": None, "show_progress": "hidden"}
        event = start.click(**asked, api_visibility="private")
        # Clients are refused before the queue. The page has mistakes told above it: fields beside which they stood may be folded.
        gr.Button(visible=False).click(**asked, api_name=name, api_description=order.__doc__,
            validator=self._validator(list(fields), lambda *given: self._check(order, given)))  # fmt: skip
        stop.click(None, cancels=[event], **forms.QUIET)

    def _handler(self, order: type[Order]) -> Callable[..., AsyncIterator[Any]]:
        """The function of an endpoint. Its signature is that of the request, for the API's description."""
        gr, names = self.gr, list(order.model_fields)

        async def answer(*given: Any) -> AsyncIterator[Any]:
            *values, client = given
            with tempfile.TemporaryDirectory(prefix="lodestar-", ignore_cleanup_errors=True) as folder:
                place = Path(folder) / "all"
                with _told(place):
                    calls = self._calls(order, values, place)
                    await asyncio.to_thread(self.desk.check, calls)
                    async for news in self.desk.answer(calls, client.session_hash or "", place):
                        yield self._shown(news)

        # None is what is left out: the request has its own defaults.
        every = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in [*names, "client"]]
        answer.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        answer.__annotations__ = {"client": gr.Request}
        return answer

    def _calls(self, order: type[Order], values: Sequence[Any], folder: Path) -> list[Call]:
        """The calls that answer a request; None is what is left out. folder: for its pictures. Raises Problem."""
        given = zip(order.model_fields, values, strict=True)
        asked = decode(order, {name: value for name, value in given if value is not None}, "")
        choose("model", asked.model, dict.fromkeys(self.shelf.models()))
        folder.mkdir()
        return asked.calls(folder, self.limits)

    def _check(self, order: type[Order], values: Sequence[Any]) -> None:
        """Raise what a client is told of a request that cannot be answered."""
        with tempfile.TemporaryDirectory(prefix="lodestar-", ignore_cleanup_errors=True) as folder:
            place = Path(folder) / "all"
            with _told(place):
                self.desk.check(self._calls(order, values, place))

    def _validator(self, names: Sequence[str], check: Callable[..., Any]) -> Callable[..., Any]:
        """The function that Gradio calls before it queues a request: what it tells of the parameters has status 422."""

        def validated(*given: Any) -> Any:
            said, at = "", 0
            try:
                for value in given:
                    if isinstance(value, Problem):  # of `_guard`
                        raise value
                check(*given)
            except (Problem, self.gr.Error) as error:
                said = getattr(error, "message", str(error))
                at = next((names.index(word) for word in re.findall(r"\w+", said) if word in names), 0)
            told = [self.gr.validate(not said or k != at, said if k == at else "") for k in range(len(names))]
            return told if len(told) > 1 else told[0]

        return validated

    def _shown(self, news: Waiting | Preview | Made | None) -> tuple[Any, ...]:
        """The outputs of an endpoint."""
        skip = self.gr.skip()
        match news:
            case Waiting():
                return views.waiting(news), None, skip, skip
            case Preview():
                return views.preview(news), skip, skip, skip
            case Made():
                lines = [call.python(self.shelf.loading, out_of(news.calls, k)) for k, call in enumerate(news.calls)]
                shell = "\n".join(commands(news.calls, self.shelf))
                return views.made(news), str(news.archive), shell, "\n\n".join(lines)
        return skip, skip, skip, skip

    def _sweeps(self) -> None:
        gr = self.gr
        there = list(self.shelf.sweeps())
        chosen = gr.Dropdown(there, value=None, label="Sweep", info="Folders of lodestar sweep, among those that were given.",
            allow_custom_value=True)  # fmt: skip
        drawn = gr.HTML(elem_classes="pictures", label="Curves", js_on_load=_PRESS)
        number = gr.Number(0, precision=0, label="Point, by its number: press one in a curve")
        pictures = gr.HTML(elem_classes="pictures", label="Pictures at the point")
        chosen.change(self._sweep, chosen, drawn, api_name="sweep", concurrency_limit=None,
            validator=self._validator(["sweep"], self._sweep))  # fmt: skip
        gr.on([chosen.change, number.change], self._point, [chosen, number], pictures, api_name="point", concurrency_limit=None,
            validator=self._validator(["sweep", "number"], self._point))  # fmt: skip
        drawn.select(_pressed(gr.EventData), None, number, **forms.QUIET)

    def _sweep(self, sweep: str) -> str:
        """Curves of a sweep, as HTML."""
        with _told():
            return views.sweep(choose("sweep", str(sweep), self.shelf.sweeps()))

    def _point(self, sweep: str, number: int) -> str:
        """Numbers and pictures of a point of a sweep, as HTML."""
        with _told():
            return views.point(choose("sweep", str(sweep), self.shelf.sweeps()), int(number))

    def _runs(self) -> None:
        gr = self.gr
        chosen = gr.Dropdown(list(self.shelf.runs()), value=None, label="Run", allow_custom_value=True,
            info="Folders of training runs, among those that were given.")  # fmt: skip
        drawn = gr.HTML(elem_classes="pictures", label="Numbers and samples")
        timer = gr.Timer(_LIVE, active=False)
        chosen.change(self._run, chosen, drawn, api_name="run", concurrency_limit=None,
            validator=self._validator(["run"], self._run))  # fmt: skip
        chosen.change(lambda: gr.Timer(active=True), None, timer, **forms.QUIET)
        timer.tick(self._run, chosen, drawn, **forms.QUIET)

    def _run(self, run: str) -> str:
        """Losses, held-out numbers and samples of a training run, as HTML."""
        with _told():
            return views.run(choose("run", str(run), self.shelf.runs()))

    def _models(self) -> Any:
        return self.gr.update(choices=self.shelf.models())

    def _chosen(self, model: str) -> list[Any]:
        """What the page shows for a model: its classes, prompts, and the tabs of what it can do."""
        with _told():
            facts, update = self._facts(model), self.gr.update
        return [update(choices=facts.classes, value=[]), *(update(visible=each) for each in (facts.reads, *facts.tabs))]

    def _facts(self, name: str) -> _Facts:
        """The abilities of a model. Raises Problem."""
        model = self.shelf.generator(name)
        names, count = model.known
        enlarges = isinstance(model, Diffusion) and model.config.denoiser.low_res is not None
        tabs = (isinstance(model, Editor) and not enlarges, enlarges, *[isinstance(model, UnClip)] * 3)
        return _Facts(list(names) or list(map(str, range(count or 0))), model.reads, tabs)


def _mask(painted: Mapping[str, Any] | None) -> np.ndarray | None:
    """The places that are painted, white on black."""
    layers = (painted or {}).get("layers") or []
    if not layers or not any(layer[..., 3].any() for layer in layers):
        return None
    white: np.ndarray = np.any([layer[..., 3] > 0 for layer in layers], axis=0).astype(np.uint8) * 255
    return white


def _pressed(event: type) -> Callable[[Any], int]:
    """The function that reads the number of the point that was pressed. event: the type by which Gradio hands it over."""

    def number(data: Any) -> int:
        return int(data.number)

    number.__annotations__ = {"data": event}
    return number


def _guard(page: Any) -> None:
    """Have the page refuse files at addresses, which Gradio would fetch, and say in a line which values cannot be read."""
    gr, plain = need("gradio"), page.preprocess_data

    async def preprocess(endpoint: Any, given: Sequence[Any], *others: Any, **more: Any) -> Any:
        try:
            if any("://" in path for path in _paths(given)):
                raise Problem("a picture is uploaded, and not fetched from an address")
            return await plain(endpoint, given, *others, **more)
        except (gr.Error, Problem) as error:
            said = str(error)
        except Exception as error:  # whatever a component says of what it does not know
            reason = " ".join(str(error).partition("Original error: ")[2].split()) or first_line(error)
            said = f"the parameters cannot be read: {reason}"
        if endpoint.is_validator_function:
            return [Problem(said)] * len(endpoint.inputs)  # `_validator` tells it
        raise gr.Error(said, print_exception=False)

    page.preprocess_data = preprocess


def _paths(given: Any) -> Iterator[str]:
    """The paths of files in what a client has sent."""
    if isinstance(given, Mapping):
        yield str(given.get("path", ""))
    for each in given.values() if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else ():
        yield from _paths(each)


async def _unknown(request: Any, error: Exception) -> Any:
    """The answer to a request that is none of the page's: of an unknown endpoint, or with an unknown parameter."""
    return need("fastapi.responses").JSONResponse({"detail": first_line(error)}, 422 if isinstance(error, TypeError) else 404)


def _theme() -> Any:
    """Gradio's own theme, with texts that contrast with what they stand on."""
    dark = {"button_primary_background_fill": "*primary_700", "button_primary_background_fill_hover": "*primary_800"}
    grey = dict.fromkeys(("body_text_color_subdued", "block_info_text_color", "input_placeholder_color"), "*neutral_600")
    return need("gradio").themes.Default().set(**dark, **grey, block_label_text_color="*neutral_700", color_accent="*primary_700")


def serve(shelf: Shelf, limits: Limits, host: str, port: int, started: Callable[[], None] | None = None) -> Any:
    """Launch the page. Nothing is measured, shared or fetched.

    started: called once the page listens, which then runs until the process is interrupted; without it, the page runs beside the
    caller. Returns the page. Raises Problem.
    """
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
    # Nor are requests counted here: the table of all of them would be made anew after each.
    os.environ.update(GRADIO_ANALYTICS_MAX_EVENTS="1", GRADIO_ANALYTICS_CACHE_FREQUENCY=str(10**9))
    Image.MAX_IMAGE_PIXELS = int(limits.megapixels * 1e6)  # of whatever is decoded before it comes here
    page = Page(shelf, limits).build()
    warnings.simplefilter("ignore", Note)  # of requests that are checked; the desk has those of its work
    page.queue(max_size=limits.waiting, default_concurrency_limit=None, api_open=False)
    unknown = dict.fromkeys((KeyError, TypeError, need("gradio.route_utils").FnIndexInferError), _unknown)
    try:
        page.launch(
            server_name=host, server_port=port, share=False, quiet=True, show_error=True, css=CSS, theme=_theme(),
            max_file_size=f"{limits.megabytes}mb", enable_monitoring=False, run_history=False, ssr_mode=False, mcp_server=False,
            pwa=False, footer_links=["api"], state_session_capacity=_SESSIONS, prevent_thread_lock=True,
            app_kwargs={"exception_handlers": unknown},
        )  # fmt: skip
    except OSError as error:
        raise Problem(f"port {port} of {host}: {first_line(error)}") from None
    if started is not None:
        started()
        page.block_thread()
    return page
