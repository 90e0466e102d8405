#!/bin/bash
# Pillow 13.0.0, PNG's transparent colour (tRNS) in grey of 2 and 16 bits and in RGB of 16 bits.
# One expects: convert("RGBA") makes the pixels of that colour transparent, as every browser does, and no other one changes.
# What happens: info["transparency"] is in the file's own bits, the pixels have been scaled to 8: with 2 bits and with RGB of 16 nothing
# becomes transparent; grey of 16 bits loses the key and every value above 255 becomes white. No error, no warning.
# Who is hurt: whoever trains on depth maps, scans or sprites in such files: pictures are all white, or have their key colour
# painted in. A TIFF of 16 bits in which 0 is white (PhotometricInterpretation 0) comes out as its negative, one of 8 bits does not.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0
"$work/venv/bin/python" - <<'PYTHON'
import io, struct, sys, zlib
import PIL
from PIL import Image

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

def png(width, depth, kind, row, key):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0))
    body = chunk(b"tRNS", key) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + header + body))

def rgba(picture):
    return [tuple(int(v) for v in picture.convert("RGBA").getpixel((x, 0))) for x in range(picture.width)]

def tiff(depth, values):
    body = struct.pack(f"<{len(values)}{'H' if depth == 16 else 'B'}", *values).ljust(8, b"\0")
    tags = [(256, len(values)), (257, 1), (258, depth), (259, 1), (262, 0), (273, 8), (277, 1), (278, 1), (279, len(values) * depth // 8)]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    return Image.open(io.BytesIO(b"II*\0" + struct.pack("<I", 16) + body + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"))

print("Pillow", PIL.__version__)
seen = {
    "grey of 2 bits 0 1 2 3, 1 transparent": rgba(png(4, 2, 0, b"\x1b", struct.pack(">H", 1))),
    "grey of 16 bits 0 1000 30000, 1000 transparent": rgba(png(3, 16, 0, struct.pack(">3H", 0, 1000, 30000), struct.pack(">H", 1000))),
    "RGB of 16 bits, its one colour transparent": rgba(png(1, 16, 2, struct.pack(">3H", 1000, 2000, 3000), struct.pack(">3H", 1000, 2000, 3000))),
    "TIFF of 8 bits, 0 is white: 0 and 255": [tiff(8, [0, 255]).getpixel((x, 0)) for x in range(2)],
    "TIFF of 16 bits, 0 is white: 0 and 65535": [tiff(16, [0, 65535]).getpixel((x, 0)) for x in range(2)],
}
expected = [
    [(0, 0, 0, 255), (85, 85, 85, 255), (170, 170, 170, 255), (255, 255, 255, 255)],
    [(0, 0, 0, 255), (255, 255, 255, 255), (255, 255, 255, 255)],
    [(3, 7, 11, 255)],
    [255, 0],
    [0, 65535],
]
for what, found in seen.items():
    print(f"{what}: {found}")
sys.exit(list(seen.values()) != expected)
PYTHON
