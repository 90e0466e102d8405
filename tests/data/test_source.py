from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lodestar.config import Problem
from lodestar.data import open_source
from lodestar.data import parquet as parquet_module
from lodestar.data.arrays import ArrayRows

from .pictures import noise, png, write_folder, write_table

CIFAR = Path(__file__).parents[3] / "shared/data/cifar10-test.parquet"


def table(tmp_path: Path, count: int = 10, **options: object) -> str:
    labels = [row % 3 for row in range(count)]
    return write_table(
        tmp_path / "t.parquet", [png(noise(row)) for row in range(count)], labels, names=("a", "b", "c"), **options
    )


def problem(*arguments: object, **options: object) -> str:
    """The message of opening, and reading all of, a source: one line."""
    with pytest.raises(Problem) as caught:
        source = open_source(*arguments, **options)
        for index in range(len(source)):
            source[index]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_parquet_gives_every_row_its_picture_label_and_names(tmp_path):
    source = open_source(table(tmp_path))
    assert (len(source), source.names, source.size, source.channels) == (10, ("a", "b", "c"), (4, 4), 3)
    for index in (9, 0, 5, 4, 0):
        image, label = source[index]
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, noise(index).transpose(2, 0, 1))
        assert label == index % 3


def test_parquet_holds_few_row_groups_and_rereads_the_others(tmp_path, monkeypatch):
    spec = table(tmp_path, 40)
    source = open_source(spec)
    rows = source.rows
    monkeypatch.setattr(parquet_module, "HELD_BYTES", 2 * max(rows._bytes))
    source._kept = None
    for index in np.random.default_rng(0).permutation(40):
        np.testing.assert_array_equal(source[index][0], noise(index).transpose(2, 0, 1))
        assert len(rows._held) <= 2
    windows = list(rows.windows(np.random.default_rng(0)))
    assert len(windows) >= 5 and sorted(np.concatenate(windows)) == list(range(40))


def test_a_row_group_too_large_to_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_module, "_LARGEST_GROUP_BYTES", 100)
    assert "row groups of about 1,000" in problem(table(tmp_path))


def test_parquet_without_description_is_read_by_its_types(tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    pictures = [png(noise(row)) for row in range(4)]
    spec = write_table(path, pictures, ["cat", "ant", "cat", "bee"])
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    source = open_source(spec)
    assert source.names == ("ant", "bee", "cat") and [source.label(index) for index in range(4)] == [2, 0, 2, 1]


def test_columns_can_be_named(tmp_path):
    spec = write_table(tmp_path / "t.parquet", [png(noise(0))], [1], names="xy", image="picture", label="kind")
    assert open_source(spec)[0][1] == 1
    assert open_source(spec, image_column="picture", label_column="kind").names == ("x", "y")
    message = problem(spec, image_column="picure")
    assert "'picure'" in message and "picture, kind" in message and "did you mean 'picture'" in message
    assert "did you mean 'kind'" in problem(spec, label_column="kidn")


def test_missing_image_column_lists_the_columns(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"images": [1], "label": [0]}), tmp_path / "t.parquet")
    message = problem(str(tmp_path / "t.parquet"))
    assert "no column of pictures" in message and "images, label" in message and "did you mean 'images'" in message


@pytest.mark.parametrize(
    ("labels", "told"),
    [([0, 3], "row 1"), ([-1, 0], "row 0"), ([0, None], "row 1"), (["a", "b"], "row 0"), ([0.5, 1.0], "row 0")],
)
def test_a_wrong_label_is_named_when_the_data_are_opened(tmp_path, labels, told):
    spec = write_table(tmp_path / "t.parquet", [png(noise(0))] * 2, labels, names="abc")
    with pytest.raises(Problem, match=told):
        open_source(spec)


@pytest.mark.parametrize("labels", [[-1, -1], [None, None]])
def test_withheld_labels_are_no_labels(tmp_path, labels):
    source = open_source(write_table(tmp_path / "t.parquet", [png(noise(0))] * 2, labels, names="abc"))
    assert source.names is None and source[1][1] is None


def test_unreadable_parquet(tmp_path):
    path = Path(table(tmp_path))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as parquet" in problem(str(path))
    path.write_bytes(b"")
    assert "cannot be read as parquet" in problem(str(path))
    path.write_bytes(whole[:4] + bytes(1000) + whole[1004:])
    assert "row group 0" in problem(str(path))


def test_no_such_data_names_the_nearest(tmp_path):
    spec = table(tmp_path)
    assert "did you mean 't.parquet'" in problem(spec.replace("t.parquet", "tt.parquet"))
    assert "did you mean 'digits'" in problem("digts")
    assert "no folder" in problem(str(tmp_path / "nowhere/t.parquet"))
    assert "no folder 'nowhere'" in problem("nowhere/t.parquet")


def test_empty_data(tmp_path):
    assert "empty" in problem(write_table(tmp_path / "t.parquet", []))
    (tmp_path / "folder").mkdir()
    assert "empty" in problem(str(tmp_path / "folder"))
    assert "t.parquet" in problem(str(tmp_path))


def test_folder_by_class(tmp_path):
    files = {"dog/1.png": noise(1), "cat/x/3.png": noise(3), "cat/2.PNG": noise(2), ".hidden/4.png": noise(4)}
    spec = write_folder(tmp_path / "pets", files)
    (tmp_path / "pets/dog/notes.txt").write_text("no picture")
    source = open_source(spec)
    assert source.names == ("cat", "dog")
    assert [(int(source[index][0][0, 0, 0]), source[index][1]) for index in range(3)] == [(2, 0), (3, 0), (1, 1)]


def test_folder_without_classes_has_no_labels(tmp_path):
    source = open_source(write_folder(tmp_path / "all", {"b.png": noise(2), "a.png": noise(1)}))
    assert source.names is None and source[0][1] is None and source[0][0][0, 0, 0] == 1


def test_folders_that_are_unclear_are_refused(tmp_path):
    assert "beside" in problem(write_folder(tmp_path / "mixed", {"a.png": noise(1), "dog/b.png": noise(2)}))
    assert "splits" in problem(write_folder(tmp_path / "split", {"train/a.png": noise(1), "test/b.png": noise(2)}))


def test_settings_without_effect_are_refused(tmp_path):
    assert "no data 'digits@test'" in problem("digits@test")
    assert "no columns" in problem(write_folder(tmp_path / "f", {"a.png": noise(1)}), label_column="label")
    assert "choose from 1 (grey), 3 (RGB)" in problem("digits", channels=4)


def test_digits():
    source = open_source("digits")
    assert (len(source), source.size, source.channels, source.names) == (1797, (8, 8), 1, tuple("0123456789"))
    image, label = source[0]
    assert image.shape == (1, 8, 8) and image.max() == round(15 * 255 / 16) and label == 0
    assert open_source("digits", channels=3, size=16)[0][0].shape == (3, 16, 16)


def test_hub_table():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"]), "id": datasets.Value("string")}
    )
    cells = {"img": [{"bytes": png(noise(row)), "path": None} for row in range(3)], "label": [1, 0, 1], "id": list("abc")}
    source = open_source(datasets.Dataset.from_dict(cells, features=features))
    assert source.names == ("no", "yes") and [source[index][1] for index in range(3)] == [1, 0, 1]
    np.testing.assert_array_equal(source[2][0], noise(2).transpose(2, 0, 1))


def test_hub_names_are_told_from_paths(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("lodestar.data.source.load", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr("lodestar.data.source.HubRows", lambda *_: ArrayRows(np.zeros((2, 4, 4), np.uint8)))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    open_source("owner/name")
    open_source("owner/name@test")
    open_source("hf:name@train[:10%]")
    assert asked == [
        ("owner/name", "train", "owner/name"),
        ("owner/name", "test", "owner/name@test"),
        ("name", "train[:10%]", "hf:name@train[:10%]"),
    ]
    for path in ("data/name", "data/name@test", "no/such.parquet@test"):
        assert f"no data '{path}'" in problem(path).replace("no folder 'no', so ", "")


def test_mixed_sizes_need_a_size(tmp_path):
    spec = write_folder(tmp_path, {"a.png": noise(1, 4, 4), "b.png": noise(2, 4, 4), "c.png": noise(3, 4, 6)})
    message = problem(spec)
    assert "a.png is 4×4" in message and "c.png is 4×6" in message
    source = open_source(spec, size=4)
    assert {source[index][0].shape for index in range(3)} == {(3, 4, 4)}
    np.testing.assert_array_equal(source[0][0], noise(1).transpose(2, 0, 1))
    assert open_source(spec, size=(2, 6))[1][0].shape == (3, 2, 6)


@pytest.mark.parametrize("broken", [None, b"", b"not a picture", png(noise(0, 32, 32))[:200]])
def test_a_bad_picture_stops_or_is_replaced_by_the_next(tmp_path, broken):
    pictures = [png(noise(row, 32, 32)) for row in range(6)]
    pictures[2] = pictures[3] = pictures[5] = broken
    spec = write_table(tmp_path / "t.parquet", pictures, list(range(6)), names="abcdef")
    message = problem(spec)
    assert message.startswith(f"row 2 of {spec} cannot be decoded: ") and "--skip-bad" in message
    source = open_source(spec, skip_bad=True)
    assert [source[index][1] for index in range(6)] == [0, 1, 4, 4, 4, 0]
    assert source[2][0][0, 0, 0] == 4 and sorted(source.bad) == [2, 3, 5]


def test_only_bad_pictures(tmp_path):
    spec = write_table(tmp_path / "t.parquet", [b"x", b"y"])
    for size in (None, 8):
        assert "none of the 2 pictures" in problem(spec, skip_bad=True, size=size)


def test_pictures_that_are_not_kept_are_the_same(tmp_path, monkeypatch):
    spec = table(tmp_path)
    kept = open_source(spec)
    monkeypatch.setattr("lodestar.data.source._KEPT_BYTES", 0)
    fresh = open_source(spec)
    assert kept._kept is not None and fresh._kept is None
    for index in (3, 3, 7):
        np.testing.assert_array_equal(kept[index][0], fresh[index][0])


def test_fingerprint_changes_with_content_and_preparation(tmp_path):
    spec = table(tmp_path)
    same, other = open_source(spec).fingerprint, open_source(spec).fingerprint
    assert same == other and len(same) == 64
    changed = {same, open_source(spec, size=2).fingerprint, open_source(spec, channels=1).fingerprint}
    changed.add(open_source(write_table(tmp_path / "t.parquet", [png(noise(1))], [0], names="abc")).fingerprint)
    assert len(changed) == 4

    folder = write_folder(tmp_path / "f", {"a.png": noise(1)})
    before = open_source(folder).fingerprint
    stat = os.stat(tmp_path / "f/a.png")
    os.utime(tmp_path / "f/a.png", ns=(1, 1))
    assert open_source(folder).fingerprint == before, "the same pictures, copied"
    data = bytearray((tmp_path / "f/a.png").read_bytes())
    data[-1] ^= 1  # in the checksum of its end
    (tmp_path / "f/a.png").write_bytes(data)
    os.utime(tmp_path / "f/a.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert open_source(folder).fingerprint != before
    source = open_source(folder)
    (tmp_path / "f/a.png").unlink()
    with pytest.raises(Problem, match=r"a\.png cannot be read: No such file or directory$"):
        _ = source.fingerprint


def test_transparent_pictures_lie_on_white(tmp_path):
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0])
    spec = write_folder(tmp_path, {"a.png": clear, "b.png": palette, "c.png": Image.new("L", (4, 4), 7)})
    assert [open_source(spec)[index][0][:, 0, 0].tolist() for index in range(3)] == [[255, 255, 255], [255, 0, 0], [7, 7, 7]]
    assert [open_source(spec, channels=1)[index][0][:, 0, 0].tolist() for index in range(3)] == [[255], [76], [7]]


@pytest.mark.skipif(not CIFAR.exists(), reason=f"{CIFAR} is not here")
def test_cifar10():
    source = open_source(str(CIFAR))
    assert len(source) == 10_000 and source.names[7] == "horse" and source[123][0].shape == (3, 32, 32)
    assert (np.bincount(source.rows.labels) == 1000).all()
