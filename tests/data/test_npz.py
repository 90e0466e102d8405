"""Batches of samples in .npz files, read as NumPy writes them and written as NumPy reads them; and zip archives of pictures."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lodestar.config import Problem
from lodestar.data import Shuffled, open_source, sequential
from lodestar.data.npz import write_npz

PICTURES = np.random.default_rng(0).integers(0, 256, (7, 5, 6, 3), np.uint8)
LABELS = np.array([3, 0, 1, 1, 2, 0, 3])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_batch_is_read_as_it_was_saved(tmp_path: Path, save: object) -> None:
    path = tmp_path / "samples.npz"
    save(path, PICTURES, LABELS)  # type: ignore[operator]
    source = open_source(str(path))
    assert len(source) == 7 and source.size == (5, 6) and source.names == ("0", "1", "2", "3")
    (batch,) = sequential(source, 8)
    assert torch.equal(batch.image, torch.from_numpy(PICTURES).permute(0, 3, 1, 2))
    assert batch.label is not None and batch.label.tolist() == LABELS.tolist()
    again = open_source(str(path))
    assert np.array_equal(again.image(4), PICTURES[4].transpose(2, 0, 1))  # not in order
    assert np.array_equal(again.image(1), PICTURES[1].transpose(2, 0, 1))


def test_the_pictures_are_mapped_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, PICTURES)
    source = open_source(str(path))
    assert isinstance(source.rows._mapped, np.memmap) and source.names is None  # type: ignore[attr-defined]
    assert sum(1 for _, _ in zip(Shuffled(source, 4).batches(0), range(3), strict=False)) == 3
    np.savez_compressed(path, PICTURES)
    with pytest.raises(Problem, match=r"is compressed, so its pictures cannot be read at random: write it again"):
        next(Shuffled(open_source(str(path)), 4, workers=0).batches(0))


def test_grey_pictures_and_fingerprints(tmp_path: Path) -> None:
    np.savez(tmp_path / "grey.npz", PICTURES[..., :1])
    assert np.array_equal(open_source(str(tmp_path / "grey.npz"), channels=1).image(2), PICTURES[2, ..., :1].transpose(2, 0, 1))
    np.savez(tmp_path / "other.npz", PICTURES[::-1][..., :1])
    one, other = (open_source(str(tmp_path / name), channels=1).fingerprint for name in ("grey.npz", "other.npz"))
    assert one != other


def test_what_is_no_batch_of_pictures_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"

    def complaint(match: str, *arrays: np.ndarray, **named: np.ndarray) -> None:
        np.savez(path, *arrays, **named)
        with pytest.raises(Problem, match=match):
            open_source(str(path))

    complaint(r"arr_0 is float32 \[7, 5, 6, 3\], and pictures are uint8 \[N, H, W, 3\]", PICTURES.astype(np.float32))
    complaint(r"arr_0 is uint8 \[7, 3, 5, 6\], and pictures are uint8", PICTURES.transpose(0, 3, 1, 2).copy())
    complaint(r"arr_0 is uint8 \[5, 6, 3\]", PICTURES[0])
    complaint(r"holds no arr_0, the pictures, uint8 \[N, H, W, C\]: it holds images, mu", images=PICTURES, mu=LABELS)
    complaint(r"arr_0 holds Python objects, and reading them could run code", np.array([{}, PICTURES], dtype=object))
    complaint(r"arr_1 holds Python objects", PICTURES, np.array([None] * 7))
    complaint(r"arr_1 is int64 \[3\], and labels are int64 \[N\]", PICTURES, LABELS[:3])
    complaint(r"arr_1 is float64 \[7\]", PICTURES, LABELS * 0.5)
    complaint(r"is empty: it holds no pictures", PICTURES[:0])
    complaint(r"is in Fortran's order", np.asfortranarray(PICTURES))
    np.savez(path, PICTURES)
    data = path.read_bytes()
    path.write_bytes(data[:300])
    with pytest.raises(Problem, match=r"bad.npz is no .npz file, or it is cut short"):
        open_source(str(path))
    np.save(tmp_path / "array.npz", PICTURES)
    (tmp_path / "array.npz.npy").rename(path)
    with pytest.raises(Problem, match=r"bad.npz is no .npz file"):
        open_source(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", data[:40])
    with pytest.raises(Problem, match=r"arr_0 is damaged"):
        open_source(str(path))


def test_a_written_batch_is_numpys(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    pictures = torch.from_numpy(PICTURES).permute(0, 3, 1, 2)
    with write_npz(path, LABELS.tolist()) as add:
        add(pictures[:4])
        assert not path.exists()
        add(pictures[4:])
    with np.load(path, allow_pickle=False) as found:
        assert sorted(found) == ["arr_0", "arr_1"] and found["arr_1"].dtype == np.int64
        assert np.array_equal(found["arr_0"], PICTURES) and np.array_equal(found["arr_1"], LABELS)
    assert np.array_equal(open_source(str(path)).image(6), PICTURES[6].transpose(2, 0, 1))
    with write_npz(path, [None] * 7) as add:
        add(pictures)
    with np.load(path) as found:
        assert list(found) == ["arr_0"]


def test_an_interrupted_batch_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), write_npz(tmp_path / "samples.npz", [0] * 7) as add:
        add(torch.from_numpy(PICTURES[:3]).permute(0, 3, 1, 2))
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def zipped(path: Path, names: list[str], more: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, picture in zip(names, PICTURES, strict=False):
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "PNG")
            archive.writestr(name, file.getvalue())
        for name, text in (more or {}).items():
            archive.writestr(name, text)
    return path


def test_a_zip_of_pictures_is_read_by_folder_or_flat(tmp_path: Path) -> None:
    flat = open_source(str(zipped(tmp_path / "flat.zip", ["b.png", "a.png", ".hidden.png"], {"README.txt": "hello"})))
    assert len(flat) == 2 and flat.names is None
    assert np.array_equal(flat.image(0), PICTURES[1].transpose(2, 0, 1))
    classes = open_source(str(zipped(tmp_path / "classes.zip", ["dog/1.png", "cat/1.png", "dog/2.png"])))
    assert classes.names == ("cat", "dog") and [classes.label(k) for k in range(3)] == [0, 1, 1]
    assert np.array_equal(classes.image(2), PICTURES[2].transpose(2, 0, 1))
    assert classes.fingerprint != flat.fingerprint


def test_a_zip_with_labels_as_edms(tmp_path: Path) -> None:
    names = ["00000/img0.png", "00000/img1.png", "00001/img2.png"]
    labels = json.dumps({"labels": [[names[2], 2], [names[0], 10], [names[1], 2]]})
    source = open_source(str(zipped(tmp_path / "edm.zip", names, {"dataset.json": labels})))
    assert source.names == ("2", "10") and [source.label(k) for k in range(3)] == [1, 0, 0]
    none = open_source(str(zipped(tmp_path / "edm.zip", names, {"dataset.json": '{"labels": null}'})))
    assert none.names is None and len(none) == 3
    for text, complaint in (
        ("{", "dataset.json is not as expected"),
        ('{"labels": [["x", 1]]}', "it has no label for '00000/img0"),
    ):
        with pytest.raises(Problem, match=complaint):
            open_source(str(zipped(tmp_path / "edm.zip", names, {"dataset.json": text})))


def test_what_is_no_zip_of_pictures_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"holds pictures \(top.png\) beside folders of pictures \(cat\)"):
        open_source(str(zipped(tmp_path / "mixed.zip", ["top.png", "cat/1.png"])))
    with pytest.raises(Problem, match="is empty: it holds no pictures"):
        open_source(str(zipped(tmp_path / "empty.zip", [])))
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(Problem, match=r"text.zip cannot be read: File is not a zip file"):
        open_source(str(tmp_path / "text.zip"))
    with pytest.raises(Problem, match="has no columns"):
        open_source(str(zipped(tmp_path / "flat.zip", ["a.png"])), image_column="image")
    with pytest.raises(Problem, match=r"no data '.*smples.npz': give .*did you mean 'samples.npz'"):
        np.savez(tmp_path / "samples.npz", PICTURES)
        open_source(str(tmp_path / "smples.npz"))
