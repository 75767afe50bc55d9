"""A corpus of hostile image files, made from nothing: no photograph, no download.

`write_corpus(folder)` writes two sub-folders. What is in `refused/` is no usable image: decoding raises
ImageError. What is in `faceless/` is odd but decodes, to a picture without a face. Posted where a face is
needed, every file of both must be answered with a 4xx problem.

    python -m tests.hostile FOLDER
"""

import gzip
import io
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Files = Iterator[tuple[str, bytes]]


def write_corpus(folder: Path) -> list[Path]:
    """Write every hostile file below `folder`; returns their paths, sorted."""
    paths = []
    for group, families in (
        ("refused", (_not_images, _jpegs, _pngs, _png_bombs, _gifs, _bmps, _tiffs, _webps)),
        ("faceless", (_odd_but_valid, _metadata, _polyglots)),
    ):
        (folder / group).mkdir(parents=True, exist_ok=True)
        for family in families:
            for name, content in family():
                path = folder / group / name
                path.write_bytes(content)
                paths.append(path)
    return sorted(paths)


def saved(format_: str, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options: Any) -> bytes:
    """A colored gradient as a file."""
    width, height = size
    ramp = np.add.outer(np.arange(height) * 2, np.arange(width)) % 256
    picture = Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], axis=2).astype(np.uint8)).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, format_, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One PNG chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int,
    height: int,
    data: bytes | None,
    *,
    depth: int = 8,
    color: int = 2,
    before: bytes = b"",
) -> bytes:
    """A PNG from its parts; data is the compressed stream, None leaves it out."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    body = b"" if data is None else png_chunk(b"IDAT", data)
    return b"\x89PNG\r\n\x1a\n" + header + before + body + png_chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """A zlib stream of `count` zero bytes, without ever holding them."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block[: min(1 << 20, count - done)]) for done in range(0, count, 1 << 20)]
    return b"".join(parts) + packer.flush()


def jpeg_with_size(width: int, height: int) -> bytes:
    """A small JPEG whose frame header claims another size."""
    content = bytearray(saved("JPEG"))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def _not_images() -> Files:
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script/></svg>'
    laughs = b'<!DOCTYPE x [<!ENTITY a "ha">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(8)
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb", bytes(1 << 24))
    yield "empty.jpg", b""
    yield "one_byte.png", b"\x89"
    yield "spaces.gif", b" " * 4096
    yield "zeros.bmp", bytes(4096)
    yield "text.jpg", b"this is not a photograph\n" * 40
    yield "page.png", b"<!DOCTYPE html><html><body><script>alert(1)</script></body></html>"
    yield "drawing.svg", svg
    yield "drawing.png", svg
    yield "entity_bomb.svg", laughs + b"]><svg>&i;</svg>"
    yield "document.pdf", b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n"
    yield "archive_bomb.jpg", archive.getvalue()
    yield "gzip_bomb.png", gzip.compress(bytes(1 << 24))
    yield "object.pkl.jpg", pickle.dumps({"image": [1, 2, 3]})
    yield "program.jpg", b"\x7fELF\x02\x01\x01" + bytes(512)
    yield "clip.mp4", struct.pack(">I", 24) + b"ftypisom" + bytes(256)
    yield "photo.heic", struct.pack(">I", 24) + b"ftypheic" + bytes(256)
    yield "photo.avif", struct.pack(">I", 24) + b"ftypavif" + bytes(256)
    yield "postscript.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    yield "netpbm.ppm", b"P6 30000 30000 255\n"
    yield "photoshop.psd", saved("PNG").replace(b"\x89PNG", b"8BPS")
    yield "icon.ico", saved("ICO", (16, 16))
    yield "noise.bin", np.random.default_rng(0).bytes(4096)


def _jpegs() -> Files:
    good = saved("JPEG", (300, 200), quality=90)
    yield "jpeg_signature_only.jpg", good[:3]
    yield "jpeg_header_only.jpg", good[: good.index(b"\xff\xda")]
    yield "jpeg_half.jpg", good[: len(good) // 2]
    yield "jpeg_no_end.jpg", good[:-2]
    yield "jpeg_signature_then_noise.jpg", good[:4] + np.random.default_rng(1).bytes(4096)
    yield "jpeg_zero_height.jpg", jpeg_with_size(64, 0)
    yield "jpeg_30000x30000.jpg", jpeg_with_size(30_000, 30_000)
    yield "jpeg_65535x65535.jpg", jpeg_with_size(65_535, 65_535)
    yield "jpeg_19000x7000.jpg", jpeg_with_size(19_000, 7_000)
    yield "jpeg_progressive_9000x9000.jpg", _claiming(saved("JPEG", progressive=True), b"\xff\xc2", 9000)
    yield "jpeg_no_tables.jpg", good.replace(b"\xff\xdb", b"\xff\xfe")
    yield "jpeg_endless_segment.jpg", good[:2] + b"\xff\xe1\xff\xff" + bytes(64)


def _claiming(content: bytes, marker: bytes, side: int) -> bytes:
    frame = content.index(marker)
    return content[: frame + 5] + struct.pack(">HH", side, side) + content[frame + 9 :]


def _pngs() -> Files:
    good = saved("PNG", (300, 200))
    flipped = bytearray(good)
    flipped[-20] ^= 0xFF
    yield "png_signature_only.png", good[:8]
    yield "png_half.png", good[: len(good) // 2]
    yield "png_bad_checksum.png", bytes(flipped)
    yield "png_no_data.png", png(64, 64, None)
    yield "png_data_not_zlib.png", png(64, 64, b"not a stream" * 9)
    yield "png_short_data.png", png(640, 640, zlib.compress(bytes(99)))
    yield "png_zero_width.png", png(0, 64, zlib.compress(bytes(64)))
    yield "png_width_2_31.png", png(2**31, 1, zlib.compress(bytes(64)))
    yield "png_depth_3.png", png(8, 8, zlib.compress(bytes(999)), depth=3)
    yield "png_color_5.png", png(8, 8, zlib.compress(bytes(999)), color=5)
    yield "png_endless_chunk.png", good[:33] + b"\xff\xff\xff\xf0tEXt" + bytes(64)


def _png_bombs() -> Files:
    pixel = zlib.compress(bytes(4))
    bomb = zeros(100 * 2**20)
    yield "bomb_30000x30000.png", png(30_000, 30_000, zeros(30_000 * 3_751), depth=1, color=0)
    yield "bomb_15000x15000.png", png(15_000, 15_000, zeros(15_000 * 1_876), depth=1, color=0)
    yield "bomb_7000x7000.png", png(7_000, 7_000, zeros(7_000 * 876), depth=1, color=0)
    yield "bomb_profile.png", png(1, 1, pixel, before=png_chunk(b"iCCP", b"p\0\0" + bomb))
    yield "bomb_text.png", png(1, 1, pixel, before=png_chunk(b"zTXt", b"k\0\0" + bomb))
    yield "bomb_unicode_text.png", png(1, 1, pixel, before=png_chunk(b"iTXt", b"k\0\1\0\0\0" + bomb))
    text = png_chunk(b"zTXt", b"k\0\0" + zeros(1_000_000))
    yield "bomb_many_texts.png", png(1, 1, pixel, before=text * 100)


def _gifs() -> Files:
    good = saved("GIF", (300, 200))
    screen = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6)
    yield "gif_signature_only.gif", good[:6]
    yield "gif_half.gif", good[: len(good) // 2]
    yield "gif_screen_65535.gif", good[:6] + b"\xff\xff\xff\xff" + good[10:]
    yield "gif_frame_65535.gif", screen + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\2\1\0\0;"
    yield (
        "gif_frame_far_away.gif",
        screen + b"," + struct.pack("<HHHHB", 65000, 65000, 9, 9, 0) + b"\2\1\0\0;",
    )
    yield "gif_no_frame.gif", screen + b";"


def _bmps() -> Files:
    good = saved("BMP")
    yield "bmp_half.bmp", good[: len(good) // 2]
    yield "bmp_30000x30000.bmp", good[:18] + struct.pack("<ii", 30_000, 30_000) + good[26:]
    yield "bmp_negative.bmp", good[:18] + struct.pack("<ii", -64, 48) + good[26:]
    yield "bmp_overflow.bmp", good[:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + good[26:]
    yield "bmp_pixels_beyond_the_end.bmp", good[:10] + struct.pack("<I", 2**30) + good[14:]
    yield "bmp_depth_7.bmp", good[:28] + struct.pack("<H", 7) + good[30:]


def _tiffs() -> Files:
    good = saved("TIFF", (300, 200))
    first = struct.unpack("<I", good[4:8])[0]
    floats = io.BytesIO()
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(floats, "TIFF")
    yield "tiff_signature_only.tif", good[:4]
    yield "tiff_half.tif", good[: min(first, len(good)) // 2]
    yield "tiff_directory_beyond_the_end.tif", good[:4] + struct.pack("<I", 2**31) + good[8:]
    yield "tiff_30000x30000.tif", tiff({256: 30_000, 257: 30_000})
    yield "tiff_side_2_31.tif", tiff({256: 2**31, 257: 2**31})
    yield "tiff_no_size.tif", tiff({258: 8})
    yield "tiff_strips_beyond_the_end.tif", tiff({256: 64, 257: 64, 273: 10**6, 279: 64 * 64})
    yield (
        "tiff_directory_of_itself.tif",
        b"II*\0" + struct.pack("<I", 4) + struct.pack("<HHIII", 1, 256, 4, 1, 4),
    )
    yield "tiff_nan_samples.tif", floats.getvalue()


def tiff(tags: dict[int, int]) -> bytes:
    """A TIFF of 32-bit tags alone, one grey 8-bit strip unless they say otherwise."""
    entries = {258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 64, 279: 64, **tags}
    if 256 not in tags:
        entries = tags
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


def _webps() -> Files:
    good = saved("WEBP", (300, 200))
    large = b"\x2f" + struct.pack("<I", (16_383) | (16_383 << 14)) + bytes(64)
    chunk = b"VP8L" + struct.pack("<I", len(large)) + large
    yield "webp_signature_only.webp", good[:12]
    yield "webp_half.webp", good[: len(good) // 2]
    yield "webp_16384x16384.webp", b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk
    yield "webp_noise.webp", good[:20] + np.random.default_rng(2).bytes(len(good) - 20)


def _odd_but_valid() -> Files:
    still = saved("GIF", (16, 16))
    frame = still[13 + 3 * 2 ** ((still[10] & 7) + 1) : -1]
    yield "one_pixel.png", saved("PNG", (1, 1))
    yield "one_pixel.jpg", saved("JPEG", (1, 1))
    yield "one_pixel.gif", saved("GIF", (1, 1))
    yield "eleven_pixels.webp", saved("WEBP", (11, 11))
    yield "line_1x15000.png", saved("PNG", (1, 15_000))
    yield "line_15000x2.jpg", saved("JPEG", (15_000, 2))
    yield "wrong_extension.png", saved("JPEG")
    yield "wrong_extension.jpg", saved("BMP")
    yield "no_extension", saved("TIFF")
    yield "cmyk.jpg", saved("JPEG", mode="CMYK")
    yield "bilevel.png", saved("PNG", mode="1")
    yield "all_transparent.png", png(64, 64, zeros(64 * (64 * 4 + 1)), color=6)
    yield (
        "palette_index_out_of_range.png",
        png(
            8,
            8,
            zlib.compress(b"\0\xff\xff\xff\xff\xff\xff\xff\xff" * 8),
            color=3,
            before=png_chunk(b"PLTE", bytes(3)),
        ),
    )
    yield "sixteen_bits.png", png(64, 64, zeros(64 * (64 * 2 + 1)), depth=16, color=0)
    yield "ten_thousand_frames.gif", still[:-1] + frame * 10_000 + b";"


def exif(entries: list[tuple[int, int, int, bytes]]) -> bytes:
    """An EXIF block of (tag, type, count, 4 bytes of value or offset)."""
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    rational = struct.pack("<II", 0, 0)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + rational


def _metadata() -> Files:
    nan = struct.pack("<f", float("nan"))
    nowhere = struct.pack("<I", 0x7FFFFFFF)
    yield (
        "exif_nan.jpg",
        saved("JPEG", exif=exif([(0x112, 11, 1, nan), (0x11A, 5, 1, struct.pack("<I", 38))])),
    )
    yield "exif_orientation_99.jpg", saved("JPEG", exif=exif([(0x112, 3, 1, struct.pack("<HH", 99, 0))]))
    yield "exif_orientation_text.jpg", saved("JPEG", exif=exif([(0x112, 2, 4, b"abc\0")]))
    yield "exif_beyond_the_end.jpg", saved("JPEG", exif=exif([(0x112, 3, 2**30, nowhere)]))
    yield "exif_cut.jpg", saved("JPEG", exif=b"Exif\0\0II*\0")
    yield "exif_noise.jpg", saved("JPEG", exif=b"Exif\0\0" + np.random.default_rng(3).bytes(2000))
    yield "exif_nan.png", saved("PNG", exif=exif([(0x112, 12, 1, nan)]))
    yield "profile_noise.jpg", saved("JPEG", icc_profile=np.random.default_rng(4).bytes(3000))


def _polyglots() -> Files:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("shell.php", "<?php system($_GET[0]); ?>")
    yield "jpeg_and_zip.jpg", saved("JPEG") + archive.getvalue()
    yield "jpeg_and_script.jpg", saved("JPEG", comment=b"<script>alert(1)</script><?php phpinfo(); ?>")
    yield "png_and_page.png", saved("PNG") + b"<html><script>alert(1)</script></html>"
    yield "gif_and_script.gif", saved("GIF") + b"*/=1;alert(1);//"
    yield "bmp_and_jpeg.bmp", saved("BMP") + saved("JPEG")


if __name__ == "__main__":
    for written in write_corpus(Path(sys.argv[1])):
        print(written)
