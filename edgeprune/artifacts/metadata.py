"""What a model file may say of itself, and the checks before anybody believes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from edgeprune.core.errors import DataError, ModelError
from edgeprune.core.inputs import InputSpec, Shape, specs_of
from edgeprune.core.reading import Source
from edgeprune.data.dataset import EachInput, Preprocessing, Scaled
from edgeprune.tasks.names import TaskName

#: Under this key both formats carry our metadata, as a JSON object.
METADATA_KEY = "edgeprune"
#: Sides of an input; more is no shape of anything that is measured here.
_Side = Annotated[int, Field(ge=1, le=1 << 24)]
#: Classes of a file at most: beyond, its metadata are not ours.
_MAX_CLASSES = 1_000_000
_MAX_INPUTS = 1000


@dataclass(frozen=True, slots=True)
class _Told:
    """The entries that are read; each may be missing, and others may stand beside them."""

    task: TaskName | None = None
    classes: Annotated[tuple[str, ...], Field(min_length=1, max_length=_MAX_CLASSES)] | None = None
    input_shape: Annotated[tuple[_Side, ...], Field(min_length=1, max_length=8)] | None = None
    preprocessing: Preprocessing | None = None
    kept_inputs: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    widths: Mapping[str, Annotated[int, Field(ge=0)]] | None = None


@dataclass(frozen=True, slots=True)
class _ToldOfEach(_Told):
    """The same, of several inputs or of integers."""

    input_shape: Annotated[tuple[InputSpec, ...], Field(min_length=1, max_length=_MAX_INPUTS)] | None = None  # type: ignore[assignment]
    preprocessing: EachInput | None = None  # type: ignore[assignment]


def parse_metadata(text: str | bytes, path: Path) -> dict[str, Any]:
    """The metadata `text` of the model file `path` as JSON data. Raises ModelError where they cannot be.

    Checked are types, numbers and counts, and that `preprocessing` has a mean and a std for each channel (or feature)
    of `input_shape`, where both are there.
    """
    source = Source(path, ModelError, "export the file again; or give --preprocessing", "the metadata in")
    try:
        metadata = source.parse_json(text, dict[str, Any])
        shape = metadata.get("input_shape")
        each = isinstance(shape, list) and any(isinstance(side, dict) for side in shape)
        told = source.shaped(metadata, _ToldOfEach if each else _Told)
        if told.preprocessing is not None and told.input_shape is not None:
            _check_fits(told.preprocessing, told.input_shape)
    except DataError as error:
        raise ModelError(f"{path} carries a {error.message}", source.hint) from error
    return metadata


def _check_fits(preprocessing: Scaled, shape: Shape) -> None:
    """Raises DataError unless there is a mean and a std for each channel (or feature) of every input."""
    for spec in specs_of(shape):
        own = preprocessing.inputs.get(spec.name) if isinstance(preprocessing, EachInput) else preprocessing
        if own is not None:
            own.check_fits(spec.shape[0])
