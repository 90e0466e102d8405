"""Picture files in folders: their selection, order, and classes.

A folder, a zip and a tar of the same files are the same data set, because each of them asks here.
"""

from __future__ import annotations

import posixpath
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lodestar.config import Note, Problem, from_json, shown
from lodestar.data.beside import Beside
from lodestar.data.captions import CAPTION, Reader, Texts
from lodestar.data.classes import in_order, numbered
from lodestar.data.columns import Asked
from lodestar.files import reading

ALBUM, EDM = "manifest.json", "dataset.json"
"""Files that list pictures: ours, beside samples, and EDM's and StyleGAN's."""

_ENDINGS = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".tga",
    ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
_SPLIT = re.compile(r"(train|training|test|testing|val|valid|validation|dev|eval)([-_ ]?(set|data|split|images|\d+))?")
_NAMED = 3
"""Number of left-out files named in a note."""


@dataclass
class Listing:
    """Everything in a folder or archive, as paths with "/" between their parts, relative to the whole."""

    files: list[str] = field(default_factory=list)
    """Regular files."""
    folders: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    """Entries that cannot be opened as a file: pipes, sockets, devices, and an archive's links out of it."""


@dataclass(frozen=True)
class Tree:
    """The pictures, in their order, with their classes."""

    files: Sequence[str]
    """Paths as they are listed."""
    names: tuple[str, ...] | None = None
    labels: np.ndarray | None = None
    """Class numbers int64 [N]; None, as `names`, where there are no classes."""
    texts: Callable[[str], Texts] | None = None
    """The texts of a picture by its path, where texts are asked for."""

    def reader(self) -> Reader | None:
        """The texts of a picture by its number."""
        texts = self.texts
        return None if texts is None else lambda index: texts(self.files[index])


def read_tree(listing: Listing, read: Callable[[str], bytes], spec: str, asked: Asked, archive: str = "") -> Tree:
    """The pictures of what is listed. What else is listed is named in a Note, hidden files apart.

    read: gives a file's contents. archive: the name, without its ending, of the archive that holds all of this: a folder of the
    same name, in which everything is, is the data set and no class. Raises Problem.
    """
    files, folders, strange = (list(filter(visible, paths)) for paths in (listing.files, listing.folders, listing.strange))
    if asked.captions or asked.style is not None:
        plain = replace(asked, captions=False, style=None)
        if asked.style is None and (prompts := _prompts(files, read, spec)) is not None:
            return replace(read_tree(listing, read, spec, plain, archive), texts=prompts)
        beside = Beside(files, read, spec, asked)
        used = beside.used(list(filter(is_picture, files)))
        others = Listing([path for path in files if path not in used], folders, strange)
        return replace(read_tree(others, read, spec, plain, archive), texts=beside.texts)
    labels = asked.labels is not False
    pictures = sorted(filter(is_picture, files), key=_place)
    outer, inner = _roots(pictures, archive)
    for root in dict.fromkeys(("", outer, inner, _common(pictures))):
        if f"{root}{ALBUM}" in files and (listed := _album(read(f"{root}{ALBUM}"), spec)) is not None:
            return _listed({name: label for name, (label, _) in listed.items()}, root, files, spec, labels)
        if f"{root}{EDM}" in files and (told := _edm(read(f"{root}{EDM}"), spec)) is not None:
            kinds = [_told(told, path[len(root) :], spec) for path in pictures]
            _note(spec, [path for path in files if not is_picture(path) and path != root + EDM], [], strange)
            return _labelled(pictures, kinds, labels)
    classes = _classes(pictures, inner, spec, bool(archive))
    rank = {name: k for k, name in enumerate(classes)}
    ordered = sorted(pictures, key=lambda path: rank[_top(path, inner)]) if classes else pictures
    inside = [*folders, *(posixpath.dirname(path) for path in files)]  # an archive need not list its folders
    empty = {_top(path, inner) for path in inside if path.startswith(inner)} - {*classes, ""}
    _note(spec, [path for path in files if not is_picture(path)], sorted(empty) if classes else [], strange)
    return _labelled(ordered, [_top(path, inner) if classes else None for path in ordered], labels)


def visible(path: str) -> bool:
    """True if no part of a path is hidden, or added by macOS to every archive."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def is_picture(path: str) -> bool:
    """True if a path is named like a picture."""
    return path.lower().endswith(_ENDINGS)


def _place(path: str) -> list[tuple[bool, str]]:
    """The order of paths: by name, a folder's files before the folders in it."""
    *folders, name = path.split("/")
    return [*((True, folder) for folder in folders), (False, name)]


def _common(pictures: Sequence[str]) -> str:
    """The innermost folder that all pictures are in, with a "/" at its end; "" for none."""
    folders = {posixpath.dirname(path) for path in pictures}
    common = posixpath.commonpath(folders) if folders and "" not in folders else ""
    return f"{common}/" if common else ""


def _roots(pictures: Sequence[str], archive: str) -> tuple[str, str]:
    """The folder of the data set, in an archive, and the one in it, or itself, whose folders are classes.

    That one holds no picture of its own but several folders of them: a folder around a data set is no class.
    """
    common = _common(pictures)
    outer = f"{archive}/" if archive and common.startswith(f"{archive}/") else ""
    flat = any(posixpath.dirname(path) + "/" == common for path in pictures)
    return outer, outer if flat else common


def _classes(pictures: Sequence[str], root: str, spec: str, packed: bool) -> list[str]:
    """The folders in `root` that hold pictures, in the order of classes; none where it holds pictures itself. Raises Problem."""
    parts = [path[len(root) :].split("/") for path in pictures]
    classes = in_order(rest[0] for rest in parts if len(rest) > 1)
    here = next((path for path, rest in zip(pictures, parts, strict=True) if len(rest) == 1), None)
    if here and classes:
        raise Problem(
            f"{spec} holds pictures ({here}) beside folders of pictures ({root}{classes[0]}): "
            "either every picture is in a folder named after its class, or none is"
        )
    if classes and all(map(_is_split, classes)):
        one = posixpath.join(spec, root, classes[0])
        way = "pack one of them alone" if packed else f"name one, such as {one}"
        raise Problem(f"{spec} holds splits ({', '.join(classes)}), not classes: {way}")
    inside = sorted({"/".join(rest[:2]) for rest in parts if len(rest) > 2})
    if len(inside) > 1 and all(len(rest) > 2 and _is_split(rest[1]) for rest in parts):
        more = ", …" if len(inside) > _NAMED else ""
        raise Problem(
            f"{spec} holds splits in its classes ({', '.join(inside[:_NAMED])}{more}): "
            "make one folder for each split, with the classes in it, and name one"
        )
    return classes


def _top(path: str, root: str) -> str:
    """The first part of a path below `root`."""
    return path[len(root) :].partition("/")[0]


def _is_split(name: str) -> bool:
    return _SPLIT.fullmatch(name.lower()) is not None


def _labelled(files: Sequence[str], kinds: Sequence[str | None], labels: bool) -> Tree:
    """The files with their classes, if these are wanted and each file has one."""
    known = [kind for kind in kinds if kind is not None]
    if not labels or len(known) < len(files) or not files:
        return Tree(files)
    return Tree(files, *numbered(known))


def _prompts(files: Sequence[str], read: Callable[[str], bytes], spec: str) -> Callable[[str], Texts] | None:
    """The prompts of an album's pictures by their paths; None where there is no manifest of ours. Raises Problem."""
    root = _common([path for path in files if is_picture(path)])
    listed = _album(read(root + ALBUM), spec) if root + ALBUM in files else None
    if listed is None:
        return None
    if not any(text for _, text in listed.values()):
        raise Problem(f"{spec} has no captions: its pictures were made without prompts")

    def texts(path: str) -> Texts:
        _, text = listed[path[len(root) :]]
        if not text:
            raise ValueError("it was made without a prompt")
        return {CAPTION: text}

    return texts


def _album(text: bytes, spec: str) -> dict[str, tuple[str | None, str | None]] | None:
    """The pictures that a manifest of ours lists, with labels and prompts; None where it is none of ours. Raises Problem."""
    try:
        found = from_json(text)
    except ValueError:
        return None
    told = found.get("manifest") if isinstance(found, dict) else None
    if not isinstance(told, dict) or "lodestar" not in told:
        return None
    listed: dict[str, tuple[str | None, str | None]] = {}
    with reading(f"{spec}: {ALBUM}", "is not as expected"):
        for picture in found["pictures"]:
            match picture:
                case {"file": str(name), "label": str() | int() | None as label} if isinstance(
                    prompt := picture.get("text"), str | None
                ):
                    listed[name] = None if label is None else str(label), prompt
                case _:
                    raise ValueError(f"{shown(picture)} in it is no picture with a file and a label")
    return listed


def _listed(listed: dict[str, str | None], root: str, files: Sequence[str], spec: str, labels: bool) -> Tree:
    """The files listed by a manifest, and no others: a grid of them is beside them."""
    there = set(files)
    if missing := next((name for name in listed if root + name not in there), None):
        raise Problem(f"{spec} is not finished: its manifest lists {missing}, which is not there")
    return _labelled([root + name for name in listed], list(listed.values()), labels)


def _edm(text: bytes, spec: str) -> dict[str, object] | None:
    """Contents of ``dataset.json``, ``{"labels": [[file, number], ...] or null}``; None for a file of another kind."""
    with reading(f"{spec}: {EDM}", "is not as expected"):
        found = from_json(text)
        if not isinstance(found, dict) or "labels" not in found:
            return None
        labels = [] if found["labels"] is None else found["labels"]
        if not isinstance(labels, list):
            raise ValueError(f"its labels are {shown(labels)}, and not a list of pairs (file, number)")
        for pair in labels:
            if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
                raise ValueError(f"{shown(pair)} in its labels is no pair (file, number)")
        return dict(labels)


def _told(labels: dict[str, object], path: str, spec: str) -> str | None:
    if not labels:
        return None
    label = labels.get(path)
    if label is None:
        raise Problem(f"{spec}: {EDM} is not as expected: it has no label for {path!r}")
    if not isinstance(label, int):
        raise Problem(f"{spec}: {EDM} is not as expected: the label of {path!r} is {shown(label)}, and labels are class numbers")
    return str(label)


def _note(spec: str, others: Sequence[str], empty: Sequence[str], strange: Sequence[str]) -> None:
    """Tell what is not read."""
    told = [
        f"{what} ({len(paths)}: {_some(paths)})"
        for what, paths in (
            ("files that are no pictures", others),
            ("folders without pictures, which are no classes", empty),
            ("what is no regular file", strange),
        )
        if paths
    ]
    if told:
        warnings.warn(Note(f"{spec}: not read: {', '.join(told)}"), stacklevel=2)


def _some(paths: Iterable[str]) -> str:
    """The first, one of each ending before others of the same, and whether there are more."""
    ordered = sorted(paths)
    first = {posixpath.splitext(path)[1]: path for path in reversed(ordered)}
    shown = list(dict.fromkeys([*first.values(), *ordered]))[:_NAMED]
    return ", ".join(shown) + (", …" if len(ordered) > len(shown) else "")
