"""The base configuration: strictness, short forms, overrides, and what is said of mistakes."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from lodestar.config import Config, Problem, choose, decode, edit, from_json, kinds, nearest, parse, short, shown


class Square(Config):
    kind: Literal["square"] = "square"
    side: float = Field(default=1.0, gt=0)


class Box(Config):
    kind: Literal["box"] = "box"
    width: float = 1.0
    height: float = 2.0
    colour: Literal["red", "green", "dark blue"] = "red"
    filled: bool = False
    name: str | None = None


class Dot(Config):
    kind: Literal["dot"] = "dot"


AnyShape = Annotated[Square | Box | Dot, Field(discriminator="kind")]


class Scene(Config):
    shape: AnyShape = Square()
    size: tuple[int, int] = (8, 8)
    title: str = "untitled"

    @model_validator(mode="after")
    def _wide(self) -> Scene:
        if self.size[0] < self.size[1]:
            raise Problem(f"size {self.size}: the first must not be the smaller one")
        return self


class Book(Config):
    scene: Scene = Scene()
    pages: int = Field(default=1, ge=1)


class Album(Config):
    shapes: tuple[AnyShape, ...] = ()
    cover: AnyShape | None = None
    first: Book | None = None


def problem(raised: pytest.ExceptionInfo[Problem]) -> str:
    text = str(raised.value)
    assert "\n" not in text, text
    assert "pydantic" not in text
    return text


# ------------------------------------------------------------------------------------------------ configurations


def test_a_configuration_is_frozen_hashable_and_comes_back_from_json() -> None:
    book = Book(scene=Scene(shape=Box(width=3.0), size=(9, 8)), pages=2)
    assert decode(Book, book.to_json()) == book
    assert hash(decode(Book, book.to_json())) == hash(book)
    with pytest.raises(ValueError, match="frozen"):
        book.pages = 3  # type: ignore[misc]


def test_replace_validates() -> None:
    assert Book().replace(pages=7).pages == 7
    assert Book().pages == 1
    assert Book().replace(scene=Scene(title="x")).scene.title == "x"
    with pytest.raises(Problem) as raised:
        Book().replace(pages=0)
    assert problem(raised) == "pages is 0: input should be greater than or equal to 1"
    with pytest.raises(Problem, match="unknown field 'page'"):
        Book().replace(page=0)


def test_lists_serve_as_tuples_and_configurations_as_data() -> None:
    assert decode(Scene, {"size": [4, 4], "shape": Dot()}) == Scene(size=(4, 4), shape=Dot())


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (Book, {"pages": "2"}, "pages is '2': input should be a valid integer"),
        (Book, {"pages": 2.5}, "pages is 2.5: input should be a valid integer"),
        (Book, {"pags": 2}, "unknown field 'pags': choose from scene, pages; did you mean 'pages'?"),
        (Book, {"scene": {"titel": "x"}}, "unknown field 'scene.titel': choose from shape, size, title; did you mean 'title'?"),
        (
            Book,
            {"scene": {"shape": {"kind": "sqare"}}},
            "scene.shape 'sqare': choose from square, box, dot; did you mean 'square'?",
        ),
        (
            AnyShape,
            {"kind": "box", "colour": "grean"},
            "colour is 'grean': choose from red, green, dark blue; did you mean 'green'?",
        ),
        (AnyShape, {"kind": "box", "widht": 1}, "unknown field 'widht': choose from kind, width, height"),
        (AnyShape, {"kind": "square", "side": -1}, "side is -1: input should be greater than 0"),
        (AnyShape, {"kind": "square", "side": float("nan")}, "side"),
        (Scene, {"size": [4, 9]}, "size (4, 9): the first must not be the smaller one"),
        (Scene, {"size": [4]}, "size.1: a value is missing"),
        (
            Album,
            {"shapes": [{"kind": "dot"}, {"kind": "square", "side": 0}]},
            "shapes.1.side is 0: input should be greater than 0",
        ),
        (
            Album,
            {"cover": {"kind": "square", "sied": 0}},
            "unknown field 'cover.sied': choose from kind, side; did you mean 'side'?",
        ),
        (
            Album,
            {"first": {"scene": {"titl": ""}}},
            "unknown field 'first.scene.titl': choose from shape, size, title; did you mean",
        ),
        (Book, {"pages": 0, "scene": {"size": [1, 2]}}, "(and 1 more)"),
        (Book, "{", "invalid JSON"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(kind: object, data: object, message: str) -> None:
    with pytest.raises(Problem) as raised:
        decode(kind, data)
    assert message in problem(raised)


def test_where_names_the_value() -> None:
    with pytest.raises(Problem, match=r"^guidance side is 0: "):
        decode(AnyShape, {"kind": "square", "side": 0}, "guidance")


def test_what_json_has_no_place_for_is_a_problem() -> None:
    with pytest.raises(Problem, match=r"\(object\) has no place in a configuration"):
        decode(Book, {"pages": object()})


# ------------------------------------------------------------------------------------------------------ short forms


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("dot", Dot()),
        ("square", Square()),
        ("square:3", Square(side=3.0)),
        ("square:side=0.5", Square(side=0.5)),
        ("box:1.5,4", Box(width=1.5, height=4.0)),
        ("box:1,height=3,filled=true", Box(width=1.0, height=3.0, filled=True)),
        ("box:colour=dark blue,name=null", Box(colour="dark blue")),
        ("box:name=x", Box(name="x")),
        ('{"kind": "box", "width": 9}', Box(width=9.0)),
    ],
)
def test_a_short_form(text: str, shape: Config) -> None:
    assert parse("shape", text, AnyShape) == shape
    assert parse("shape", short(shape), AnyShape) == shape


def test_a_short_form_states_every_field_but_those_to_omit() -> None:
    assert short(Box(width=1.5), omit=["name"]) == "box:width=1.5,height=2.0,colour=red,filled=false"
    assert short(Dot()) == "dot"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("squar:3", "unknown shape 'squar': choose from square, box, dot; did you mean 'square'?"),
        ("", "unknown shape ''"),
        ("square:x", "shape square side is 'x': input should be a valid number"),
        ("square:0", "shape square side is 0: input should be greater than 0"),
        ("square:1,2", "shape 'square:1,2': square takes only side, and '2' is one more"),
        ("dot:1", "shape 'dot:1': dot takes no values, and '1' is one more"),
        ("square:sied=1", "unknown field 'shape square sied': choose from kind, side; did you mean 'side'?"),
        ('{"kind": "dott"}', "shape 'dott': choose from square, box, dot; did you mean 'dot'?"),
    ],
)
def test_a_wrong_short_form(text: str, message: str) -> None:
    with pytest.raises(Problem) as raised:
        parse("shape", text, AnyShape)
    assert message in problem(raised)


def test_kinds_are_read_from_the_union() -> None:
    assert kinds(AnyShape) == {"square": Square, "box": Box, "dot": Dot}
    assert kinds(Annotated[Dot, Field()]) == {"dot": Dot}
    assert kinds(Annotated[Square | Box, Field(discriminator="kind")] | Dot) == {"square": Square, "box": Box, "dot": Dot}


# -------------------------------------------------------------------------------------------------------- overrides


def test_overrides_reach_every_depth_and_apply_in_order() -> None:
    edited = edit(Book(), ["pages=3", "scene.title=a b=c", "scene.size=[9,7]", "scene.shape.side=2", "pages=4"])
    assert edited == Book(pages=4, scene=Scene(title="a b=c", size=(9, 7), shape=Square(side=2.0)))
    assert edit(Book(), []) == Book()


def test_overrides_may_be_values_by_their_paths() -> None:
    given = {"pages": 3, "scene.size": (9, 7), "scene.shape": {"kind": "square", "side": 1.0}}
    edited = edit(Book(), [given, "scene.shape.side=2"])
    assert edited == Book(pages=3, scene=Scene(size=(9, 7), shape=Square(side=2.0)))
    assert given["scene.shape"] == {"kind": "square", "side": 1.0}, "a copy was changed"
    box = Box(height=5.0)
    assert edit(Book(), [{"scene.shape": box, "scene.shape.filled": True}]).scene.shape == box.replace(filled=True)
    for wrong, message in (
        ({"pags": 3}, "no field 'pags'"),
        ({3: 3}, "no field '3'"),
        ({"pages": object()}, r"pages: <object object at .*> \(object\) has no place in a configuration"),
        ({"pages": {(1, 2): 3}}, "pages is no configuration: keys must be str"),
    ):
        with pytest.raises(Problem, match=message):
            edit(Book(), [wrong])  # type: ignore[list-item]


def test_an_override_may_bring_another_kind() -> None:
    edited = edit(Book(), ['scene.shape={"kind":"box","height":5,"filled":false}', "scene.shape.filled=true"])
    assert edited.scene.shape == Box(height=5.0, filled=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pages", "override 'pages': write it as path=value"),
        ("pags=3", "no field 'pags': choose from scene, pages; did you mean 'pages'?"),
        ("scene.shap.side=3", "no field 'scene.shap': choose from shape, size, title; did you mean 'shape'?"),
        ("scene.shape.sid=3", "no field 'scene.shape.sid': choose from kind, side; did you mean 'side'?"),
        ("pages.first=3", "no field 'pages.first': there are no fields below it"),
        ("pages.first.second=3", "no field 'pages.first': there are no fields below it"),
        ("pages=many", "pages is 'many': input should be a valid integer"),
        ("scene.shape.side=-3", "scene.shape.side is -3: input should be greater than 0"),
        ("scene.size=[1,2]", "the first must not be the smaller one"),
        ("pages=" + "9" * 5_000, f"pages is '{'9' * 70}…': input should be a valid integer"),
        ("pages=" + "[" * 100_000, f"pages is '{'[' * 70}…': input should be a valid integer"),
    ],
    ids=lambda value: value[:40],
)
def test_a_wrong_override(override: str, message: str) -> None:
    with pytest.raises(Problem) as raised:
        edit(Book(), [override])
    assert message in problem(raised)


# ---------------------------------------------------------------------------------------------------------- choices


def test_choose_and_nearest() -> None:
    assert choose("run", "b", {"a": 1, "b": 2}) == 2
    with pytest.raises(Problem) as raised:
        choose("run", "cifar", {"cifar10": 1, "digits": 2})
    assert problem(raised) == "unknown run 'cifar': choose from cifar10, digits; did you mean 'cifar10'?"
    assert nearest("DDIMM", ["ddim", "euler"]) == "; did you mean 'ddim'?"
    assert nearest("dpm", ["Dpmpp"]) == "; did you mean 'Dpmpp'?"
    assert nearest("zzz", ["ddim", "euler"]) == ""


# ------------------------------------------------------------------------------------------------------- what is absurd


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[" * 65 + "]" * 65, '{"a":' * 65 + "1" + "}" * 65, "9" * 5_000, b"\xff"])
def test_json_that_is_none_or_too_deep_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        from_json(text)
    assert from_json('{"a":' * 64 + "1" + "}" * 64)


def test_data_that_is_in_itself_is_a_problem() -> None:
    data: dict[str, object] = {}
    data["scene"] = data
    for given in (data, {(1, 2): 3}):
        with pytest.raises(Problem, match="Book is no configuration"):
            decode(Book, given if given is not data else [data])


def test_a_problem_is_one_line_whatever_it_names() -> None:
    assert str(Problem("no model 'a\nb\r\nc'")) == r"no model 'a\nb\nc'"


def test_a_value_is_shown_as_far_as_it_is_short() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    assert [shown(value) for value in ("x", "x" * 1_000, deep, 10**5_000)] == ["'x'", f"'{'x' * 70}…'", "list", "int"]


class Mixed(Config):
    either: Book | Scene = Book()


def test_a_union_of_models_without_kinds_has_a_path_too() -> None:
    with pytest.raises(Problem, match=r"^either\.pages is 0: input should be"):
        decode(Mixed, {"either": {"pages": 0}})


class Described(Box):
    kind: Literal["described"] = "described"  # type: ignore[assignment]
    depth: float = 1.0
    """Depth, in metres,
    from the front."""
    width: float = 1.0
    ignored: str = ""


class Narrower(Described):
    kind: Literal["narrower"] = "narrower"  # type: ignore[assignment]
    height: float = 0.5
    """Height of the narrow one."""


def test_settings_are_described_by_the_docstrings_under_them() -> None:
    expected = {"depth": "Depth, in metres,\nfrom the front.", "height": "Height of the narrow one."}
    assert Narrower.descriptions() == expected


def test_a_kind_that_was_typed_has_no_descriptions() -> None:
    typed: dict[str, type[Config]] = {"Config": Config}
    exec('class Typed(Config):\n    kind: str = "typed"\n    much: float = 1.0\n    """How much."""\n', typed)
    assert typed["Typed"].descriptions() == {}
