"""Decoding: every format and mode to the right pixels, every limit held, every broken file an ImageError."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from sphereid.faces.decode import DecodedImage, DecodeLimits, decode
from sphereid.faces.errors import ImageError

from tests.hostile import jpeg_with_size, png, png_chunk, saved, tiff, write_corpus

CODES = {"image_empty", "image_unsupported", "image_broken", "image_too_large"}


def scene(width: int = 64, height: int = 48) -> Image.Image:
    """A picture that no turn or mirroring leaves as it is."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (220, 40, 40)
    pixels[: height // 2, width // 2 :] = (40, 200, 60)
    pixels[height // 2 :, : width // 2] = (50, 70, 230)
    pixels[height // 2 :, width // 2 :] = (240, 220, 90)
    return Image.fromarray(pixels)


def packed(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("MPO", {"quality": 95, "subsampling": 0}),
    ],
)
def test_every_format_gives_the_same_picture(kind: str, options: dict[str, object]) -> None:
    image = decode(packed(scene(), kind, **options))
    assert (image.width, image.height, image.scale) == (64, 48, 1.0)
    assert image.pixels.dtype == np.uint8
    assert image.format == ("JPEG" if kind == "MPO" else kind)
    difference = np.abs(image.pixels.astype(int) - np.asarray(scene()))
    assert difference.max() <= (60 if image.format == "JPEG" else 0)
    assert difference.mean() < 1


def test_jpeg_pixels_are_those_of_pillow(portrait: np.ndarray) -> None:
    data = packed(Image.fromarray(portrait), "JPEG", quality=80)
    np.testing.assert_array_equal(decode(data).pixels, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_honoured(kind: str, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = packed(scene(), kind, exif=tags.tobytes(), **options)
    image = decode(data)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert image.pixels.shape[:2] == (image.height, image.width) == (upright.height, upright.width)
    np.testing.assert_allclose(image.pixels.astype(int), np.asarray(upright), atol=0)
    # The turn itself, not only agreement with Pillow: the red quarter of orientation 1 moves round.
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    np.testing.assert_allclose(image.pixels[corner[orientation]], (220, 40, 40), atol=6)


def test_transparency_lies_over_white() -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = (200, 0, 0, 255)
    pixels[2:] = (0, 0, 0, 128)
    pixels[3] = (9, 9, 9, 0)
    image = decode(packed(Image.fromarray(pixels), "PNG")).pixels
    assert image[0, 0].tolist() == [200, 0, 0]
    assert image[2, 0].tolist() == [127, 127, 127]
    assert image[3, 0].tolist() == [255, 255, 255]


def test_palette_with_a_transparent_entry_lies_over_white() -> None:
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((0, 0), 1)
    image = decode(packed(picture, "PNG", transparency=0)).pixels
    assert image[0, 0].tolist() == [200, 100, 50]
    assert image[1, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P"])
def test_grey_and_palette_become_rgb(mode: str) -> None:
    picture = Image.new("L", (8, 8), 0)
    picture.paste(255, (0, 0, 4, 8))
    image = decode(packed(picture.convert(mode), "PNG")).pixels
    assert image.shape == (8, 8, 3)
    assert image[:, :4].min() == 255
    assert image[:, 4:].max() == 0


def test_sixteen_bits_keep_their_upper_eight() -> None:
    grey = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        image = decode(packed(Image.fromarray(grey), kind)).pixels
        np.testing.assert_array_equal(image, np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2))


def test_sixteen_bit_color_png() -> None:
    row = b"\0" + struct.pack(">HHHHHH", 0xFF00, 0x8000, 0, 0, 0x40FF, 0xFFFF)
    image = decode(png(2, 1, zlib.compress(row), depth=16, color=2)).pixels
    np.testing.assert_array_equal(image[0], [[255, 128, 0], [0, 64, 255]])


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_with_the_right_sign(kind: str) -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image = decode(packed(cmyk, kind)).pixels.astype(int)
    assert image[8, 8, 0] > 200
    assert image[8, 8, 1:].max() < 60


def test_thirty_two_bit_samples_are_refused_with_a_reason() -> None:
    for dtype in (np.float32, np.int32):
        with pytest.raises(ImageError, match="8 bits") as caught:
            decode(packed(Image.fromarray(np.ones((4, 4), dtype)), "TIFF"))
        assert caught.value.code == "image_unsupported"


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = packed(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert decode(data).pixels[4, 4].tolist() == [250, 0, 0]


@pytest.mark.parametrize(("budget", "reduction"), [(10**6, 1), (640 * 480 - 1, 2), (50_000, 4), (5_000, 8)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_is_decoded_at_reduced_size(budget: int, reduction: int, mode: str) -> None:
    data = packed(scene(640, 480).convert(mode), "JPEG", quality=95)
    image = decode(data, DecodeLimits(max_decoded_pixels=budget))
    assert (image.width, image.height) == (640, 480)
    assert image.pixels.shape == (480 // reduction, 640 // reduction, 3)
    assert image.scale == 1 / reduction
    np.testing.assert_allclose(
        image.to_original(np.array([[10, 20], [0, 0]], np.float32)),
        [[10 * reduction, 20 * reduction], [0, 0]],
    )
    height, width = image.pixels.shape[:2]
    expected = [220, 40, 40] if mode != "L" else [94, 94, 94]
    np.testing.assert_allclose(image.pixels[height // 4, width // 4].astype(int), expected, atol=25)


def test_reduced_and_turned_at_once() -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    data = packed(scene(640, 480), "JPEG", exif=tags.tobytes())
    image = decode(data, DecodeLimits(max_decoded_pixels=100_000))
    assert (image.width, image.height, image.pixels.shape) == (480, 640, (320, 240, 3))
    assert image.scale == 0.5


@pytest.mark.parametrize(
    ("data", "limits", "says"),
    [
        (saved("PNG"), DecodeLimits(max_bytes=50), "bytes"),
        (saved("PNG"), DecodeLimits(max_side=63), "63"),
        (saved("PNG"), DecodeLimits(max_pixels=64 * 48 - 1), "pixels"),
        (saved("PNG"), DecodeLimits(max_decoded_pixels=64 * 48 - 1), "baseline JPEG"),
        (saved("JPEG"), DecodeLimits(max_pixels=64 * 48 - 1), "pixels"),
        (saved("JPEG", progressive=True), DecodeLimits(max_decoded_pixels=64 * 48 - 1), "pixels"),
        (saved("JPEG"), DecodeLimits(max_decoded_pixels=2), "pixels"),
        (jpeg_with_size(30_000, 30_000), DecodeLimits(), "pixels"),
        (tiff({256: 16_000, 257: 10_000}), DecodeLimits(), "pixels"),
    ],
)
def test_limits(data: bytes, limits: DecodeLimits, says: str) -> None:
    with pytest.raises(ImageError, match=says) as caught:
        decode(data, limits)
    assert caught.value.code == "image_too_large"


def test_a_picture_at_its_limits_is_taken() -> None:
    data = saved("PNG")
    limits = DecodeLimits(len(data), max_side=64, max_pixels=64 * 48, max_decoded_pixels=64 * 48)
    assert decode(data, limits).pixels.shape == (48, 64, 3)


def test_limits_hold_before_pixels_are_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("decompressed")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    monkeypatch.setattr("cv2.imdecode", never)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"):
        with pytest.raises(ImageError, match="pixels") as caught:
            decode(saved(kind), DecodeLimits(max_pixels=100))
        assert caught.value.code == "image_too_large"


def test_the_hostile_corpus(tmp_path: Path) -> None:
    """What is in refused/ raises, what is in faceless/ decodes; nothing else ever comes out."""
    paths = write_corpus(tmp_path)
    assert len(paths) >= 80
    for path in paths:
        if path.parent.name == "faceless":
            assert decode(path.read_bytes()).pixels.ndim == 3, path.name
            continue
        with pytest.raises(ImageError) as caught:
            decode(path.read_bytes())
        assert caught.value.code in CODES, path.name
        assert str(tmp_path) not in str(caught.value)


def test_every_truncation_is_refused() -> None:
    """No prefix of a file gives a picture that is half grey."""
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF"):
        data = saved(kind, (40, 30))
        tail = {"BMP": 0, "PNG": 16, "GIF": 4}.get(kind, 1)  # what follows the last pixel may be missing
        for length in range(0, len(data) - tail, 7):
            with pytest.raises(ImageError):
                decode(data[:length])


SEEDS = [
    *(saved(kind, (40, 30)) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")),
    saved("JPEG", (40, 30), progressive=True),
    saved("JPEG", (40, 30), mode="CMYK"),
    saved("PNG", (40, 30), mode="P"),
    saved("TIFF", (40, 30), compression="tiff_lzw"),
]


@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    cut=st.one_of(st.none(), st.floats(0, 1)),
    grown=st.binary(max_size=16),
)
@example(seed=SEEDS[0], changes=[], cut=None, grown=b"")
@settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@pytest.mark.filterwarnings("ignore")
def test_mutated_files_give_a_picture_or_an_image_error(
    seed: bytes, changes: list[tuple[float, int]], cut: float | None, grown: bytes
) -> None:
    data = bytearray(seed)
    for place, value in changes:
        # Half of the changes fall on the header, where parsers branch.
        reach = len(data) if value % 2 else min(len(data), 200)
        data[int(place * reach)] = value
    if cut is not None:
        data = data[: int(cut * len(data))]
    image = decoded(bytes(data) + grown)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape[2] == 3
    if image.scale == 1:
        assert image.pixels.shape[:2] == (image.height, image.width)


def decoded(data: bytes) -> DecodedImage:
    """The picture; one pixel in its place where it is refused, as it should be, with an ImageError."""
    with contextlib.suppress(ImageError):
        return decode(data, DecodeLimits(max_decoded_pixels=2_000_000))
    return decode(saved("PNG", (1, 1)))


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode(data)


def test_damaged_text_and_profile_chunks_do_not_hide_a_bomb() -> None:
    bomb = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50 * 2**20)))
    with pytest.raises(ImageError):
        decode(png(1, 1, zlib.compress(bytes(4)), before=bomb))
