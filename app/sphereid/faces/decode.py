"""From the bytes of an image file to upright RGB pixels, or to an ImageError that says what is wrong."""

import io
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sphereid.faces.errors import ImageError
from sphereid.faces.types import FloatArray, RGBImage

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_SIGNATURES: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"GIF8")
_REDUCTIONS: Final = {
    1: cv2.IMREAD_COLOR_RGB,
    # OpenCV 5 refuses REDUCED_COLOR together with RGB; these names set the reduction alone.
    2: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_ORIENTATION_TAG: Final = 0x0112
# EXIF orientation (tag 274) as what makes the picture upright: transpose it, then mirror it (OpenCV's flip
# code: 1 left-right, 0 top-bottom, -1 both).
_UPRIGHT: Final[dict[int, tuple[bool, int | None]]] = {
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What is refused before any pixel is decompressed.

    max_bytes: of the file. max_side: longest side in pixels. max_pixels: width times height by the header.
    max_decoded_pixels: what is ever held in memory (up to 16 bytes a pixel while converting): a baseline JPEG
    above it is decoded at 1/2, 1/4 or 1/8 of its size, any other file above it is refused. Pillow's own guard
    refuses more than 178 million pixels whatever is set here.
    """

    max_bytes: int = 32 * 2**20
    max_side: int = 20_000
    max_pixels: int = 120_000_000
    max_decoded_pixels: int = 40_000_000


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """An upright picture.

    pixels: (H, W, 3) uint8 RGB. width, height: of the original, upright, in pixels. format: as in FORMATS.
    scale: decoded pixels per original pixel, 1 unless the picture was decoded at reduced size.
    """

    pixels: RGBImage
    width: int
    height: int
    scale: float
    format: str

    def to_original(self, coordinates: FloatArray) -> FloatArray:
        """Coordinates in `pixels`, of any shape, as float32 in pixels of the original."""
        return np.asarray(coordinates / np.float32(self.scale), dtype=np.float32)


def decode(data: bytes, limits: DecodeLimits | None = None) -> DecodedImage:
    """Decode the first picture of a JPEG, PNG, WebP, BMP, TIFF or GIF file to upright RGB.

    EXIF orientation is applied (one that cannot be read counts as upright). Grey, palette and CMYK pictures
    are converted, 16-bit samples keep their upper eight bits, transparency is laid over white. Color profiles
    are not applied.
    Raises ImageError, and nothing else, for bytes that are no such file, for a broken one, and for one beyond
    `limits` (None: the defaults).
    """
    limits = limits or DecodeLimits()
    if not data:
        raise ImageError("image_empty", "the file is empty: send the bytes of an image")
    if len(data) > limits.max_bytes:
        raise ImageError(
            "image_too_large",
            f"the file has {len(data):,} bytes, the limit is {limits.max_bytes:,}: make it smaller",
        )
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            return _decode(picture, data, limits)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except (Image.DecompressionBombError, MemoryError):
        raise ImageError("image_too_large", "the picture has too many pixels: make it smaller") from None
    except Exception as error:  # codecs fail on hostile bytes in every way there is
        raise ImageError("image_broken", "the image is truncated or damaged: export it again") from error


def _decode(picture: Image.Image, data: bytes, limits: DecodeLimits) -> DecodedImage:
    width, height = picture.size
    name = "JPEG" if picture.format == "MPO" else str(picture.format)
    reduction = _reduction(picture, name, limits)
    if name == "JPEG" and picture.mode in ("RGB", "L"):
        # OpenCV decodes plain JPEG twice as fast as Pillow, to the same pixels.
        decoded = cv2.imdecode(
            np.frombuffer(data, np.uint8), _REDUCTIONS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
        )
        if decoded is None or decoded.shape != (-(-height // reduction), -(-width // reduction), 3):
            raise ValueError("not the picture that its header announces")
        pixels = np.asarray(decoded, dtype=np.uint8)
    else:
        if reduction > 1:
            picture.draft(None, (width // reduction, height // reduction))
        picture.load()
        pixels = _to_rgb(picture)
    scale = pixels.shape[1] / width if reduction > 1 else 1.0
    turned, flip = _UPRIGHT.get(_orientation(picture), (False, None))
    if turned:
        pixels = np.asarray(cv2.transpose(pixels), dtype=np.uint8)
        width, height = height, width
    if flip is not None:
        pixels = np.asarray(cv2.flip(pixels, flip), dtype=np.uint8)
    return DecodedImage(pixels, width, height, scale, name)


def _reduction(picture: Image.Image, name: str, limits: DecodeLimits) -> int:
    """By what to divide the picture's sides while decoding; raises ImageError beyond the limits."""
    width, height = picture.size
    if width < 1 or height < 1:
        raise ImageError("image_broken", "the picture has no pixels")
    if max(width, height) > limits.max_side:
        raise ImageError(
            "image_too_large",
            f"the picture is {width}x{height}, no side may be longer than {limits.max_side}: make it smaller",
        )
    # A progressive JPEG keeps all its coefficients in memory at any reduction.
    reducible = name == "JPEG" and not picture.info.get("progressive")
    most = limits.max_pixels if reducible else min(limits.max_pixels, limits.max_decoded_pixels)
    if width * height > most:
        raise ImageError(
            "image_too_large",
            f"the picture has {width * height:,} pixels, the limit is {most:,}"
            f"{'' if reducible else ' (a baseline JPEG may have more)'}: make it smaller",
        )
    for reduction in _REDUCTIONS:
        if -(-width // reduction) * -(-height // reduction) <= limits.max_decoded_pixels:
            return reduction
    raise ImageError("image_too_large", f"the picture has {width * height:,} pixels: make it smaller")


def _to_rgb(picture: Image.Image) -> RGBImage:
    """(H, W, 3) uint8 RGB of a loaded picture in any of Pillow's modes."""
    if picture.mode.startswith("I;16"):
        grey: NDArray[np.uint16] = np.asarray(picture).astype(np.uint16, copy=False)
        return np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if picture.mode in ("I", "F"):
        raise ImageError(
            "image_unsupported", "the picture has 32-bit samples, whose range is unknown: save it with 8 bits"
        )
    if picture.has_transparency_data:
        with_alpha = picture.convert("RGBA")
        flat = Image.new("RGB", picture.size, "white")
        flat.paste(with_alpha, mask=with_alpha.getchannel("A"))
        picture = flat
    elif picture.mode != "RGB":
        picture = picture.convert("RGB")
    return np.asarray(picture, dtype=np.uint8)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where it is absent or nonsense."""
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata does not make good pixels useless
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _unidentified(data: bytes) -> ImageError:
    if data.startswith(_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        return ImageError("image_broken", "the image is truncated or damaged: export it again")
    return ImageError(
        "image_unsupported",
        "this is no JPEG, PNG, WebP, BMP, TIFF or GIF file: convert the picture to one of them",
    )
