from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeprune.core.errors import DataError
from edgeprune.core.progress import Silent
from edgeprune.data.images import MAX_FILE_BYTES, MAX_PIXELS, load_images


def save(path: Path, value: int = 0, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (value, 10, 20) if mode == "RGB" else value
    Image.new(mode, size, colour).save(path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Real PNGs: 3 cats (red 0, 1, 2) and 2 dogs (red 100, 101) to train, one of each to test."""
    root = tmp_path / "pets"
    for index in (2, 0, 1):
        save(root / "train/cat" / f"{index}.png", index)
    for index in (1, 0):
        save(root / "train/dog" / f"{index}.PNG", 100 + index)
    save(root / "test/dog/0.png", 200)
    save(root / "test/cat/0.png", 50)
    return root


def zipped(folder: Path, below: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        # Unsorted on purpose: the order must not depend on the archive's.
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, f"{below}{file.relative_to(folder)}")
        archive.writestr("__MACOSX/train/cat/._0.png", b"junk")
    return path


@pytest.mark.parametrize("form", ["folder", "folder below", "zip", "zip below", "zip with ./"])
def test_folders_and_zips_are_read_in_sorted_order(folder, form):
    path = {
        "folder": lambda: folder,
        "folder below": lambda: folder.parent,
        "zip": lambda: zipped(folder),
        "zip below": lambda: zipped(folder, "pets/"),
        "zip with ./": lambda: zipped(folder, "./"),
    }[form]()
    raw = load_images(path, Silent())
    assert raw.classes == ("cat", "dog")
    assert raw.x_train.shape == (5, 3, 4, 6)
    assert raw.x_train.dtype == np.uint8
    assert raw.x_train[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101]
    assert raw.x_train[0, :, 0, 0].tolist() == [0, 10, 20]
    assert raw.y_train.tolist() == [0, 0, 0, 1, 1]
    assert raw.x_test[:, 0, 0, 0].tolist() == [50, 200]


def test_a_class_folder_may_be_a_link(folder, tmp_path):
    (folder / "train/cat").rename(tmp_path / "elsewhere")
    (folder / "train/cat").symlink_to(tmp_path / "elsewhere")
    assert len(load_images(folder, Silent()).y_train) == 5


def test_all_grey_stays_one_channel(tmp_path):
    for name in ("train/a/0.png", "train/b/0.png", "test/a/0.png"):
        save(tmp_path / name, 7, mode="L")
    raw = load_images(tmp_path, Silent())
    assert raw.x_train.shape == (2, 1, 4, 6)
    assert (raw.x_train == 7).all()


def test_one_colour_image_makes_all_of_them_colour(folder):
    save(folder / "train/cat/0.png", 9, mode="L")
    raw = load_images(folder, Silent())
    assert raw.x_train[0, :, 0, 0].tolist() == [9, 9, 9]


def test_palettes_and_transparency(folder):
    palette = Image.new("RGB", (6, 4), (30, 60, 90)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(folder / "train/cat/0.png", transparency=b"\x00")
    Image.new("RGBA", (6, 4), (1, 2, 3, 0)).save(folder / "train/cat/1.png")
    raw = load_images(folder, Silent())
    assert raw.x_train[0, :, 0, 0].tolist() == [30, 60, 90]
    assert raw.x_train[1, :, 0, 0].tolist() == [1, 2, 3]


def test_the_first_image_of_another_size_is_named(folder, fails):
    save(folder / "train/dog/0.PNG", size=(5, 4))
    save(folder / "train/dog/1.PNG", size=(9, 9))
    text = fails(DataError, "train/dog/0.PNG has 5x4 pixels, train/cat/0.png 6x4 pixels", load_images, folder, Silent())
    assert "same size" in text


def _write(data: bytes):
    return lambda path: path.write_bytes(data)


def _cut(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-60])


@pytest.mark.parametrize(
    ("damage", "phrase"),
    [
        (_write(b""), "cannot read train/cat/1.png: not an image, or damaged"),
        (_write(b"no image at all"), "cannot read train/cat/1.png: not an image, or damaged"),
        (_cut, "cannot read train/cat/1.png: "),
        (lambda path: Image.new("I;16", (6, 4)).save(path), "train/cat/1.png has more than 8 bits a channel"),
    ],
)
def test_damaged_images_are_named(folder, fails, damage, phrase):
    damage(folder / "train/cat/1.png")
    fails(DataError, phrase, load_images, folder, Silent())
    fails(DataError, phrase, load_images, zipped(folder), Silent())


def test_no_layout(tmp_path, fails):
    (tmp_path / "readme.txt").write_text("nothing")
    fails(DataError, "holds no images", load_images, tmp_path, Silent())
    save(tmp_path / "cat/0.png")
    fails(DataError, "has no images in train/CLASS/ (it holds cat/0.png)", load_images, tmp_path, Silent())
    save(tmp_path / "train/cat/0.png")
    fails(DataError, "has no images in test/CLASS/", load_images, tmp_path, Silent())
    save(tmp_path / "test/cat/0.png")
    fails(DataError, "y_train holds one class only", load_images, tmp_path, Silent())
    save(tmp_path / "test/cow/0.png")
    fails(DataError, "test/cow/0.png is of class 'cow', which train/ has no images of", load_images, tmp_path, Silent())


def test_two_leading_folders(folder, fails):
    save(folder.parent / "more/train/cat/0.png")
    fails(DataError, "several folders with train/ or test/", load_images, folder.parent, Silent())


def test_images_elsewhere_are_counted(folder):
    class Log(Silent):
        said = ""

        def say(self, text: str) -> None:
            self.said += text

    save(folder / "train/cat/deeper/0.png")
    save(folder / "preview.png")
    log = Log()
    assert len(load_images(folder, log).y_train) == 5
    assert "2 images outside" in log.said


@pytest.mark.parametrize("keep", [0, 100, -5])
def test_truncated_zip(folder, fails, keep):
    path = zipped(folder)
    path.write_bytes(path.read_bytes()[:keep])
    fails(DataError, "pets.zip is truncated or no zip file", load_images, path, Silent())


def test_damage_inside_a_zip(folder, fails):
    path = zipped(folder)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        data[archive.getinfo("train/dog/1.PNG").header_offset + 60] ^= 0xFF
    path.write_bytes(data)
    fails(DataError, "cannot read train/dog/1.PNG", load_images, path, Silent())


def _png(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, whatever it holds."""
    image = io.BytesIO()
    Image.new("L", (1, 1)).save(image, "PNG")
    data = bytearray(image.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize("side", [6_000, 13_000, 60_000])
def test_pictures_of_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, fails, side):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/0.png"):
            archive.writestr(name, _png(side, side))
    said = fails(DataError, "scale the pictures to the size that the network reads", load_images, path, Silent())
    assert "train/a/0.png has" in said
    assert f"{MAX_PIXELS:,}" in said


def test_a_file_that_unpacks_to_more_than_a_picture_can_have_is_not_unpacked(tmp_path, fails):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/a/0.png", bytes(MAX_FILE_BYTES + 1))
        archive.writestr("test/a/0.png", b"")
    said = fails(DataError, "train/a/0.png has 268 MB; at most 268 MB", load_images, path, Silent())
    assert "\n" not in said


def test_a_data_set_must_fit_into_memory_with_its_copies(folder, fails, monkeypatch):
    monkeypatch.setattr("edgeprune.data.room.free_bytes", lambda: 100)
    said = fails(DataError, "pictures of 6x4 pixels: ", load_images, folder, Silent())
    assert "do not fit into the 100 B of memory that are free" in said
    assert "about 3 times as much" in said


def test_what_is_not_of_a_known_format_is_not_decoded_whatever_its_name(folder, fails):
    (folder / "train/cat/0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\n")
    fails(DataError, "cannot read train/cat/0.png: not an image, or damaged", load_images, folder, Silent())
