"""Which image files are meant by what stands on a command line."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from scanloop.errors import ConfigError, ImageError
from scanloop.walk import files_below

SUFFIXES = {
    "", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".jp2", ".dcm", ".dicom",
}  # fmt: skip
"""Of files in a folder that are taken for images; DICOM objects often have none."""

MOST_BYTES = 256 << 20


def listed_images(given: Sequence[str]) -> list[Path]:
    """Files, the images below folders, and what globs stand for (`**` is any depth), each once, in the order given.

    A file that is named is taken whatever its suffix, and though it is not there: it gets a row that says so.

    Raises:
        ConfigError: Nothing is meant by one of them.
    """
    found: dict[Path, None] = {}
    for one in given:
        paths = list(_meant(one))
        if not paths:
            raise ConfigError(f"{one}: no image there; name files, folders or a glob in quotes")
        found |= dict.fromkeys(paths)
    return list(found)


def _meant(given: str) -> Iterator[Path]:
    path = Path(given)
    if path.is_dir():
        yield from (one for one in files_below(path) if one.suffix.lower() in SUFFIXES and one.name[0] != ".")
    elif glob.has_magic(given) and not path.exists():
        names = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        yield from (one for name in names if not (one := Path(name)).is_dir())
    else:
        yield path


def read_image_file(path: Path) -> bytes:
    """Bytes of an image file.

    Raises:
        ImageError: It cannot be read, or is larger than any image.
    """
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise ImageError("too_large", f"{size} bytes; at most {MOST_BYTES} are read")
        payload = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError("missing_file", "no such file") from error
    except OSError as error:
        raise ImageError("unreadable", error.strerror or type(error).__name__) from error
    if not payload:
        raise ImageError("empty_file", "the file holds no bytes")
    return payload
