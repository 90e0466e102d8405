"""Configurations: the base class, and the parser of users' texts.

A configuration is a frozen, strict pydantic model that refuses unknown fields. A checkpoint carries it as JSON, a command line
edits it with dotted overrides (``network.width=64``), and a short form names an algorithm with its numbers (``cfg:3``,
``ddim:eta=0.5``). Every error in a configuration is a `Problem` of one line: the field, the value, the allowed values and the
nearest match.

This module imports neither torch nor any other module of the package, so the command line may use it before all else.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import operator
import re
import textwrap
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Self, TypeVar, overload

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetCoreSchemaHandler, Tag, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

T = TypeVar("T")
C = TypeVar("C", bound="Config")

DEEPEST = 64
"""Maximum nesting depth of JSON; configurations and manifests have a tenth of it."""
_TOO_DEEP = f"it is nested deeper than {DEEPEST} levels"
_SHOWN = 80
"""Maximum number of characters of a value in a message."""

# Bounds that nobody meets: every number and list of a configuration has one, so that what is absurd is refused before any work.
COUNT = 10_000_000
"""Pictures of a request, and rows of whatever is measured."""
BATCH = 100_000
"""Pictures at once: more than any memory takes."""
CANDIDATES = 10_000
"""Pictures of which one is kept."""
CLASSES = 1_000_000
"""Classes."""
TIMESTEPS = 100_000
"""Steps of a chain, and so of a plan."""
SEEDS = 2**64
"""Number of seeds: all of 64 bits."""
Side = Annotated[int, Field(ge=1, le=16_384)]
"""Height or width of a picture in pixels."""
ClassNumber = Annotated[int, Field(ge=0, lt=CLASSES)]
Channels = Annotated[int, Field(ge=1, le=16_384)]
"""Channels of a layer."""
Seed = Annotated[int, Field(ge=0, le=SEEDS - 1)]
"""A seed in a configuration."""
Count = Annotated[int, Field(ge=1, le=COUNT)]
"""Number of pictures."""
BatchSize = Annotated[int, Field(ge=1, le=BATCH)]
"""Number of pictures in a batch."""
Candidates = Annotated[int, Field(ge=1, le=CANDIDATES)]
"""Number of candidates for each kept picture."""


class Problem(ValueError):
    """An error in the user's input. The message is one line: the thing, the value, the allowed values, the nearest match."""

    def __init__(self, message: str) -> None:
        # A name may have line breaks in it.
        super().__init__("\\n".join(message.splitlines()))


class Note(UserWarning):
    """Information for the user on valid input with a surprising effect. One line, like a `Problem`'s."""


if typing.TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # which pydantic does not export


class _Meta(ModelMetaclass):
    """A metaclass with which ``CFG(-1)`` in Python raises the same one line as ``cfg:-1`` on the command line."""

    def __call__(cls, *values: Any, **fields: Any) -> Any:
        try:
            return super().__call__(**_named(cls, values), **fields)
        except ValidationError as error:
            raise Problem(_one_line(error, cls, cls.__name__)) from None


def _named(cls: Any, values: tuple[Any, ...]) -> dict[str, Any]:
    """Values without names, as ``CFG(3.0)`` has one, by the names of the fields in their order, as short forms have them."""
    names = [name for name in cls.model_fields if name != "kind"]
    if len(values) > len(names):
        raise Problem(f"{cls.__name__} takes {_count(names)}, and {len(values)} values are given")
    return dict(zip(names, values, strict=False))


class Config(BaseModel, metaclass=_Meta):
    """A frozen, strict configuration. Modules are built from theirs; algorithms (samplers, schedules, guidance) *are* theirs."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )
    in_text: ClassVar[bool] = True
    """True if the short form can be written (`parse`)."""

    def replace(self, **changes: Any) -> Self:
        """A validated copy with these fields changed; lists serve as tuples. Raises Problem."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        try:
            return type(self).model_validate(fields | {name: _frozen(value) for name, value in changes.items()})
        except ValidationError as error:
            raise Problem(_one_line(error, type(self), "")) from None

    @classmethod
    def descriptions(cls) -> dict[str, str]:
        """Descriptions of the settings, by name: the docstrings under them, of base classes too.

        Read from the source when asked for, which takes a millisecond a class: a program's start is not the time for that. A
        class that was typed, without a source, has none.
        """
        found: dict[str, str] = {}
        for each in reversed(cls.__mro__[: cls.__mro__.index(Config)]):
            try:
                (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
            except (OSError, TypeError):
                continue
            assert isinstance(tree, ast.ClassDef)
            for field, text in itertools.pairwise(tree.body):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                        found[name] = inspect.cleandoc(said)
        return {name: text for name, text in found.items() if name in cls.model_fields}

    def to_json(self) -> str:
        """Compact JSON, keys in the order of the fields; `decode` reads it back to an equal configuration."""
        return self.model_dump_json()


def first_line(error: Exception) -> str:
    """First line of another library's error message; the error's kind if the message is empty."""
    said = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return f"{said} is missing" if isinstance(error, KeyError) else said


def from_json(text: str | bytes) -> Any:
    """JSON as plain data. Raises ValueError if invalid, or nested deeper than `DEEPEST`."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    layer = [value]
    for _ in range(DEEPEST):
        layer = [inner for each in layer for inner in _inside(each) if isinstance(inner, dict | list)]
    if layer:
        raise ValueError(_TOO_DEEP)
    return value


def shown(value: object) -> str:
    """A value for a message: as written in Python; of a long text its beginning, and of another long value its kind alone."""
    if isinstance(value, str) and len(value) >= _SHOWN:
        return repr(f"{value[: _SHOWN - 10]}…")
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits; what is nested too deep
        return type(value).__name__
    return text if len(text) < _SHOWN else type(value).__name__


def nearest(value: str, allowed: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest allowed word, or an empty string when none is close."""
    by_lower = {str(word).lower(): str(word) for word in allowed}
    close = get_close_matches(str(value).lower(), list(by_lower), n=1, cutoff=0.5)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


def choose(what: str, value: str, allowed: Mapping[str, T]) -> T:
    """The entry of `allowed` under the name `value`. Raises Problem naming the choices and the nearest one."""
    if value in allowed:
        return allowed[value]
    raise Problem(f"unknown {what} {value!r}: choose from {', '.join(allowed)}{nearest(value, allowed)}")


def checked(what: str, value: Any, kind: Any) -> Any:
    """An argument of a call in Python, as `kind` (a declaration such as `Count`), before it is used; what: its name.

    Nothing is converted, but whole numbers may be numpy's or torch's. Raises Problem.
    """
    try:
        return TypeAdapter(kind).validate_python(_whole(value), strict=True)
    except ValidationError as error:
        raise Problem(_one_line(error, kind, what)) from None


@overload
def decode(kind: type[T], value: Any, where: str = "") -> T: ...
@overload
def decode(kind: Any, value: Any, where: str = "") -> Any: ...
def decode(kind: Any, value: Any, where: str = "") -> Any:
    """Validate `value` (JSON text, or plain Python data) as `kind`: a Config class or an annotated union of them.

    `where` names the value in the message. Raises Problem.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        if isinstance(value, str | bytes):
            return adapter.validate_json(value)
        # Through JSON, so that lists serve as tuples: JSON has no others.
        return adapter.validate_json(json.dumps(value, default=_plain))
    except ValidationError as error:
        raise Problem(_one_line(error, kind, where)) from None
    except Problem:
        raise
    except (TypeError, ValueError, RecursionError) as error:  # keys that are no text; what is nested too deep, or in itself
        raise Problem(f"{where or getattr(kind, '__name__', 'value')} is no configuration: {first_line(error)}") from None


def edit(config: C, overrides: Iterable[str | Mapping[str, Any]]) -> C:
    """`config` with dotted overrides such as ``task.network.width=64`` or ``schedule={"kind":"cosine"}`` applied.

    A number in a path is a place in a list. A text's value is read as JSON where it is JSON, and as text otherwise. A mapping has
    values by their paths, which may be configurations: ``{"train.optimizer.rate": 3e-4, "task.levels": LogNormal()}``. Raises
    Problem for a path that does not exist.
    """
    data = json.loads(config.to_json())
    for path, value in itertools.chain.from_iterable(map(_assignments, overrides)):
        *parents, last = path.split(".")
        node: Any = data
        for depth, name in enumerate(parents):
            if name not in _fields(node):
                raise _no_field(".".join(parents[: depth + 1]), node)
            node = _fields(node)[name]
        if last not in _fields(node):
            raise _no_field(path, node)
        node[int(last) if isinstance(node, list) else last] = value
    return decode(type(config), data)


def _fields(node: Any) -> dict[str, Any]:
    """Values by the names of their fields; in a list by their numbers."""
    return node if isinstance(node, dict) else {str(k): each for k, each in enumerate(node)} if isinstance(node, list) else {}


def _assignments(override: str | Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """The paths that an override sets, and their values."""
    if isinstance(override, Mapping):
        return [(str(path), _data(path, value)) for path, value in override.items()]
    path, separator, text = override.partition("=")
    if not separator:
        raise Problem(f"override {override!r}: write it as path=value")
    return [(path, _value(text))]


class Kinds:
    """The kinds of a base class, an extensible union: ``Annotated[Base, Kinds(A, B)]`` is a field for either.

    `register` adds a kind, also from outside of the package: files and the command line then accept it like ours.
    """

    def __init__(self, *members: type[Config], default: type[Config] | None = None) -> None:
        """default: the kind of values that name none, so that files from before there were several kinds stay valid."""
        self.members: list[type[Config]] = list(members)
        self.default = default

    def register(self, member: type[C]) -> type[C]:
        """Add a kind; returns it, so this is a decorator as well. Raises Problem if its name is taken.

        The same class defined anew, as by a repeated cell of a notebook, replaces the earlier definition.
        """
        name = _kind(member)
        taken = kinds(Annotated[Config, self]).get(name)
        if taken is member:
            return member
        if taken is not None:
            if (taken.__module__, taken.__qualname__) != (member.__module__, member.__qualname__):
                raise Problem(f"kind {name!r} is taken by {taken.__name__}: choose another name")
            self.members.remove(taken)
        self.members.append(member)
        _rebuild()
        return member

    def remove(self, member: type[Config]) -> None:
        """Take a kind out again."""
        self.members.remove(member)
        _rebuild()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The tagged union of the members that there are."""
        tagged = tuple(Annotated[member, Tag(_kind(member))] for member in self.members)
        union: Any = typing.Union[tagged]  # noqa: UP007 - of as many as there are
        by = Discriminator("kind" if self.default is None else self._told)
        return handler.generate_schema(Annotated[union, by] if len(tagged) > 1 else union)

    def _told(self, value: Any) -> Any:
        """The kind that a value says it is of, or else the default."""
        if isinstance(value, dict):
            assert self.default is not None
            return value.get("kind", _kind(self.default))
        return getattr(value, "kind", None)


def _kind(member: type[BaseModel]) -> str:
    """The name of a kind."""
    return str(member.model_fields["kind"].default)


def _rebuild() -> None:
    """Make all configurations anew, because fields of some take a kind more."""
    every, todo = [], [Config]
    while todo:
        for each in todo.pop().__subclasses__():
            todo.append(each)
            every.append(each)
    for each in every:
        if "__pydantic_core_schema__" in vars(each):
            delattr(each, "__pydantic_core_schema__")
    for each in every:
        each.model_rebuild(force=True, raise_errors=False)


def kinds(union: Any) -> dict[str, type[Config]]:
    """The members of a union of configs, also of a union of unions, by the value of their ``kind`` field."""
    return {member.model_fields["kind"].default: member for member in _members(union)}  # type: ignore[misc]


def parse(what: str, text: str, union: Any) -> Any:
    """Read the short form ``kind[:value,…,name=value,…]`` as a member of `union`.

    Bare values fill the fields of the kind in their order; ``name=value`` sets one by name. ``cfg:3`` is ``CFG(scale=3.0)``,
    ``ddim:eta=0.5`` is ``DDIM(eta=0.5)``. A text that begins with ``{`` is JSON. Raises Problem.
    """
    if text.lstrip().startswith("{"):
        return decode(union, text, what)
    name, _, rest = text.partition(":")
    member = choose(what, name, {kind: member for kind, member in kinds(union).items() if member.in_text})
    fields = [field for field in member.model_fields if field != "kind"]
    data: dict[str, Any] = {"kind": name}
    positional = iter(fields)
    for part in filter(None, rest.split(",")):
        key, separator, value = part.partition("=")
        if not separator:
            key, value = next(positional, ""), part
            if not key:
                raise Problem(f"{what} {text!r}: {name} takes {_count(fields)}, and {part!r} is one more")
        data[key] = _value(value)
    return decode(member, data, f"{what} {name}")


def short(config: Config, omit: Collection[str] = ()) -> str:
    """An algorithm in the short form that `parse` reads: ``cfg:scale=3.0,rescale=0.0``.

    Every field is stated, but for those to `omit`.
    """
    fields = {name: value for name, value in config.model_dump(mode="json").items() if name not in omit}
    kind = fields.pop("kind")
    listed = ",".join(f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in fields.items())
    return f"{kind}:{listed}" if listed else kind


def _whole(value: Any) -> Any:
    """A whole number of whatever library as Python's; what is none as it is."""
    try:
        return value if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return value


def _frozen(value: Any) -> Any:
    """`value` with tuples in the place of lists, which a frozen configuration takes in JSON alone."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _count(fields: list[str]) -> str:
    return f"only {', '.join(fields)}" if fields else "no values"


def _inside(value: Any) -> Iterable[Any]:
    """The values in a JSON object or list; none in others."""
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise Problem(f"{shown(value)} ({type(value).__name__}) has no place in a configuration")


def _value(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return text


def _data(path: str, value: Any) -> Any:
    """A copy of a value as plain data, configurations too, so that what follows may change their fields. Raises Problem."""
    try:
        return json.loads(json.dumps(value, default=_plain))
    except Problem as problem:
        raise Problem(f"{path}: {problem}") from None
    except (TypeError, ValueError, RecursionError) as error:  # keys that are no text; what is nested too deep, or in itself
        raise Problem(f"{path} is no configuration: {first_line(error)}") from None


def _no_field(path: str, node: Any) -> Problem:
    allowed = list(_fields(node))
    choices = f"choose from {', '.join(allowed)}" if allowed else "there are no fields below it"
    return Problem(f"no field {path!r}: {choices}{nearest(path.rsplit('.', 1)[-1], allowed)}")


def _one_line(error: ValidationError, kind: Any, where: str) -> str:
    """The first of pydantic's complaints, in our form."""
    details = error.errors(include_url=False)
    first = details[0]
    path, _ = _walk(kind, first["loc"])
    name = " ".join(filter(None, (where, ".".join(path)))) or getattr(kind, "__name__", "value")
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    value = first.get("input")
    match first["type"]:
        case "extra_forbidden":
            model = _model(_walk(kind, first["loc"][:-1])[1])
            fields = list(model.model_fields) if model else []
            choices = f": choose from {', '.join(fields)}" if fields else ""
            return f"unknown field {name!r}{choices}{nearest(str(first['loc'][-1]), fields)}{more}"
        case "missing":
            return f"{name}: a value is missing{more}"
        case "value_error":
            return f"{name + ': ' if path else ''}{first['ctx']['error']}{more}"
        case "literal_error":
            return f"{name} is {shown(value)}: {_choices(first['ctx']['expected'], str(value))}{more}"
        case "union_tag_invalid":
            return f"{name} {first['ctx']['tag']!r}: {_choices(first['ctx']['expected_tags'], first['ctx']['tag'])}{more}"
        case "union_tag_not_found":
            allowed = ", ".join(_tags(_walk(kind, first["loc"])[1]))
            return f"{name} is {shown(value)}: it has to be an object with a kind: choose from {allowed}{more}"
        case _:
            return f"{name} is {shown(value)}: {first['msg'][0].lower()}{first['msg'][1:]}{more}"


def _choices(expected: str, value: str) -> str:
    """pydantic's text of what is allowed ("'a', 'b' or 'c'"), and the nearest of it."""
    words = re.findall(r"'([^']*)'", expected)
    return f"choose from {', '.join(words) or expected}{nearest(value, words)}"


def _walk(kind: Any, location: Iterable[int | str]) -> tuple[list[str], Any]:
    """pydantic's location without the tags of unions, which a reader does not see, and what is declared there."""
    path: list[str] = []
    for part in location:
        if part in (tags := _tags(kind)):
            kind = tags[str(part)]
            continue
        path.append(str(part))
        if typing.get_origin(kind) is Mapping:
            kind = typing.get_args(kind)[1]
        elif isinstance(part, int):
            elements = [element for element in typing.get_args(kind) if element is not Ellipsis]
            kind = elements[min(part, len(elements) - 1)] if elements else None
        else:
            field = model.model_fields.get(part) if (model := _model(kind)) else None
            kind = _declared(field) if field else None
    return path, kind


def _declared(field: FieldInfo) -> Any:
    """What a field was declared as, as far as it matters here: pydantic keeps the `Kinds` of a growing union apart."""
    grown = [each for each in field.metadata if isinstance(each, Kinds)]
    return Annotated[field.annotation, grown[0]] if grown else field.annotation


def _members(kind: Any) -> list[type[BaseModel]]:
    """The models that a declaration allows: itself, or the members of a union."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    if typing.get_origin(kind) is typing.Annotated:
        if grown := [each for each in typing.get_args(kind)[1:] if isinstance(each, Kinds)]:
            return list(grown[0].members)
        return _members(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [member for one in typing.get_args(kind) for member in _members(one)]
    return []


def _tags(kind: Any) -> dict[str, type[BaseModel]]:
    """The members of a union of several models by the value of their ``kind``, or by their name where they have none."""
    members = _members(kind)
    named = (
        (member.model_fields["kind"].default if "kind" in member.model_fields else member.__name__, member) for member in members
    )
    return dict(named) if len(members) > 1 else {}


def _model(kind: Any) -> type[BaseModel] | None:
    """The model of a declaration that allows exactly one; otherwise None."""
    members = _members(kind)
    return members[0] if len(members) == 1 else None
