"""Damaged data sets and pictures: folders, archives, arrays, tables, and single files."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from lodestar.data import Shuffled, open_source, sequential
from lodestar.data.pictures import read_pictures
from tests.fuzz.damage import absurd, damaged, mutated, text
from tests.fuzz.valid import RUN, Valid, command, python, write

FILES = ("folder.zip", "told.zip", "folder.tar", "folder.tar.gz", "stored.npz", "packed.npz", "folder.parquet")


def door(path: Path, valid: Valid, rng: Random) -> Callable[[], Any]:
    """A command, or a call, that pictures are given to."""
    match rng.randrange(6):
        case 0:
            return command("edit", "sdedit", valid.path("model.safetensors"), path, "--steps", 4, "--out", "out")
        case 1:
            return command("train", *RUN.split(), "task.model.size=[8,8]", "data.transforms.size=8", "data.channels=1", "--data",
                           path,
                           "--out", "out")  # fmt: skip
        case 2:
            return python(lambda: read_pictures([path], 3, (8, 8)))
        case _:
            return python(lambda: read_all(str(path)))


def read_all(spec: str, **options: Any) -> None:
    """Everything that is read of a source."""
    source = open_source(spec, size=8, **options)
    assert len(source.fingerprint) > 8
    for _ in sequential(source, 4):
        pass
    stream = Shuffled(source, 4, workers=0).batches(seed=0)
    for _ in range(len(source) // 4 + 1):
        next(stream)


def packed(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A file of pictures with other bytes."""
    name = rng.choice(FILES)
    return door(write(folder / name, damaged(valid.bytes(name), rng)), valid, rng)


def single(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A picture, or a mask, with other bytes, of another form, or that claims to be large."""
    data = valid.bytes("picture.png")
    wrong = (
        damaged(data, rng)
        if rng.random() < 0.6
        else rng.choice((_png(10**5, 10**5), _png(2**31 - 1, 2**31 - 1), _png(0, 8), _png(30_000, 1)))
    )
    path = write(folder / "wrong.png", wrong)
    if rng.random() < 0.3:
        return command("edit", "inpaint", valid.path("model.safetensors"), valid.path("picture.png"), "--mask", path, "--steps",
                       4,
                       "--jump", 1, "--resamples", 1, "--out", "out")  # fmt: skip
    return door(path, valid, rng)


def folders(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A folder of pictures that holds something else too."""
    there = valid.copy("folder", folder)
    path = there / rng.choice(
        ("cat/9.png", "cat/0.png", "9.png", "manifest.json", "cat/x\udcff.png", "\udcff/0.png", "cat/" + "x" * 250 + ".png")
    )
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    match rng.randrange(8):
        case 0 | 1:
            os.mkfifo(path)
        case 2:
            path.mkdir()
        case 3:
            path.symlink_to("/dev/zero")
        case 4:
            path.symlink_to(path.parent)
        case 5:
            path.symlink_to("nowhere")
        case 6:
            write(path, damaged(valid.bytes("picture.png"), rng))
        case _:
            write(
                there / "manifest.json",
                text(mutated(json.loads(valid.bytes("album/manifest.json")), rng), rng).encode(errors="replace"),
            )
    return door(there, valid, rng)


def archives(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A zip archive with members that are encrypted, packed strangely, or claim or unpack to more than there is."""
    path, buffer = folder / "wrong.zip", io.BytesIO()
    how = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for number in range(4):
            archive.writestr(f"{'ab'[number % 2]}/{number}.png", valid.bytes("picture.png"))
        match rng.randrange(5):
            case 0 | 1:
                archive.writestr(
                    "dataset.json",
                    text({"labels": rng.choice((absurd(rng), [["a/0.png", absurd(rng)]], [[absurd(rng), 0]]))}, rng),
                )
            case 2:
                archive.writestr("dataset.json", b"[" * 10**6)
            case 3:
                archive.writestr(
                    rng.choice(("../a/9.png", "/a/9.png", "a/\0.png", "a/" + "x" * 60_000 + ".png", "a/9.png/")), b"x"
                )
            case _:
                archive.writestr("a/0.png", b"x")
    data = bytearray(buffer.getvalue())
    for place in _found(data, b"PK\x01\x02", rng):
        match rng.randrange(6):
            case 0:
                data[place + 8] |= 1  # encrypted
            case 1:
                data[place + 10 : place + 12] = struct.pack("<H", rng.choice((1, 6, 9, 14, 93, 98, 99, 65535)))  # packed
            case 2:
                data[place + 24 : place + 28] = struct.pack("<I", rng.choice((0, 1, 2**31, 2**32 - 2)))  # size
            case 3:
                data[place + 20 : place + 24] = struct.pack("<I", rng.choice((0, 1, 2**31, 2**32 - 2)))  # packed size
            case 4:
                data[place + 42 : place + 46] = struct.pack("<I", rng.choice((0, 1, 2**31, 2**32 - 2)))  # where it begins
            case _:
                pass
    return door(write(path, bytes(data)), valid, rng)


def tars(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A tar, packed or not, with members of other sizes, kinds and names, or that claim or unpack to more than there is."""
    path, buffer, data = (
        folder / rng.choice(("wrong.tar", "wrong.tar.gz", "wrong.tar.xz")),
        io.BytesIO(),
        valid.bytes("picture.png"),
    )
    with tarfile.open(fileobj=buffer, mode="w", format=rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as archive:
        for number in range(4):
            member = tarfile.TarInfo(f"{'ab'[number % 2]}/{number}.png")
            member.size = len(data)
            if rng.random() < 0.2:
                member.type = rng.choice(
                    (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, b"S", b"?")
                )
                member.linkname = rng.choice((member.name, "a/0.png", "/dev/zero", "nowhere", ".."))
            if rng.random() < 0.1:
                member.name = rng.choice(
                    ("../a/9.png", "/a/9.png", "a/" + "x" * 60_000 + ".png", "a/\udcff.png", "a/0.png", "\udcff/0.png")
                )
            archive.addfile(member, io.BytesIO(data))
    whole = bytearray(buffer.getvalue())
    for place in (
        place for place in range(0, len(whole), 512) if whole[place + 257 : place + 262] == b"ustar" and rng.random() < 0.1
    ):
        size = rng.choice((0, 1, 511, 10**6, 8**11 - 1, 2**40, 2**62, 10**20))
        whole[place + 124 : place + 136] = tarfile.TarInfo._create_header({"size": size}, tarfile.GNU_FORMAT, "utf-8", "strict")[
            124:136
        ]
        whole[place + 148 : place + 156] = b"%06o\0 " % tarfile.calc_chksums(whole[place : place + 512])[0]
    if rng.random() < 0.1:
        whole += bytes(70 << 20)
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    return door(write(path, pack(whole)), valid, rng)


def captions(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """Captioned pictures in a folder or a tar, whose captions are damaged."""
    rows: list[Any] = [{"file_name": f"{number}.png", "text": f"number {number}"} for number in range(4)]
    lines = "\n".join(text(mutated(row, rng) if rng.random() < 0.3 else row, rng) for row in rows).encode(errors="replace")
    table = "\n".join(["file_name,text", *(",".join(row.values()) for row in rows)]).encode()
    told = {
        "metadata.jsonl": {"metadata.jsonl": lines},
        "captions.csv": {"captions.csv": damaged(table, rng)},
        "txt": {f"{number}.txt": damaged(row["text"].encode(), rng) for number, row in enumerate(rows)},
        "json": {f"{number}.json": text(mutated(row, rng), rng).encode(errors="replace") for number, row in enumerate(rows)},
    }[rng.choice(("metadata.jsonl", "captions.csv", "txt", "json"))]
    files = {**{f"{number}.png": valid.bytes("picture.png") for number in range(4)}, **told}
    if rng.random() < 0.5:
        path = folder / "wrong.tar"
        with tarfile.open(path, "w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        path = folder / "wrong"
        for name, data in files.items():
            write(path / name, data)
    skip = rng.random() < 0.5
    return python(lambda: read_all(str(path), captions=True, skip_bad=skip))


def arrays(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """An .npz file with headers that claim what is not there, other kinds of numbers, and members that unpack to gigabytes."""
    path, images = folder / "wrong.npz", np.zeros((9, 8, 8, 3), np.uint8)
    how = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path, "w", how) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as file:
            file.write(_npy(rng, (9, 8, 8, 3), "|u1") if rng.random() < 0.7 else _header("|u1", False, images.shape))
            file.write(images.tobytes())
        if rng.random() < 0.7:
            archive.writestr("arr_1.npy", _npy(rng, (9,), "<i8") + np.arange(9).tobytes())
    if rng.random() < 0.2:
        write(path, damaged(path.read_bytes(), rng))
    return door(path, valid, rng)


def unpacking(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A member of an archive that is two gigabytes once it is unpacked, and says so, or does not."""
    name = rng.choice(("wrong.zip", "wrong.npz"))
    member = {"wrong.zip": ("a/0.png", "dataset.json", "0.png"), "wrong.npz": ("arr_0.npy", "arr_1.npy", "0.npy")}[name]
    path, victim = folder / name, rng.choice(member)
    said = rng.choice((_TWO, _TWO, 100, 1 << 20))
    begin = _header("|u1", False, (9, 8, 8, 3)) if rng.random() < 0.5 else _header("|u1", False, (_TWO // 192 - 1, 8, 8, 3))
    with zipfile.ZipFile(path, "w") as archive:
        if name == "wrong.npz" and victim != "arr_0.npy":
            archive.writestr("arr_0.npy", _header("|u1", False, (9, 8, 8, 3)) + bytes(9 * 192))
        archive.writestr(victim, _zeros(begin if name == "wrong.npz" else b""))
        info = archive.getinfo(victim)
    data = bytearray(path.read_bytes())
    for place, at in ((info.header_offset, 8), (data.rfind(b"PK\x01\x02"), 10)):
        data[place + at : place + at + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
        data[place + at + 14 : place + at + 18] = struct.pack("<I", said)
    return door(write(path, bytes(data)), valid, rng)


_TWO = 2 << 30


def _zeros(begin: bytes) -> bytes:
    """So many bytes, nearly all 0, as deflate packs them: the same piece again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(begin) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + piece * (_TWO >> 20) + packer.flush(zlib.Z_FINISH)


def tables(valid: Valid, rng: Random, folder: Path) -> Callable[[], Any]:
    """A parquet file with other columns, cells, or descriptions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    cell = {"bytes": valid.bytes("picture.png"), "path": None}
    image = rng.choice(([cell] * 4, [None] * 4, [{"bytes": None, "path": "x"}] * 4, [cell["bytes"]] * 4, [], ["x"] * 4,
                        [{"bytes": b""}] * 4,
                        [{"bytes": damaged(cell["bytes"], rng)}] * 4, [{"bytes": "text"}] * 4))  # fmt: skip
    label = rng.choice(
        ([0, 1, 2, 0], [None] * 4, [0.5] * 4, [[1]] * 4, ["a"] * 4, [-1] * 4, [10**12] * 4, [{"a": 1}] * 4, [True] * 4)
    )
    table = pa.table({"image": image, "label": label[: len(image)]})
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b", "c"]}}
    told = text(
        {"info": {"features": mutated(features, rng)}} if rng.random() < 0.7 else mutated({"info": {"features": features}}, rng),
        rng,
    )
    if rng.random() < 0.8:
        table = table.replace_schema_metadata({"huggingface": told.encode(errors="surrogatepass")})
    pq.write_table(table, folder / "wrong.parquet")
    return door(folder / "wrong.parquet", valid, rng)


def _found(data: bytes | bytearray, mark: bytes, rng: Random) -> list[int]:
    """Where some of these marks are."""
    places, place = [], data.find(mark)
    while place >= 0:
        places.append(place)
        place = data.find(mark, place + 1)
    return [place for place in places if rng.random() < 0.3]


def _png(width: int, height: int) -> bytes:
    """The beginning of a picture of that size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def _npy(rng: Random, shape: tuple[int, ...], descr: str) -> bytes:
    """A header that is wrong, or nearly right."""
    shapes = (
        shape,
        (),
        (10**12,),
        (10**30,),
        (-1, 8, 8, 3),
        (2**40, 2**40, 8, 3),
        (0, 8, 8, 3),
        (9, 8, 8),
        (9, 0, 0, 3),
        (1,) * 40,
        ("x",),
    )
    kinds = (
        descr,
        "|O",
        "<f8",
        ">i8",
        "|S10",
        "<U" + "9" * 9,
        "x",
        "",
        "V1000000000",
        [("a", "|u1")],
        None,
        5,
        "<M8[ns]",
        "|b1",
        "<c16",
    )
    header = _header(rng.choice((descr, rng.choice(kinds))), rng.choice((False, False, False, True, 0, "x")), rng.choice(shapes))
    if rng.random() < 0.2:
        header = header[:6] + bytes(rng.choice(((0, 0), (2, 0), (3, 0), (9, 9), (255, 255)))) + header[8:]
    if rng.random() < 0.2:
        header = header[:8] + struct.pack("<H", rng.choice((0, 5, 65535))) + header[10:]
    if rng.random() < 0.1:
        header = header[:10] + rng.choice((b"(" * 117, b"{" * 117, b"9" * 117, b"-" * 117))
    return header


def _header(descr: Any, fortran: Any, shape: Any) -> bytes:
    told = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode()
    told += b" " * (-(len(told) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(told)) + told
