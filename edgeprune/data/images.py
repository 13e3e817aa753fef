"""A folder of images, or a .zip of one: train/CLASS/IMAGE and test/CLASS/IMAGE."""

from __future__ import annotations

import io
import logging
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgeprune.core.errors import DataError
from edgeprune.core.progress import Progress
from edgeprune.core.reading import reason
from edgeprune.core.units import format_bytes
from edgeprune.data.arrays import Raw, from_arrays
from edgeprune.data.room import require_room

#: Pixels of one picture, 5,792 x 5,792: no network for an edge device reads more, and a few of them fill any memory.
MAX_PIXELS = 1 << 25
#: Bytes of one image file: as many pixels, uncompressed, with 16 bits in four channels.
MAX_FILE_BYTES = 8 * MAX_PIXELS
_SMALLER = "scale the pictures to the size that the network reads, or use fewer"
#: What is decoded, told by a file's content; whatever its name says, nothing else of Pillow's is run.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# What Pillow notes of a damaged file is in our own error; without a handler it would be a line on stderr besides.
logging.getLogger("PIL").addHandler(logging.NullHandler())

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_LAYOUT = "images belong into train/CLASS/ and test/CLASS/"
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class _Tree:
    """Files by their path below the root, and how to read one; a folder and a zip look alike from here."""

    what: str
    names: tuple[str, ...]
    size: Callable[[str], int]
    read: Callable[[str], bytes]


def load_images(path: Path, progress: Progress) -> Raw:
    """Arrays (N, 1, H, W) when all images are grey, else (N, 3, H, W), uint8, train before test, sorted by path.

    Raises DataError for a wrong layout, a damaged image or one of another size (naming the first).
    """
    with _open(path) as tree:
        listed = _list(tree, progress)
        classes = tuple(sorted({entry.label for entry in listed if not entry.test}))
        for entry in listed:
            if entry.label not in classes:
                raise DataError(
                    f"{path}: {entry.file} is of class '{entry.label}', which train/ has no images of", _LAYOUT
                )
        # Pillow's own bound on pixels is an error like any other here, not a line of its own.
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            pixels = _decode(tree, [entry.file for entry in listed], progress)
    test = np.array([entry.test for entry in listed])
    number = {label: index for index, label in enumerate(classes)}
    y = np.array([number[entry.label] for entry in listed], np.int64)
    arrays = {"x_train": pixels[~test], "y_train": y[~test], "x_test": pixels[test], "y_test": y[test]}
    return from_arrays(arrays, tree.what, classes=classes)


@contextmanager
def _open(path: Path) -> Iterator[_Tree]:
    if path.is_dir():
        # Patterns of fixed depth follow links to folders and cannot run in circles.
        found = [file for depth in range(1, 5) for file in path.glob("/".join("*" * depth))]
        yield _Tree(
            str(path),
            tuple(file.relative_to(path).as_posix() for file in found),
            lambda name: (path / name).stat().st_size,
            lambda name: (path / name).read_bytes(),
        )
        return
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:
        # Besides its own error the module lets those of struct and of text decoding through.
        raise DataError(f"{path} is truncated or no zip file", "copy or download it again") from error
    with archive:
        yield _Tree(str(path), tuple(archive.namelist()), lambda name: archive.getinfo(name).file_size, archive.read)


class _Entry(NamedTuple):
    """One image file; sorts train before test, then by class and name."""

    test: bool
    label: str
    file: str


def _list(tree: _Tree, progress: Progress) -> list[_Entry]:
    """The images in train/CLASS/ and test/CLASS/, also below one leading folder, sorted."""
    paths = {name: PurePosixPath(name).parts for name in tree.names if PurePosixPath(name).suffix.lower() in SUFFIXES}
    # What file managers leave behind (.DS_Store, __MACOSX/._x.jpg) is no image.
    paths = {name: parts for name, parts in paths.items() if not any(p.startswith((".", "__MACOSX")) for p in parts)}
    if not paths:
        raise DataError(f"{tree.what} holds no images ({', '.join(sorted(SUFFIXES))})", _LAYOUT)
    found: list[_Entry] = []
    for lead in (0, 1):
        inside = {n: p for n, p in paths.items() if len(p) == lead + 3 and p[lead] in ("train", "test")}
        if inside:
            if len({parts[:lead] for parts in inside.values()}) > 1:
                raise DataError(
                    f"{tree.what} holds several folders with train/ or test/", "name the one to use, as a folder"
                )
            found = sorted(_Entry(parts[lead] == "test", parts[lead + 1], name) for name, parts in inside.items())
            break
    for part in ("train", "test"):
        if not any(entry.test == (part == "test") for entry in found):
            raise DataError(f"{tree.what} has no images in {part}/CLASS/ (it holds {min(paths)})", _LAYOUT)
    if len(found) < len(paths):
        progress.say(f"{tree.what}: {len(paths) - len(found)} images outside train/CLASS/ and test/CLASS/ are left out")
    return found


def _decode(tree: _Tree, files: list[str], progress: Progress) -> NDArray[np.uint8]:
    """(N, C, H, W) of all `files`. Threads, since Pillow decodes outside the interpreter's lock."""
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    first = _image(tree, files[0], None)
    size, channels = first.shape[:2], first.shape[2]
    pictures = f"{tree.what}: {len(files):,} pictures of {size[1]}x{size[0]} pixels"
    require_room(len(files) * size[0] * size[1] * channels, pictures, _SMALLER)
    decoded: list[NDArray[np.uint8]] = []
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        with progress.bar(f"decode {len(files)} images", len(files)) as bar:
            for pixels in pool.map(lambda chunk: _decode_chunk(tree, chunk, size, files[0]), chunks):
                decoded.append(pixels)
                bar.advance(len(pixels))
    finally:
        pool.shutdown(cancel_futures=True)
    out = np.empty((len(files), max(pixels.shape[1] for pixels in decoded), *size), np.uint8)
    for index, pixels in enumerate(decoded):
        # Grey images among colour ones: the same value in all three channels.
        out[index * _CHUNK : index * _CHUNK + len(pixels)] = pixels
    return out


def _decode_chunk(tree: _Tree, files: list[str], size: tuple[int, ...], first: str) -> NDArray[np.uint8]:
    images = [_image(tree, file, (first, size)) for file in files]
    channels = max(image.shape[2] for image in images)
    return np.stack([np.broadcast_to(image, (*size, channels)) for image in images]).transpose(0, 3, 1, 2)


def _image(tree: _Tree, file: str, like: tuple[str, tuple[int, ...]] | None) -> NDArray[np.uint8]:
    """One image, (H, W, 1) when it is grey, else (H, W, 3). Its header is checked before its pixels are decoded.

    `like` is an image that was read before, and its (H, W), which this one must have.
    """
    try:
        if tree.size(file) > MAX_FILE_BYTES:
            raise _too_large(tree, file, f"{format_bytes(tree.size(file))}; at most {format_bytes(MAX_FILE_BYTES)}")
        with Image.open(io.BytesIO(tree.read(file)), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(tree, file, f"{image.width:,}x{image.height:,} pixels; at most {MAX_PIXELS:,} in all")
            if like is not None and (image.height, image.width) != like[1]:
                sizes = f"{file} has {image.width}x{image.height} pixels, {like[0]} {like[1][1]}x{like[1][0]} pixels"
                hint = "all images must have the same size: resize or crop them first"
                raise DataError(f"{tree.what}: {sizes}", hint)
            if image.mode[0] in "IF":
                raise DataError(f"{tree.what}: {file} has more than 8 bits a channel", "convert it to 8 bits first")
            grey = image.mode in ("1", "L", "LA")
            # Straight to RGB, Pillow warns of palettes with transparency.
            full = image.convert("RGBA") if image.mode == "P" else image
            pixels = np.asarray(full.convert("L" if grey else "RGB"))
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(tree, file, f"more pixels than can be; at most {MAX_PIXELS:,} in all") from error
    except Exception as error:
        # Decoders for seven formats, which raise anything on damaged files.
        why = "not an image, or damaged" if isinstance(error, UnidentifiedImageError) else reason(error)
        raise DataError(f"{tree.what}: cannot read {file}: {why}", "replace or remove it") from error
    return pixels[:, :, None] if grey else pixels


def _too_large(tree: _Tree, file: str, size: str) -> DataError:
    return DataError(f"{tree.what}: {file} has {size}", _SMALLER)
