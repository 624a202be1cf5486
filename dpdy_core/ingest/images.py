"""Still images: size from the header, upright 8-bit RGB, canonical files. Torch-free."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dpdy_core.errors import BadInput

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
MAX_IMAGE_PIXELS = 64_000_000
MIN_SIDE = 16

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_LOSSLESS_FORMATS = ("PNG", "BMP", "TIFF")
_PNG_PIXELS = 1920 * 1080  # above this a PNG frame costs more disk and time than its last bits are worth
_ORIENTATION, _LOCATION = 0x0112, 0x8825  # EXIF tags


def check_size(width: int, height: int, what: str) -> None:
    """Raise BadInput for a picture that is too large to decode or too small to use."""
    if width * height > MAX_IMAGE_PIXELS:
        raise BadInput(
            f"{what} has {width}x{height} pixels, more than the limit of {MAX_IMAGE_PIXELS // 10**6} megapixels",
            "scale it down and try again; frames are reduced to ingest.max_size anyway",
        )
    if min(width, height) < MIN_SIDE:
        raise BadInput(f"{what} has {width}x{height} pixels, too few to use", f"give at least {MIN_SIDE} a side")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts frame2 before frame10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The image in `path` with only its header read; whatever is wrong with it becomes a BadInput."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `check_size` decides
            image = Image.open(path, formats=_FORMATS)
        with image:
            check_size(*image.size, path.name)
            if getattr(image, "is_animated", False) and image.format in ("PNG", "WEBP"):
                raise BadInput(f"{path.name} is an animation", "give each of its pictures as a file of its own")
            yield image
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+(?= pixels)", str(error))
        size = f"{int(pixels[0]) // 10**6} megapixels" if pixels else "far too many pixels"
        raise BadInput(
            f"{path.name} has {size}, more than the limit of {MAX_IMAGE_PIXELS // 10**6}",
            "scale it down and try again; frames are reduced to ingest.max_size anyway",
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        unknown = isinstance(error, UnidentifiedImageError)  # whose message tells where the server keeps the file
        reason = "its format is unknown or its header damaged" if unknown else getattr(error, "strerror", None) or error
        raise BadInput(
            f"{path.name} is not an image that can be read ({reason})", "export or copy it again as PNG or JPEG"
        ) from error


def image_size(path: Path, upright: bool) -> tuple[int, int]:
    """Width and height from the header, after the EXIF orientation if `upright`."""
    with opened(path) as image:
        width, height = image.size
        turned = upright and image.getexif().get(_ORIENTATION, 1) >= 5
    return (height, width) if turned else (width, height)


def is_lossless(path: Path) -> bool:
    """Whether the file's format keeps every bit."""
    with opened(path) as image:
        return image.format in _LOSSLESS_FORMATS


def read_rgb(path: Path, upright: bool, fill: bool = False) -> np.ndarray:
    """(H, W, 3) uint8 RGB; `upright` applies the EXIF orientation.

    Transparent pixels lie over white, or with `fill` are painted in from their surroundings (Telea 2004). Posed
    captures are read as stored (`upright` False): their poses were found on the stored pixels.
    """
    with opened(path) as image:
        picture = ImageOps.exif_transpose(image) if upright else image
        if picture.mode.startswith("I"):  # 16-bit grey; PIL would clip it
            grey = np.clip(np.asarray(picture) // 256, 0, 255).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            if fill:
                return _filled(np.array(picture))
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return np.array(picture.convert("RGB"))


def read_opaque(path: Path) -> np.ndarray:
    """(H, W) bool as stored: where the image is more opaque than transparent."""
    with opened(path) as image:
        if not image.has_transparency_data:
            return np.ones((image.height, image.width), bool)
        return np.asarray(image.convert("RGBA"))[:, :, 3] > 127


def _filled(rgba: np.ndarray) -> np.ndarray:
    rgb, hidden = np.ascontiguousarray(rgba[:, :, :3]), rgba[:, :, 3] <= 127
    if not hidden.any() or hidden.all():
        return rgb
    filled: np.ndarray = cv2.inpaint(rgb, hidden.astype(np.uint8), 2, cv2.INPAINT_TELEA)
    return filled


def verbatim_suffix(path: Path) -> str | None:
    """`.png` or `.jpg` if the file can be stored byte for byte: plain RGB, not turned, without a place; else None."""
    with opened(path) as image:
        exif = image.getexif()
        if image.mode != "RGB" or image.has_transparency_data or exif.get(_ORIENTATION, 1) != 1 or _LOCATION in exif:
            return None
        return {"PNG": ".png", "JPEG": ".jpg"}.get(str(image.format))


def canonical_suffix(lossless: bool, width: int, height: int) -> str:
    """`.png` for sources without compression loss and of modest size, else `.jpg`.

    A video's frames have lost more to its own codec than JPEG of quality 95 with full chroma takes (44 dB on a noisy
    540-line frame, at a quarter of PNG's bytes).
    """
    return ".png" if lossless and width * height <= _PNG_PIXELS else ".jpg"


def write_rgb(path: Path, rgb: np.ndarray) -> None:
    """Store (H, W, 3) uint8 RGB as PNG, or as JPEG of quality 95 with full chroma (4:4:4)."""
    options = []
    if path.suffix == ".jpg":
        full_chroma = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, full_chroma]
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options):
        raise OSError(f"could not write {path}")
