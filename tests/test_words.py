"""The words of the public docstrings: a first sentence names its subject with a noun, and no sentence is a riddle of pronouns."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import lodestar

ROOT = Path(lodestar.__file__).parent

# Words that stand for a noun, or put a clause in its place: "What a model believes" for "A model's estimate". "One" may count.
NO_SUBJECT = re.compile(
    r"(?:What|That|Those|It|Its|They|Their|Which|These|This|Who|Whose|Whoever|Whatever|Where|How|Whether|Likewise|The same|Of|So"
    r"|One(?= (?:of|that|which|who|for)\b|[,.;:]))\b"
)
# "One of several" and "one picture" count: a number that hardly ever stands thrice in a sentence.
PRONOUN = re.compile(r"\b(?:it|that|what|those|one|which)\b", re.IGNORECASE)
MOST = 2

Docstring = tuple[int, str, str]


def docstrings(source: str) -> Iterator[Docstring]:
    """Line, name and text of the docstrings of a module, its public classes and functions, and of their attributes."""

    def within(node: ast.Module | ast.ClassDef | ast.FunctionDef, name: str) -> Iterator[Docstring]:
        if text := ast.get_docstring(node):
            yield node.body[0].lineno, name, text
        if isinstance(node, ast.FunctionDef):
            return
        for child, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(child, ast.ClassDef | ast.FunctionDef) and _public(child.name):
                yield from within(child, child.name)
            elif isinstance(child, ast.Assign | ast.AnnAssign) and (text := _text(after)):
                yield child.lineno, ast.unparse(child.target if isinstance(child, ast.AnnAssign) else child.targets[0]), text

    return within(ast.parse(source), "the module")


def sentences(text: str) -> list[str]:
    """The sentences of a docstring; a paragraph, or a line of a table, ends one too."""
    paragraphs = re.split(r"\n\s*\n|\n(?= {4}|- )", text)
    return [part for each in paragraphs for part in re.split(r"(?<=[.!?])\s+", " ".join(each.split())) if part]


def faults(source: str) -> list[str]:
    """Docstrings of a module's text that break a rule, each as a line."""
    found = []
    for line, name, text in docstrings(source):
        parts = sentences(text)
        if NO_SUBJECT.match(parts[0]):
            found.append(f"line {line}, {name}: its first sentence names no subject: {parts[0]}")
        found += [f"line {line}, {name}: too many pronouns: {part}" for part in parts if len(PRONOUN.findall(part)) > MOST]
    return found


def _public(name: str) -> bool:
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def _text(node: ast.stmt | None) -> str:
    value = node.value if isinstance(node, ast.Expr) else None
    return inspect.cleandoc(value.value) if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_name_their_subject_in_plain_words(path: Path) -> None:
    assert not (found := faults(path.read_text(encoding="utf-8"))), "\n".join(found)


def test_riddles_are_found() -> None:
    assert faults('"""What is told of its origin has one of its own."""')
    assert faults('def f():\n    """The thing that tells what it is of those that have one."""')
    assert faults('class A:\n    """A thing."""\n\n    x: int\n    """Of the data."""')
    assert faults('class A:\n    """A thing."""\n\n    def f(self):\n        """Whether it is so."""')
    assert not faults('def f():\n    """One step between two levels. Raises Problem for one that is too wide."""')
    assert not faults('def _f():\n    """What a private function does is its own affair."""')
