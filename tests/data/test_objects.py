"""Pictures that are there in Python: data sets of PyTorch's kind, of Hugging Face's, lists, and sources."""

from __future__ import annotations

import io
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lodestar.config import Note, Problem
from lodestar.data import Shuffled, open_source, part
from lodestar.data import channels as channels_module

from .pictures import noise, png, write_folder, write_table

IMAGES = np.stack([noise(k) for k in range(4)])
CHW = IMAGES.transpose(0, 3, 1, 2)


class Listed:
    """A map-style data set of given items that counts what it is asked for."""

    def __init__(self, items: list[Any], **more: Any):
        self.items, self.asked = items, 0
        vars(self).update(more)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        return self.items[index]


FORMS: dict[str, Any] = {
    "arrays": IMAGES,
    "list of arrays": list(IMAGES),
    "arrays, channels first": CHW.copy(),
    "tensor": torch.from_numpy(CHW.copy()),
    "tensors, channels last": [torch.from_numpy(image) for image in IMAGES],
    "floats": torch.from_numpy(CHW.copy()).float() / 255,
    "16 bits": np.minimum(IMAGES.astype(np.int64) * 257 + 100, 65535).astype(np.uint16),
    "PIL": [Image.fromarray(image) for image in IMAGES],
    "tuples of one": [(image,) for image in IMAGES],
    "TensorDataset": torch.utils.data.TensorDataset(torch.from_numpy(CHW.copy())),
    "Subset": torch.utils.data.Subset(Listed([*reversed(IMAGES)]), [3, 2, 1, 0]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture_is_read_alike(form: str) -> None:
    source = open_source(FORMS[form])
    assert (len(source), source.size, source.channels, source.names) == (4, (4, 4), 3, None)
    assert np.array_equal(np.stack([source[k][0] for k in range(4)]), CHW)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(source.rows.encoded(2)))), IMAGES[2])


def test_greys_and_alphas() -> None:
    grey = IMAGES[..., 0]
    for form in (grey, grey[..., None], torch.from_numpy(grey.copy()), torch.from_numpy(grey.copy())[:, None], grey > 99):
        source = open_source(form)
        assert source.channels == 1
        expected = np.where(grey > 99, 255, 0) if str(form.dtype) == "bool" else grey
        assert np.array_equal(np.stack([source[k][0][0] for k in range(4)]), expected)
    clear = np.concatenate([IMAGES, np.zeros((4, 4, 4, 1), np.uint8)], -1)
    assert (open_source(clear)[0][0] == 255).all()
    assert (open_source(clear[..., 2:])[0][0] == 255).all() and open_source(clear[..., 2:]).channels == 1


@pytest.mark.parametrize(
    "labels",
    [[10, 9, 10, 2], ["10", "9", "10", "2"], [np.int64(10), np.uint8(9), np.int32(10), 2], list(torch.tensor([10, 9, 10, 2]))],
)
def test_labels_of_every_kind(labels: list[Any]) -> None:
    pairs = list(zip(IMAGES, labels, strict=True))
    dicts = [{"image": image, "label": label} for image, label in pairs]
    for data in (pairs, dicts, Listed(pairs), torch.utils.data.Subset(Listed(pairs), range(4))):
        source = open_source(data)
        assert source.names == ("2", "9", "10") and [source.label(k) for k in range(4)] == [2, 1, 2, 0]
    other = open_source([{"png": image, "kind": label} for image, label in pairs], image_column="png", label_column="kind")
    assert other.names == ("2", "9", "10")
    batch = next(Shuffled(open_source(Listed(pairs)), 4, workers=2).batches(seed=0))
    assert batch.label is not None and sorted(batch.label.tolist()) == [0, 1, 2, 2]


def test_labels_without_pictures_and_names_of_classes() -> None:
    pairs = [(image, k % 2) for k, image in enumerate(IMAGES)]
    known = Listed(pairs, targets=torch.tensor([0, 1, 0, 1]), classes=["cat", "dog", "ant"])
    source = open_source(known, size=4, channels=3)
    assert known.asked == 0
    assert source.names == ("cat", "dog", "ant") and [source.label(k) for k in range(4)] == [0, 1, 0, 1]
    turned = Listed(pairs, targets=[7, 7, 7, 7], target_transform=lambda label: label)
    assert open_source(turned).names == ("0", "1")
    assert open_source([(image, None) for image in IMAGES]).names is None
    assert open_source([(image, -1) for image in IMAGES]).names is None
    unread = Listed(pairs)
    assert open_source(unread, labels=False, size=4, channels=3).names is None and unread.asked == 0


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ((noise(1), [1, 2]), "item 1 of list has a list for a label"),
        ((noise(1), None), "item 1 of list has no label, and others have"),
        ((noise(1), 1, 2), "item 1 of list cannot be read: it has 3 parts"),
        ({"img": noise(1)}, "item 1 of list cannot be read: it has no 'image', but img"),
    ],
)
def test_a_wrong_item_is_named(item: Any, told: str) -> None:
    with pytest.raises(Problem, match=f"^{told}"):
        open_source([(noise(0), 0), item])


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (noise(1).astype(np.int64), r"its values are int64: give uint8, uint16, or floats in \[0, 1\]"),
        (noise(1) / 127.5 - 1, r"its values are floats outside of \[0, 1\]"),
        (np.full((4, 4), np.nan), r"its values are floats outside of \[0, 1\]"),
        (np.zeros((4, 4, 4, 3), np.uint8), r"it is uint8 \[4, 4, 4, 3\], and no picture"),
        (np.zeros((6, 6, 6), np.uint8), r"it is uint8 \[6, 6, 6\], and no picture"),
        ("a path", "it is <U6"),
        (None, "it is object"),
    ],
)
def test_a_picture_that_is_none_is_named_or_left_out(picture: Any, told: str) -> None:
    source = open_source([noise(0), picture])
    with pytest.raises(Problem, match=f"^item 1 of list cannot be decoded: {told}.*--skip-bad"):
        _ = source[1]
    assert open_source([noise(0), picture], skip_bad=True)[1][0][0, 0, 0] == 0


def test_what_is_no_data_set_is_refused() -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"x": [1]})
    for data, told in (
        (3, "int is no data set: give a path, or an object with __len__ and __getitem__"),
        ({"image": IMAGES}, "dict is no data set"),
        (b"abc", "bytes is no data set"),
        (iter([1]), "list_iterator is no data set"),
        (datasets.DatasetDict({"train": table, "test": table}), r"take one of its splits \('train', 'test'\)"),
        (table.to_iterable_dataset(), "datasets.IterableDataset is no data set that can be read at random"),
        (table, "datasets.Dataset: no column of pictures"),
        ([], "list is empty: it holds no pictures"),
    ):
        with pytest.raises(Problem, match=told):
            open_source(data)


def test_a_table_is_read_as_it_is_stored() -> None:
    """Not as it has been formatted, nor as it is transformed."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})
    table = datasets.Dataset.from_dict({"image": [{"bytes": png(image)} for image in IMAGES], "label": [1, 0, 1, 0]}, features)
    for data in (table, table.with_format("torch"), table.with_transform(lambda rows: {"image": [0] * len(rows["image"])})):
        source = open_source(data)
        assert source.names == ("no", "yes") and [source.label(k) for k in range(4)] == [1, 0, 1, 0]
        assert np.array_equal(source[3][0], CHW[3])
    assert np.array_equal(open_source(table.select([3, 1]))[0][0], CHW[3])


def test_a_source_is_one_already() -> None:
    source = open_source([(image, k) for k, image in enumerate(IMAGES)])
    assert open_source(source) is source
    assert open_source(source, channels=3, labels=None) is source
    small = open_source(source, size=2, channels=1)
    assert (small.size, small.channels, small.names) == ((2, 2), 1, source.names)
    assert open_source(open_source(small), channels=3).size == (2, 2)
    bare = open_source(source, labels=False)
    assert bare.names is None and bare.label(1) is None and np.array_equal(bare[2][0], CHW[2])
    assert open_source(bare, labels=False) is bare
    assert open_source(part(source, np.array([2]), None))[0][1] == 2
    with pytest.raises(Problem, match="has no columns"):
        open_source(source, label_column="x")


def test_fingerprints_are_those_of_pictures_and_labels() -> None:
    one = open_source([(image, k) for k, image in enumerate(IMAGES)]).fingerprint
    same = open_source(Listed([(torch.from_numpy(image.copy()), k) for k, image in enumerate(CHW)])).fingerprint
    others = [open_source([(image, 0) for image in IMAGES]).fingerprint, open_source(IMAGES[::-1]).fingerprint]
    assert one == same and len({one, *others}) == 3


@pytest.mark.parametrize("last", ["grey", "colour"])
def test_one_in_colour_among_many_is_found_and_what_is_found_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """Of a table, which is read for it, under its content; of files no more than their beginnings are read."""
    monkeypatch.setenv("LODESTAR_CACHE", str(tmp_path / "cache"))
    looked: list[int] = []
    original = channels_module.in_colour
    monkeypatch.setattr(channels_module, "in_colour", lambda picture: looked.append(0) or original(picture))
    pictures = [noise(k)[..., 0] for k in range(99)] + [noise(99) if last == "colour" else noise(99)[..., 0]]
    spec = write_table(tmp_path / "t.parquet", [png(picture) for picture in pictures])
    expected = 3 if last == "colour" else 1
    assert open_source(spec).channels == expected and len(looked) == 100
    looked.clear()
    assert open_source(spec).channels == expected and len(looked) == 64
    (kept,) = (tmp_path / "cache/channels").iterdir()
    kept.write_text("broken")
    assert open_source(spec).channels == expected
    write_table(tmp_path / "t.parquet", [png(picture) for picture in [*pictures[:70], noise(1)]])
    assert open_source(spec).channels == 3, "other content under the same name"
    looked.clear()
    folder = write_folder(tmp_path / "f", {f"{k:03}.png": picture for k, picture in enumerate(pictures)})
    assert open_source(folder).channels == expected and len(looked) == 100
    assert open_source(pictures).channels == expected
    assert len(list((tmp_path / "cache/channels").iterdir())) == 2
    monkeypatch.setenv("LODESTAR_CACHE", "/dev/null/none")
    assert open_source(spec).channels == 3


def test_pictures_that_cannot_be_opened_have_no_channels(tmp_path: Path) -> None:
    spec = write_table(tmp_path / "t.parquet", [b"x", png(noise(1)[..., 0]), b""])
    assert open_source(spec, skip_bad=True).channels == 1


def test_asked_for_channels_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels_module, "in_colour", None)
    assert open_source(list(IMAGES), channels=1, size=4).channels == 1
    assert open_source("digits").channels == 1


def test_reading_from_threads_asks_for_one_item_at_a_time() -> None:
    class Careful(Listed):
        busy = False

        def __getitem__(self, index: int) -> Any:
            assert not self.busy
            self.busy = True
            item = super().__getitem__(index)
            torch.zeros(1000).sum()
            self.busy = False
            return item

    source = open_source(Careful(list(IMAGES) * 50))
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        assert len(list(islice(Shuffled(source, 8, workers=4).batches(seed=0), 20))) == 20
