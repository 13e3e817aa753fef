"""A folder, or .zip, with everything that an application needs; nothing in it needs us."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.files import folder_beside, sha256_file, storing, write_bytes, write_json
from edgeprune.core.plain import to_json
from edgeprune.core.reading import Source
from edgeprune.core.schema import BUNDLE_SCHEMA, read_record
from edgeprune.core.temporary import temporary_folder
from edgeprune.deploy.card import ModelCard
from edgeprune.deploy.snippets import snippets

CARD, SAMPLE, EXPECTED, SUMS, PREDICT = "model.json", "sample.npz", "expected.npy", "SHA256SUMS", "predict.py"
#: When everything in a .zip was written: the same bundle is the same file.
_THEN = (2020, 1, 1, 0, 0, 0)


def write_bundle(
    out: Path, card: ModelCard, model: Path, sample: Mapping[str, NDArray[Any]], expected: NDArray[Any]
) -> None:
    """Write the bundle of a `model` file to `out`, a new folder or a .zip file, whole or not at all.

    `sample` is an example as the data hold it, by the model's inputs; `expected` what the file answers, all outputs
    (K,). Raises UsageError where `out` is there already, StorageError.
    """
    with folder_beside(out) as work:
        write_bytes(work / card.file, model.read_bytes())
        write_json(work / CARD, to_json(card))
        write_bytes(work / PREDICT, Path(__file__).with_name(PREDICT).read_bytes())
        for name, text in snippets(card).items():
            write_bytes(work / name, text.encode())
        write_bytes(work / SAMPLE, packed(sample))
        write_bytes(work / EXPECTED, _npy(expected))
        names = sorted(path.name for path in work.iterdir())
        write_bytes(work / SUMS, "".join(f"{sha256_file(work / name)}  {name}\n" for name in names).encode())
        with storing(out.parent):
            if out.suffix == ".zip":
                _zip(work, out)
            else:
                work.rename(out)


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The folder of a bundle; of a .zip it is there as long as the block. Raises UsageError where it is none."""
    if path.is_dir():
        yield path
        return
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is no bundle", "give a folder or .zip that `edgeprune bundle` wrote")
    with temporary_folder() as folder:
        # Besides its own error the module lets those of zlib, struct and text decoding through.
        with Source(path, StorageError, "it is damaged: copy it again").guarded(), zipfile.ZipFile(path) as whole:
            for entry in whole.infolist():
                if Path(entry.filename).name != entry.filename:
                    raise UsageError(f"{path} is no bundle: it holds {entry.filename}", "write the bundle again")
                whole.extract(entry, folder)
        yield folder


def read_bundle(folder: Path) -> ModelCard:
    """The card of a bundle whose files are all as they were written.

    Raises UsageError where it is no bundle or another version's, StorageError for a file that is missing or changed.
    """
    if not (folder / SUMS).is_file():
        raise UsageError(f"{folder} is no bundle: it has no {SUMS}", "give a folder that `edgeprune bundle` wrote")
    source = Source(folder / SUMS, StorageError, "copy the bundle again")
    with source.guarded():
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    listed = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        if Path(name).name != name or not name:
            raise source.refusal(f"it names {name!r:.60}")
        listed[name] = digest
    for name in (CARD, PREDICT, SAMPLE, EXPECTED):
        if name not in listed:
            raise source.refusal(f"it does not name {name}")
    for name, digest in listed.items():
        if not (folder / name).is_file():
            raise StorageError(f"{folder / name} is missing", "copy the bundle again")
        if sha256_file(folder / name) != digest:
            raise StorageError(
                f"{folder / name} is damaged: its hash is not the one in {SUMS}", "copy the bundle again"
            )
    card = read_record(
        Source(folder / CARD, StorageError, "write the bundle again"), ModelCard, BUNDLE_SCHEMA, "use its version"
    )
    if listed.get(card.file) != card.sha256:
        raise StorageError(f"{folder / card.file} is not the file of {CARD}", "write the bundle again")
    return card


def packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as a .npz file, which is the same each time."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            file.writestr(zipfile.ZipInfo(f"{name}.npy", _THEN), _npy(array))
    return whole.getvalue()


def _npy(array: NDArray[Any]) -> bytes:
    whole = io.BytesIO()
    np.save(whole, np.ascontiguousarray(array), allow_pickle=False)
    return whole.getvalue()


def _zip(folder: Path, out: Path) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo(path.name, _THEN)
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            file.writestr(entry, path.read_bytes())
    write_bytes(out, whole.getvalue())
