"""One data set has one reading: whichever way the same pictures are kept, classes, order, channels and pixels are the same."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lodestar.config import Note, Problem
from lodestar.data import Source, open_source, sequential

from .pictures import noise, png, write_table

CUT = png(noise(5, 32, 32))[:200]


def colour(number: int) -> Image.Image:
    return Image.fromarray(noise(number))


def grey(number: int) -> Image.Image:
    return Image.fromarray(noise(number)[:, :, 1])


def encoded(picture: Image.Image | bytes, path: str) -> bytes:
    if isinstance(picture, bytes):
        return picture
    file = io.BytesIO()
    picture.save(file, Image.registered_extensions()[os.path.splitext(path)[1].lower()], quality=95)
    return file.getvalue()


@dataclass
class Variant:
    """Files by their paths, and what is right."""

    files: Mapping[str, Image.Image | bytes]
    pictures: tuple[str, ...]
    """The files that are pictures, in their order; those that cannot be decoded are CUT."""
    names: tuple[str, ...] | None = None
    labels: tuple[int, ...] | None = None
    channels: int = 3
    folders: tuple[str, ...] = ()
    """Folders without anything in them."""
    note: str = ""
    """What the one note says, parts with "|" between them; "" where there is none."""

    def image(self, path: str) -> np.ndarray:
        """The picture uint8 [C, H, W], by Pillow's own conversion, which is right for plain modes."""
        array = np.asarray(Image.open(io.BytesIO(encoded(self.files[path], path))).convert("L" if self.channels == 1 else "RGB"))
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


CAT_DOG = {"cat/1.png": colour(1), "cat/2.png": colour(2), "dog/1.png": colour(3)}
ORDER: dict[str, Any] = {"pictures": tuple(CAT_DOG), "names": ("cat", "dog"), "labels": (0, 0, 1)}
NUMBERS = [str(k) for k in range(12)]
VARIANTS = {
    "classes": Variant(CAT_DOG, **ORDER),
    "flat": Variant({"b.png": colour(1), "a.png": colour(2)}, ("a.png", "b.png")),
    "numbers": Variant(
        {f"{k}/{k}.png": colour(k) for k in reversed(range(12))},
        tuple(f"{k}/{k}.png" for k in range(12)), tuple(NUMBERS), tuple(range(12)),
    ),
    "gaps and zeros": Variant(
        {"005/a.png": colour(1), "10/a.png": colour(2), "other/a.png": colour(3), "7/a.png": colour(4)},
        ("005/a.png", "7/a.png", "10/a.png", "other/a.png"), ("005", "7", "10", "other"), (0, 1, 2, 3),
    ),
    "empty class": Variant(CAT_DOG, **ORDER, folders=("bird", "ant/of/some"), note="no classes (2: ant, bird)"),
    "class of no pictures": Variant(CAT_DOG | {"bird/notes.txt": b"x"}, **ORDER, note="(1: bird/notes.txt)|(1: bird)"),
    "macOS": Variant(CAT_DOG | {"__MACOSX/cat/._1.png": b"\0\5\x16\7", "__MACOSX/bird/._1.png": b"\0"}, **ORDER),
    "hidden": Variant(CAT_DOG | {".cache/a.png": colour(9), "cat/.b.png": colour(8), ".DS_Store": b"x"}, **ORDER),
    "captions": Variant(
        CAT_DOG | {"cat/1.txt": b"a cat", "cat/2.txt": b"two", "metadata.csv": b"a", "metadata.jsonl": b"{}"}, **ORDER,
        note="no pictures (4: metadata.jsonl, metadata.csv, cat/1.txt, …)",
    ),
    "folders in classes": Variant(
        {"cat/a/1.png": colour(1), "cat/b.png": colour(2), "cat/a-b/1.png": colour(3), "dog/1.png": colour(4)},
        ("cat/b.png", "cat/a/1.png", "cat/a-b/1.png", "dog/1.png"), ("cat", "dog"), (0, 0, 0, 1),
    ),
    "a folder around it": Variant(
        {f"pets/of/mine/{path}": picture for path, picture in CAT_DOG.items()} | {"README": b"hello"},
        tuple(f"pets/of/mine/{path}" for path in CAT_DOG), ("cat", "dog"), (0, 0, 1), note="no pictures (1: README)",
    ),
    "one class": Variant({"cat/1.png": colour(1), "cat/2.png": colour(2)}, ("cat/1.png", "cat/2.png"), ("cat",), (0, 0)),
    "one split": Variant(
        {f"train/{path}": picture for path, picture in CAT_DOG.items()},
        tuple(f"train/{path}" for path in CAT_DOG), ("cat", "dog"), (0, 0, 1),
    ),
    "a class called train": Variant(
        {"bus/1.png": colour(1), "train/1.png": colour(2)}, ("bus/1.png", "train/1.png"), ("bus", "train"), (0, 1)
    ),
    "greys": Variant({"a/1.png": grey(1), "b/1.png": grey(2)}, ("a/1.png", "b/1.png"), ("a", "b"), (0, 1), channels=1),
    "forms of grey": Variant(
        {"a.png": grey(1), "b.png": grey(2).convert("1"), "c.bmp": grey(3), "d.jpg": grey(4), "e.gif": grey(5)},
        ("a.png", "b.png", "c.bmp", "d.jpg", "e.gif"), channels=1,
    ),
    "one in colour": Variant(
        {f"{k}.png": grey(k) for k in range(9)} | {"9.png": colour(9)}, tuple(f"{k}.png" for k in range(10))
    ),
    "a palette of greys": Variant(
        {"a.png": grey(1).convert("P"), "b.png": grey(2)}, ("a.png", "b.png"), channels=1
    ),
    "a palette of colours": Variant({"a.png": colour(1).quantize(4), "b.png": grey(2)}, ("a.png", "b.png"), channels=3),
    "upper case": Variant({"A/1.PNG": colour(1), "a/2.JPeG": colour(2)}, ("A/1.PNG", "a/2.JPeG"), ("A", "a"), (0, 1)),
    "same names": Variant(
        {"cat/1.bmp": colour(2), "cat/1.png": colour(1), "dog/1.png": colour(3)},
        ("cat/1.bmp", "cat/1.png", "dog/1.png"), ("cat", "dog"), (0, 0, 1),
    ),
    "no picture": Variant(CAT_DOG | {"cat/0.png": CUT, "dog/2.png": CUT}, ("cat/0.png", *CAT_DOG, "dog/2.png"),
                          ("cat", "dog"), (0, 0, 0, 1, 1)),
    "as EDM has it": Variant(
        {"00000/b.png": colour(1), "00000/a.png": colour(2), "00001/c.png": colour(3), "00001/d.png": colour(4),
         "dataset.json": b'{"labels": [["00000/b.png", 10], ["00000/a.png", 9], ["00001/c.png", 10], ["00001/d.png", 2]]}'},
        ("00000/a.png", "00000/b.png", "00001/c.png", "00001/d.png"), ("2", "9", "10"), (1, 2, 2, 0),
    ),
    "an album": Variant(
        {"00001.png": colour(1), "00000.png": colour(2), "grid.png": colour(3), "manifest.json":
         b'{"manifest": {"lodestar": "1"},'
         b' "pictures": [{"file": "00000.png", "label": "ship"}, {"file": "00001.png", "label": "dog"}]}'},
        ("00000.png", "00001.png"), ("dog", "ship"), (1, 0),
    ),
}  # fmt: skip
CASES = [pytest.param(variant, id=name) for name, variant in VARIANTS.items()]


def write_folder(variant: Variant, path: Path) -> Path:
    for name in variant.folders:
        (path / name).mkdir(parents=True)
    for name, picture in variant.files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(encoded(picture, name))
    return path


def zipped(variant: Variant, path: Path, above: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in variant.folders:
            archive.mkdir(above + name)
        for name, picture in variant.files.items():
            archive.writestr(above + name, encoded(picture, name))
    return path


def tarred(variant: Variant, path: Path, mode: str = "w", above: str = "./") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in variant.folders:
            member = tarfile.TarInfo(above + name)
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
        for name, picture in variant.files.items():
            data = encoded(picture, name)
            member = tarfile.TarInfo(above + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


FILES: dict[str, Callable[[Variant, Path], Path]] = {
    "folder": lambda variant, here: write_folder(variant, here / "data"),
    "zip": lambda variant, here: zipped(variant, here / "data.zip"),
    "zip of the folder": lambda variant, here: zipped(variant, here / "data.ZIP", "data/"),
    "tar": lambda variant, here: tarred(variant, here / "data.tar"),
    "tar of the folder": lambda variant, here: tarred(variant, here / "data.tar", above="data/"),
    "tar.gz": lambda variant, here: tarred(variant, here / "data.tar.gz", "w:gz"),
    "tgz of the folder": lambda variant, here: tarred(variant, here / "data.tgz", "w:gz", "data/"),
    "tar.xz": lambda variant, here: tarred(variant, here / "data.tar.xz", "w:xz"),
}


def kinds(variant: Variant) -> list[str] | None:
    """The class of each picture by name."""
    return None if variant.names is None else [variant.names[label] for label in variant.labels or ()]


def as_table(variant: Variant, here: Path) -> str:
    data = [encoded(variant.files[path], path) for path in variant.pictures]
    return write_table(here / "data.parquet", data, kinds(variant))


def as_named_table(variant: Variant, here: Path) -> str:
    data = [encoded(variant.files[path], path) for path in variant.pictures]
    return write_table(here / "named.parquet", data, variant.labels, names=variant.names)


def as_dataset(variant: Variant, here: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    cells: dict[str, Any] = {"image": [{"bytes": encoded(variant.files[path], path), "path": None} for path in variant.pictures]}
    features = {"image": datasets.Image()}
    if variant.labels is not None:
        cells["label"], features["label"] = list(variant.labels), datasets.ClassLabel(names=list(variant.names or ()))
    return datasets.Dataset.from_dict(cells, features=datasets.Features(features))


class Items:
    """As torchvision's folders of pictures: opened when asked for."""

    def __init__(self, variant: Variant, form: Callable[[Image.Image, Any], Any]):
        self.variant, self.form = variant, form

    def __len__(self) -> int:
        return len(self.variant.pictures)

    def __getitem__(self, index: int) -> Any:
        path = self.variant.pictures[index]
        known = kinds(self.variant)
        picture = Image.open(io.BytesIO(encoded(self.variant.files[path], path)))
        return self.form(picture, None if known is None else known[index])


class Targets(Items):
    """As torchvision's own: numbers for labels, which are known without the pictures."""

    def __init__(self, variant: Variant, _: object = None):
        super().__init__(variant, lambda picture, label: (picture, None if label is None else variant.names.index(label)))  # type: ignore[union-attr]
        self.classes, self.targets = list(variant.names or ()), list(variant.labels or [None] * len(self))


OBJECTS: dict[str, Callable[[Variant, Path], Any]] = {
    "parquet": as_table,
    "parquet with names": as_named_table,
    "datasets": as_dataset,
    "pairs": lambda variant, _: Items(variant, lambda picture, label: (picture, label)),
    "dicts": lambda variant, _: Items(variant, lambda picture, label: {"image": picture, "label": label}),
    "targets": lambda variant, _: Targets(variant),
}


def check(variant: Variant, data: Any) -> Source:
    """Compare what is read with what is right."""
    source = open_source(data, skip_bad=True)
    good = [k for k, path in enumerate(variant.pictures) if variant.files[path] is not CUT]
    labels = None if source.rows.labels is None else tuple(source.rows.labels.tolist())
    assert (source.names, labels, source.channels) == (variant.names, variant.labels, variant.channels)
    batches = list(sequential(source, 5))
    expected = np.stack([variant.image(variant.pictures[k]) for k in good])
    assert np.array_equal(np.concatenate([batch.image.numpy() for batch in batches]), expected)
    if variant.labels is not None:
        read = np.concatenate([batch.label.numpy() for batch in batches if batch.label is not None])
        assert read.tolist() == [variant.labels[k] for k in good]
    assert sorted(source.bad) == [k for k in range(len(source)) if k not in good]
    return source


@pytest.mark.parametrize("variant", CASES)
@pytest.mark.parametrize("way", FILES)
def test_files_are_read_alike(tmp_path: Path, variant: Variant, way: str) -> None:
    data = FILES[way](variant, tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(variant, str(data))
    notes = [str(each.message).replace(" data/", " ") for each in caught if issubclass(each.category, Note)]
    assert len(notes) == bool(variant.note)
    assert all(words in note for note in notes for words in variant.note.split("|"))


@pytest.mark.parametrize("variant", CASES)
@pytest.mark.parametrize("way", OBJECTS)
def test_tables_and_objects_are_read_alike(tmp_path: Path, variant: Variant, way: str) -> None:
    check(variant, OBJECTS[way](variant, tmp_path))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("labels", [None, (0, 5, 7), (7, 0, 10), (-1, -1, -1)])
def test_arrays_are_read_alike(tmp_path: Path, channels: int, labels: tuple[int, ...] | None) -> None:
    """Labels are what they are called, and no more classes than there are."""
    images = np.stack([noise(k) for k in range(3)])[..., :channels]
    path = tmp_path / "data.npz"
    np.savez(path, images, *([] if labels is None else [np.array(labels)]))
    names = sorted(map(str, labels), key=int) if labels and min(labels) >= 0 else None
    pairs = [(image, None if labels is None else labels[k]) for k, image in enumerate(images)]
    data = [png(image if channels == 3 else image[..., 0]) for image in images]
    for each in (str(path), pairs, write_table(tmp_path / "t.parquet", data, None if names is None else labels)):
        source = open_source(each)
        assert source.channels == channels
        assert source.names == (None if names is None else tuple(names))
        assert np.array_equal(np.stack([source[k][0] for k in range(3)]), images.transpose(0, 3, 1, 2))
        if labels and names:
            assert [source.label(k) for k in range(3)] == [names.index(str(label)) for label in labels]


@pytest.mark.parametrize("way", FILES)
@pytest.mark.parametrize(
    ("paths", "told"),
    [
        (("train/cat/1.png", "train/dog/1.png", "val/cat/1.png"), r"holds splits \(train, val\), not classes"),
        (("Train/1.png", "test_set/2.png"), r"holds splits \(Train, test_set\), not classes"),
        (("it/train-1/cat/1.png", "it/dev/cat/1.png"), r"holds splits \(dev, train-1\), not classes"),
        (("cat/train/1.png", "cat/test/2.png", "dog/train/3.png"), r"holds splits in its classes \(cat/test, cat/train, dog/"),
        (("1.png", "cat/1.png"), r"holds pictures \((data/)?1.png\) beside folders of pictures \((data/)?cat\)"),
    ],
)
def test_what_is_unclear_is_refused_alike(tmp_path: Path, way: str, paths: tuple[str, ...], told: str) -> None:
    data = FILES[way](Variant({path: colour(k) for k, path in enumerate(paths)}, ()), tmp_path)
    with warnings.catch_warnings(), pytest.raises(Problem, match=told):
        warnings.simplefilter("ignore")
        open_source(str(data))


def test_of_files_of_one_name_in_an_archive_the_last_counts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(2):
            archive.writestr("a.png", png(noise(number)))
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for number in range(2):
            member = tarfile.TarInfo("a.png" if number else "./a.png")
            member.size = len(png(noise(number)))
            tar.addfile(member, io.BytesIO(png(noise(number))))
    for name in ("z.zip", "t.tar"):
        source = open_source(str(tmp_path / name))
        assert len(source) == 1
        assert np.array_equal(source[0][0], noise(1).transpose(2, 0, 1))


def test_what_is_no_file_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipes, sockets and devices named like pictures, folders named so, and links in circles."""
    here = tmp_path / "data"
    write_folder(Variant(CAT_DOG, ()), here)
    os.mkfifo(here / "cat/pipe.png")
    monkeypatch.chdir(here / "cat")  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.png")
    (here / "cat/device.png").symlink_to("/dev/zero")
    (here / "cat/folder.png").mkdir()
    (here / "cat/circle").symlink_to(here)
    (here / "dog/same").symlink_to(here / "dog")
    (here / "dog/itself").symlink_to("itself")
    (here / "dog/linked.png").symlink_to(here / "cat/1.png")
    write_folder(Variant({"x.png": colour(7)}, ()), tmp_path / "elsewhere")
    (here / "dog/beside").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(Note, match=r"no regular file \(3: cat/device.png, cat/pipe.png, cat/socket.png\)"):
        source = open_source(str(here))
    assert [source.rows.where(k).removeprefix(f"{here}/") for k in range(len(source))] == [
        "cat/1.png", "cat/2.png", "dog/1.png", "dog/linked.png", "dog/beside/x.png",
    ]  # fmt: skip
    assert np.array_equal(source[3][0], noise(1).transpose(2, 0, 1))
    (here / "cat/2.png").unlink()
    os.mkfifo(here / "cat/2.png")  # where there was a picture
    with pytest.raises(Problem, match=r"cat/2.png cannot be decoded: it is no regular file"):
        _ = source[1]
    with pytest.raises(Problem, match=r"cat/2.png cannot be read: it is no regular file"):
        _ = source.fingerprint


def test_links_and_devices_in_archives_are_named(tmp_path: Path) -> None:
    path = tarred(Variant(CAT_DOG, ()), tmp_path / "data.tar")
    with tarfile.open(path, "a") as tar:
        for name, kind, target in (
            ("cat/pipe.png", tarfile.FIFOTYPE, ""),
            ("cat/outside.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("cat/again.png", tarfile.LNKTYPE, "./cat/1.png"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    with pytest.warns(Note, match=r"no regular file \(2: cat/outside.png, cat/pipe.png\)"):
        source = open_source(str(path))
    assert len(source) == 4
    assert np.array_equal(source[2][0], noise(1).transpose(2, 0, 1))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "a.png")
        archive.writestr("a.png", png(noise(0)))
    with pytest.warns(Note, match=r"no regular file \(1: link.png\)"):
        assert len(open_source(str(tmp_path / "z.zip"))) == 1


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([None] * 3, "holds nothing"),
        ([0.5, 1.0, None], "holds values of type float"),
        ([[1], [2], [3]], "holds values of type list"),
    ],
)
def test_a_column_that_holds_no_classes_is_no_label(tmp_path: Path, labels: list[Any], told: str) -> None:
    spec = write_table(tmp_path / "t.parquet", [png(noise(k)) for k in range(3)], labels)
    with pytest.warns(Note, match=f"column 'label' {told}, and no classes: no labels are read"):
        assert open_source(spec).names is None
    with pytest.raises(Problem, match="row 0"):
        open_source(spec, label_column="label")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_source(spec, labels=False).names is None


def test_labels_can_be_left_out_and_need_not_be_right(tmp_path: Path) -> None:
    wrong = write_table(tmp_path / "t.parquet", [png(noise(k)) for k in range(3)], [0, None, 1])
    np.savez(tmp_path / "wrong.npz", np.stack([noise(k) for k in range(3)]), np.array([0.5, 1, 2]))
    objects = [(noise(0), 0), (noise(1), None), (noise(2), object())]
    for data in (wrong, str(tmp_path / "wrong.npz"), objects):
        with pytest.raises(Problem, match=r"labels are|no label|for a label"):
            open_source(data)
        assert len(open_source(data, labels=False)) == 3
        with pytest.warns(Note, match="no labels are read"):
            assert open_source(data, labels=None).names is None
    for data in ("digits", FILES["folder"](VARIANTS["classes"], tmp_path), FILES["zip"](VARIANTS["classes"], tmp_path)):
        source = open_source(data, labels=False)
        assert source.names is None and source[0][1] is None
        assert open_source(data).names is not None


def test_columns_and_classes_that_go_unused_are_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    spec = write_table(tmp_path / "t.parquet", [png(noise(0))], [1], names=["cat", "dog"])
    table = pq.read_table(spec)
    pq.write_table(table.append_column("text", pa.array(["a dog"])), spec)
    with pytest.warns(Note) as caught:
        assert open_source(spec).names == ("cat", "dog")
    told = {str(each.message).removeprefix(f"{spec}: ") for each in caught}
    assert told == {"columns that are not read: text", "1 of 2 classes have no picture: cat"}
