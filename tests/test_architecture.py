"""The shape of the package: who may import whom, that everything imports, and that everything public is explained."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import lodestar
from lodestar.config import Config

ROOT = Path(lodestar.__file__).parent

# The rooms by layer, from the lowest; a room imports from its own layer or below. "" is lodestar/__init__.py, whose version is
# at the bottom for all.
LAYERS: tuple[set[str], ...] = (
    {"config", "display", "files", "download", "extras", "images", "moved", "progress", "__version__"},
    {"core", "nets", "data", "degradations", "text", "checkpoint", "world", "results"},
    {"guidance", "samplers", "objectives"},
    {"denoiser", "conditions", "codecs"},
    {"models", "generators", "tasks"},
    {"evaluation", "conversion", "bundle", "library"},
    {"training"},
    {"cli", "info", "demo", "doctor", "python", "presets", "web", "__main__", ""},
)

# Rooms that may see less than their layer allows: only these others of ours.
ONLY: dict[str, set[str]] = {
    "config": set(),
    "core": {"config"},
    "nets": {"config", "files"},
    "data": {"config", "extras", "files", "progress"},
    "degradations": {"config"},
    "text": {"checkpoint", "config", "extras", "files"},
    "guidance": {"config", "core"},
    "samplers": {"config", "core"},
    "objectives": {"config", "core"},
}

# Rooms of pure computation import no library but these.
COMPUTING = ("core", "nets", "degradations", "guidance", "samplers", "objectives")
LIBRARIES = {"torch", "pydantic"}

# Nowhere, not even inside a function: other projects' implementations of what this one is, and slow private parts of torch.
FORBIDDEN = ("diffusers", "transformers", "torchvision", "torch._dynamo")


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
ROOM_OF_LAYER = {room: number for number, layer in enumerate(LAYERS) for room in layer}


def room(module: str) -> str:
    """The part of the package that a module of ours is in."""
    return module.split(".")[1] if "." in module else ""


def imports(module: str, path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import, wherever it is: ``from a import b`` is a.b where the rules know that, else a."""
    known = {*MODULES, *FORBIDDEN, "lodestar.__version__"}
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join(filter(None, [*base, node.module]))
            for alias in node.names:
                name = f"{source}.{alias.name}"
                yield node.lineno, name if name in known else source


def complaints(module: str, imported: str) -> Iterator[str]:
    """Why a module may not import this."""
    if any(imported == name or imported.startswith(f"{name}.") for name in FORBIDDEN):
        yield f"{imported} is not used here"
    library = imported.split(".")[0]
    here = room(module)
    if library != "lodestar":
        if here in COMPUTING and library not in LIBRARIES and library not in sys.stdlib_module_names:
            yield f"{here} computes with {', '.join(sorted(LIBRARIES))} alone, not with {library}"
        return
    there = room(imported)
    if there == here:
        return
    if here in ONLY and there not in ONLY[here]:
        yield f"{here} imports {', '.join(sorted(ONLY[here])) or 'nothing'} of ours, not {there or 'the package itself'}"
    elif ROOM_OF_LAYER[there] > ROOM_OF_LAYER[here]:
        yield f"{here} (layer {ROOM_OF_LAYER[here]}) is below {there or 'the package itself'} (layer {ROOM_OF_LAYER[there]})"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_its_layer_or_below(module: str) -> None:
    assert room(module) in ROOM_OF_LAYER, f"give {room(module)!r} a layer in this test, and in ARCHITECTURE.md"
    wrong = [f"line {line}: {why}" for line, imported in imports(module, MODULES[module]) for why in complaints(module, imported)]
    assert not wrong, f"{module}: {'; '.join(wrong)}"


def circles(graph: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """The sets of two modules or more of which each imports, over however many others, every other."""
    reached: dict[str, set[str]] = {}
    for module in graph:
        ahead, seen = [module], set[str]()
        while ahead:
            new = graph[ahead.pop()] - seen
            seen |= new
            ahead += new
        reached[module] = seen
    return {frozenset(other for other in seen if module in reached[other]) for module, seen in reached.items() if module in seen}


def test_no_two_files_import_each_other() -> None:
    graph = {module: {name for _, name in imports(module, path)} & MODULES.keys() - {module} for module, path in MODULES.items()}
    found = circles(graph)
    assert not found, f"circles of imports: {'; '.join(', '.join(sorted(circle)) for circle in found)}"


def test_circles_are_found() -> None:
    graph = {"a": {"b", "d"}, "b": {"c"}, "c": {"a"}, "d": {"e"}, "e": {"f"}, "f": {"e"}, "g": {"a"}}
    assert circles(graph) == {frozenset("abc"), frozenset("ef")}


@pytest.mark.parametrize(
    ("module", "imported", "allowed"),
    [
        ("lodestar.core.level", "lodestar.config", True),
        ("lodestar.core.level", "lodestar.core.plan", True),
        ("lodestar.core.level", "lodestar.nets.unet", False),
        ("lodestar.nets.unet", "lodestar.core.level", False),
        ("lodestar.nets.unet", "numpy", False),
        ("lodestar.nets.unet", "math", True),
        ("lodestar.samplers.ddim", "lodestar.guidance.cfg", False),
        ("lodestar.denoiser", "lodestar.nets.unet", True),
        ("lodestar.tasks.denoise", "lodestar.data.source", True),
        ("lodestar.data.source", "lodestar.core.level", False),
        ("lodestar.training.loop", "lodestar.cli", False),
        ("lodestar.data.source", "lodestar", False),
        ("lodestar.cli", "torchvision.transforms", False),
        ("lodestar.conversion.adm", "torch._dynamo", False),
    ],
)
def test_the_rules_can_be_broken(module: str, imported: str, allowed: bool) -> None:
    assert (not list(complaints(module, imported))) == allowed


def test_imports_are_seen_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "unet.py"
    path.write_text(
        "def f():\n    import os.path\n    from ..core import level\n    from . import layers\n"
        "from torch import _dynamo, nn\nfrom lodestar import config, __version__, load\n"
    )
    found = [name for _, name in imports("lodestar.nets.unet", path)]
    ours = ["lodestar", "lodestar.__version__", "lodestar.config", "lodestar.core.level", "lodestar.nets.layers"]
    assert sorted(found) == [*ours, "os.path", "torch", "torch._dynamo"]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_a_module_imports_and_is_explained(name: str) -> None:
    """Modules, public classes and public functions have docstrings.

    So do methods, but for those that a base class or a protocol of the same room has already explained, special ones, and those
    of a single expression, which their name and types explain.
    """
    module = importlib.import_module(name)
    missing = [] if module.__doc__ else ["the module"]
    missing += [what for what, value in public(module) if not value.__doc__]
    assert not missing, f"{name}: no docstring on {', '.join(missing)}"


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """What has to have a docstring, by name: what is defined here under a public name."""
    for name, value in list(vars(module).items()):
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, FunctionType):
            yield name, value
        elif isinstance(value, type):
            yield name, _Own(value)
            promised = {*_promised(room(module.__name__)), *(name for base in value.__mro__[1:] for name in vars(base))}
            for method, attribute in vars(value).items():
                function = _function(attribute)
                if function and not method.startswith("_") and method not in promised and not _one_expression(function):
                    yield f"{name}.{method}", function


def _promised(here: str) -> set[str]:
    """What the protocols of a room ask for, with an explanation."""
    protocols = (
        value
        for name in MODULES
        if room(name) == here
        for value in vars(importlib.import_module(name)).values()
        if getattr(value, "_is_protocol", False) and value.__module__ == name
    )
    return {
        name for protocol in protocols for name, value in vars(protocol).items() if getattr(_function(value), "__doc__", None)
    }


class _Own:
    """A class with its own docstring alone: dataclasses and pydantic put a generated or inherited one where there is none."""

    def __init__(self, kind: type) -> None:
        own = vars(kind).get("__doc__") or ""
        self.__doc__ = "" if own.startswith(f"{kind.__name__}(") else own


def _function(attribute: object) -> FunctionType | None:
    if isinstance(attribute, property):
        attribute = attribute.fget
    attribute = getattr(attribute, "func", getattr(attribute, "__func__", attribute))  # cached properties, class methods
    return attribute if isinstance(attribute, FunctionType) and attribute.__module__.startswith("lodestar") else None


def _one_expression(function: FunctionType) -> bool:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    return (
        isinstance(definition, ast.FunctionDef)
        and len(definition.body) == 1
        and isinstance(definition.body[0], ast.Return | ast.Expr)
    )


# ---------------------------------------------------------------------------------------------------- the shape of functions

LINES, PARAMETERS = 60, 10
GUIDES = {"classifier", "weak", "critic", "judge"}
# Where one guide may be named: guidance and conditions, guides themselves, what the judge does, and the command line's aliases.
NAMING = ("guidance/", "conditions/", "cli/", "generators/guide.py", "generators/rejection.py")
FILES = [*ROOT.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]


def misshapen(text: str, naming: bool) -> Iterator[str]:
    """The functions of a file that are too long or take too much, and, unless it may, what has the name of one guide."""
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            names = [each.arg for each in given if each.arg not in ("self", "cls")]
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LINES:
                yield f"{node.name} has {lines} lines"
            if len(names) > PARAMETERS:
                yield f"{node.name} has {len(names)} parameters"
        elif isinstance(node, ast.ClassDef):
            names = [
                each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
            ]
        for name in GUIDES.intersection(names) if not naming else ():
            yield f"{getattr(node, 'name', '')} has {name!r}, one guide among others: give it by its role"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_function_is_long_or_takes_much_or_knows_one_guide(path: Path) -> None:
    ours = path.is_relative_to(ROOT)
    naming = not ours or path.relative_to(ROOT).as_posix().startswith(NAMING)
    found = list(misshapen(path.read_text(encoding="utf-8"), naming))
    assert not found, f"{path}: {'; '.join(found)}"


def test_misshapen_functions_are_found() -> None:
    text = "def long():\n" + "    pass\n" * LINES + f"async def much({', '.join(f'a{k}' for k in range(PARAMETERS + 1))}): ...\n"
    text += "class Some:\n    weak: int\n    def one(self, judge, *, critic): ...\n"
    text += f"def fits(self, {', '.join(f'a{k}' for k in range(PARAMETERS))}):\n" + "    pass\n" * (LINES - 1)
    assert list(misshapen(text, True)) == ["long has 61 lines", "much has 11 parameters"]
    assert {each.split(",")[0] for each in misshapen(text, False)} >= {"Some has 'weak'", "one has 'judge'", "one has 'critic'"}


def subclasses(kind: type[Config]) -> Iterator[type[Config]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_a_class_is_called_as_its_kind() -> None:
    """As far as words go: `TrainDenoiser` is "denoise", `LabelCondition` "label"."""
    for module in pkgutil.walk_packages(lodestar.__path__, "lodestar."):
        if module.name != "lodestar.__main__":
            importlib.import_module(module.name)
    named = {each: each.model_fields["kind"].default for each in subclasses(Config) if "kind" in each.model_fields}
    ours = {each: kind for each, kind in named.items() if isinstance(kind, str) and each.__module__.startswith("lodestar.")}
    assert len(ours) > 90
    for each, kind in ours.items():
        letters, name = kind.replace("_", ""), each.__name__.lower().removeprefix("train")
        assert name.startswith(letters[:6]), f"{each.__module__}.{each.__name__} is of kind {kind!r}"
