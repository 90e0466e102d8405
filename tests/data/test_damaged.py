"""Data that are damaged, or claim what cannot be, are refused in one line that names them, before memory is given for them."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestar.__main__ import main
from lodestar.config import Note, Problem
from lodestar.data import open_source, sequential, unpack
from lodestar.data.archive import _forward
from lodestar.data.pictures import read_pictures

from .pictures import noise, png, write_folder, write_table
from .test_commands import SMALL

PICTURES = np.stack([noise(k) for k in range(5)])
LABELS = np.arange(5)


def refused(data: object, what: str, **options: Any) -> None:
    """All of the data are read, and refused so."""
    with pytest.raises(Problem, match=what) as caught:
        for _ in sequential(open_source(data, **options), 4):  # type: ignore[arg-type]
            pass
    assert str(data) in str(caught.value)


def npy(shape: object, descr: object = "|u1", told: str | None = None) -> bytes:
    """The header of an array."""
    text = (told or repr({"descr": descr, "fortran_order": False, "shape": shape})).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def write_npz(path: Path, pictures: bytes, labels: bytes | None = None, how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("arr_0.npy", pictures)
        if labels is not None:
            archive.writestr("arr_1.npy", labels)
    return path


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "header",
    [
        npy(None, told="(" * 117), npy(None, told="9" * 117), npy(None, told="{'a': \x00"), npy(None, told="-" * 900),
        npy(None, told="{" + "'a': 1, " * 2000 + "}"), npy((-5, 4, 4, 3)), npy((2**40, 2**40, 4, 3)), npy((10**12, 4, 4, 3)),
        npy((10**30,)), npy(("x",)), npy((5, 4, 4, 3), "<U999999999"), npy((5, 4, 4, 3), "|V1000000000"), npy((5, 4, 4, 3), "x"),
        npy((5, 4, 4, 3), None), npy((5, 4, 4, 3), 5), npy((1,) * 70), npy((5, 4, 4, 3))[:6] + b"\x09\x09" + npy(())[8:],
        npy((5, 4, 4, 3))[:8] + b"\xff\xff" + npy(())[10:],
    ],
)  # fmt: skip
def test_absurd_headers_of_arrays(tmp_path: Path, header: bytes, how: int) -> None:
    contents = PICTURES.tobytes()
    refused(write_npz(tmp_path / "a.npz", header + contents, how=how), "arr_0 is damaged")
    pictures = npy(PICTURES.shape) + contents
    refused(write_npz(tmp_path / "b.npz", pictures, header + LABELS.tobytes(), how), "arr_1 is damaged")


def test_arrays_of_no_pixels_are_no_pictures(tmp_path: Path) -> None:
    refused(write_npz(tmp_path / "a.npz", npy((10**12, 0, 4, 3))), "pictures are uint8")


@pytest.mark.parametrize(("place", "value"), [(8, 1), (10, 14), (10, 93), (10, 99)])
def test_members_that_are_encrypted_or_packed_strangely(tmp_path: Path, place: int, value: int) -> None:
    path = write_npz(tmp_path / "a.npz", npy(PICTURES.shape) + PICTURES.tobytes())
    _central(path, place, "<H", value)
    refused(path, "arr_0 is damaged")
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png(noise(0)))
    _central(path, place, "<H", value)
    refused(path, r"a\.png in .* cannot be decoded")


def _central(path: Path, place: int, form: str, value: int) -> None:
    """Change what the table at the end of a zip archive says of its first file."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.find(b"PK\x01\x02") + place, value)
    path.write_bytes(data)


@pytest.mark.parametrize("place", range(80, 400, 40))
def test_bytes_that_are_others_in_packed_arrays(tmp_path: Path, place: int) -> None:
    np.savez_compressed(tmp_path / "a.npz", PICTURES, LABELS)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[place : place + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "a.npz").write_bytes(data)
    refused(tmp_path / "a.npz", r"arr_0 is damaged|picture \d of .* cannot be decoded")


def test_members_that_claim_what_nobody_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_FREELY", 1_000)
    zeros = np.zeros((1_000, 40, 40, 3), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", zeros)
    refused(tmp_path / "a.npz", "arr_0 is damaged: it has 4,800,128 bytes packed in .* as no pictures are")
    np.savez_compressed(tmp_path / "b.npz", PICTURES, np.zeros(1_000_000))
    refused(tmp_path / "b.npz", "arr_1 is damaged: it has 8,000,128 bytes packed in")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10**6))
    refused(tmp_path / "a.zip", r"a\.png in .* cannot be decoded: it has 1,000,000 bytes packed in")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("a.png")
        member.size = 10**7
        tar.addfile(member, io.BytesIO(bytes(10**7)))
    refused(tmp_path / "a.tar.gz", "cannot be read: it has .* bytes packed in .* as no pictures are")


def test_a_file_that_is_read_whole_has_a_bound(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("dataset.json", "{}")
    _central(tmp_path / "a.zip", 24, "<I", 2**31)
    refused(tmp_path / "a.zip", "dataset.json in .* cannot be read: it has 2,147,483,648 bytes, and at most 1,073,741,824")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a.png", png(noise(0)))
    _central(tmp_path / "b.zip", 24, "<I", 2**20)
    refused(tmp_path / "b.zip", "cannot be decoded: it is cut short")


def test_no_more_is_unpacked_than_is_claimed(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(8 << 20))
    _central(path, 24, "<I", 100)
    tracemalloc.start()
    try:
        refused(path, "Bad CRC-32")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def tarred(path: Path, change: Callable[[bytearray], object] = lambda _: None) -> Path:
    """A tar of three pictures, 1,024 bytes each with its header, that is changed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(png(noise(number)))
            archive.addfile(member, io.BytesIO(png(noise(number))))
    data = bytearray(buffer.getvalue())
    change(data)
    path.write_bytes(data)
    return path


def told(data: bytearray, place: int, value: bytes, header: int = 1) -> None:
    """Change a header of a tar, and its sum with it."""
    begin = 1024 * header
    data[begin + place : begin + place + len(value)] = value
    data[begin + 148 : begin + 156] = b"%06o\0 " % tarfile.calc_chksums(bytes(data[begin : begin + 512]))[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data.__setitem__(1024 + 10, 255), "what follows after 1 files in it is damaged"),
        (lambda data: data.__delitem__(slice(1500, None)), "what follows after 1 files in it is damaged"),
        (lambda data: data.__delitem__(slice(1550, None)), "it is cut short"),
        (lambda data: told(data, 124, b"77777777777\0"), "it is cut short"),
        (lambda data: told(data, 124, b"\x80\0\0\0" + b"\x11" * 8), "it is cut short"),
    ],
)
def test_a_tar_that_is_damaged_behind_its_first_file(tmp_path: Path, change: Callable[[bytearray], None], why: str) -> None:
    assert len(open_source(tarred(tmp_path / "a.tar"))) == 3
    refused(tarred(tmp_path / "a.tar", change), why)
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    refused(tmp_path / "b.tar.gz", why)


def test_a_sparse_file_in_a_tar_claims_what_it_likes(tmp_path: Path) -> None:
    def sparse(data: bytearray) -> None:
        told(data, 386, b"00000000000\0" + b"00000000200\0")  # where its only piece is, and how long
        told(data, 483, b"77777777777\0")  # its size
        told(data, 156, b"S")

    refused(tarred(tmp_path / "a.tar", sparse), r"1\.png in .* it has 8,589,934,591 bytes, and at most")


def test_a_tar_does_not_go_back() -> None:
    """A size below 0 would be read for ever."""

    member = tarfile.TarInfo("a.png")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, -512
    with pytest.raises(ValueError, match="-512 bytes"):
        list(_forward([member], io.BytesIO(bytes(9_000))))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "labels", ['"x"', "5", "{}", "[5]", "[[1, 2]]", '[["a.png"]]', '[["a.png", [0]]]', '[["a.png", {}]]', '[["a.png", "x"]]',
               '[["a.png", 0.5]]', "[" * 1000, f'[["a.png", {"9" * 5_000}]]'],
)  # fmt: skip
def test_absurd_labels_beside_pictures(tmp_path: Path, labels: str) -> None:
    write_folder(tmp_path / "f", {"a.png": noise(0)})
    (tmp_path / "f/dataset.json").write_text(f'{{"labels": {labels}}}')
    refused(tmp_path / "f", r"dataset\.json is not as expected: ")


@pytest.mark.parametrize("pictures", ["5", "null", "[5]", '[{"file": 5, "label": null}]', '[{"file": "a.png", "label": [1]}]',
                                      '[{"file": "a.png", "label": {}}]', '[{"file": "a.png"}]',
                                      '[{"file": "a.png", "label": null, "text": 5}]'])  # fmt: skip
def test_a_manifest_of_ours_is_as_it_has_to_be(tmp_path: Path, pictures: str) -> None:
    write_folder(tmp_path / "f", {"a.png": noise(0), "grid.png": noise(1)})
    (tmp_path / "f/manifest.json").write_text(f'{{"manifest": {{"lodestar": "1"}}, "pictures": {pictures}}}')
    refused(tmp_path / "f", r"manifest\.json is not as expected: ")
    for other in ("5", "[]", '{"manifest": 5}', "x", '{"manifest": {"of": "another"}}'):
        (tmp_path / "f/manifest.json").write_text(other)
        with pytest.warns(Note, match=r"manifest\.json"):
            assert len(open_source(tmp_path / "f")) == 2


def described(path: Path, description: str, **columns: Any) -> Path:
    """A table of two pictures with a description of its columns."""
    cells = [{"bytes": png(noise(k)), "path": None} for k in range(2)]
    table = pa.table({"image": cells, "label": [0, 1], **columns})
    pq.write_table(table.replace_schema_metadata({"huggingface": description}), path)
    return path


@pytest.mark.parametrize(
    "description", ["5", "[]", '"x"', '{"info": 5}', '{"info": []}', '{"info": {"features": 5}}', '{"info": {"features": ["x"]}}',
                    "{", '{"a":' * 1_000],
)  # fmt: skip
def test_absurd_descriptions_of_columns(tmp_path: Path, description: str) -> None:
    refused(described(tmp_path / "t.parquet", description), "cannot be read as parquet: ")


@pytest.mark.parametrize("names", [None, 5, "ab", ["a", 5], {"a": 1}])
def test_class_names_are_a_list_of_text(tmp_path: Path, names: object) -> None:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    path = described(tmp_path / "t.parquet", json.dumps({"info": {"features": features}}))
    refused(path, "the classes of column 'label' are .*, and not a list of names")


@pytest.mark.parametrize("features", [{"label": 5, "image": []}, {"label": ["x"]}, {"label": None}, {}, None])
def test_a_column_may_be_described_in_any_form(tmp_path: Path, features: object) -> None:
    """What is told of boxes and captions is a list, or an object of several columns."""
    if features:
        features = {**features, "image": {"_type": "Image"}, "boxes": [{"x": {"_type": "Value"}}]}  # type: ignore[dict-item]
    path = described(tmp_path / "t.parquet", json.dumps({"info": {"features": features}}), boxes=[[1], [2]])
    with pytest.warns(Note, match="not read: boxes"):
        assert open_source(path).names == ("0", "1")


@pytest.mark.parametrize("cells", [["x", "y"], [b"x", b"y"], [{"bytes": "x"}] * 2, [{"path": "x"}] * 2, [[1], [2]]])
def test_a_column_that_is_described_as_pictures_and_holds_none(tmp_path: Path, cells: list[Any]) -> None:
    description = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})
    refused(described(tmp_path / "t.parquet", description, image=cells), "column 'image' is .*, and pictures are a struct")


@pytest.mark.parametrize("rows", [-1, 10**12])
def test_a_table_of_more_rows_than_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    spec = write_table(tmp_path / "t.parquet", [png(noise(k)) for k in range(2)])

    class Group:
        num_rows, total_byte_size = rows, 100

    class Metadata:
        num_row_groups = 1
        row_group = staticmethod(lambda _: Group)

    whole = pq.ParquetFile

    class File(whole):  # type: ignore[misc, valid-type]
        metadata = Metadata

    monkeypatch.setattr(pq, "ParquetFile", File)
    refused(spec, f"is damaged: row group 0 has {rows:,} rows")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    flat = Path(write_folder(tmp_path / "flat", {"a.png": noise(0), "\udcff.png": noise(1)}))
    assert len(open_source(flat).fingerprint) == 64
    classes = write_folder(tmp_path / "classes", {"a/a.png": noise(0), "\udcff/a.png": noise(1)})
    refused(classes, r"class '\\udcff' is no text that can be written")


def test_what_is_no_file_is_said_to_be_none(tmp_path: Path) -> None:
    for name in ("pipe", "pipe.npz", "pipe.tar"):
        os.mkfifo(tmp_path / name)
        refused(tmp_path / name, "it is no regular file")


@pytest.mark.parametrize("spec", ["~nosuchuser/x", "~nosuchuser/x.png", "x" * 5_000, "x" * 5_000 + ".png", "a/" * 4_000])
def test_paths_that_cannot_be(spec: str) -> None:
    refused(spec, "cannot be read")
    with pytest.raises(Problem, match="cannot be read"):
        read_pictures([spec], 3, (8, 8))


def test_a_run_whose_first_pictures_cannot_be_read_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "data", {f"{kind}/{k}.png": noise(k, 8, 8) for k in range(2) for kind in ("cat", "dog")})
    (tmp_path / "data/dog/1.png").write_bytes(b"x")
    np.savez_compressed(tmp_path / "packed.npz", np.stack([noise(k, 8, 8) for k in range(4)]))
    for data in ("data", "packed.npz"):
        with pytest.raises(SystemExit) as stop:
            main(["train", "digits", "--data", data, "--images", "64", "--out", "run", *SMALL.split()])
        assert stop.value.code == 2
        assert "lodestar: " in capsys.readouterr().err.splitlines()[-1]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "packed.npz"]
