"""TFLite: one image at a time, and our metadata."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import nn

from edgeprune.artifacts.metadata import METADATA_KEY
from edgeprune.artifacts.running import run_tflite
from edgeprune.artifacts.tflite_file import describe_tflite, pack, unpack
from edgeprune.core.artifact import Artifact
from edgeprune.core.errors import ExportError
from edgeprune.core.files import write_bytes
from edgeprune.core.quiet import converting
from edgeprune.exporters.layouts import convolve_tflite, reduce_in_place
from edgeprune.exporters.onnx import output_names
from edgeprune.exporters.operators import operators_known
from edgeprune.exporters.simplify import simplified
from edgeprune.models.inputs import Inputs, ask, cast, mapped, names_of, tensors_of, to_numpy
from edgeprune.pruning.constant import unrepeated
from edgeprune.pruning.folding import find_batchnorm_pairs, fold_batchnorm

#: How far answers may be off, as a share of the largest: what rounding does is less, what is wrong is more.
_OFF = 1e-2


def export_tflite(network: nn.Module, example: Inputs, path: Path, metadata: Mapping[str, Any]) -> Artifact:
    """Write `network` as float32 TFLite, batch normalisation folded.

    | tensor | shape | |
    |---|---|---|
    | `example` | (N, ...), N >= 1 | any values; only the first image is used |
    | file's `input`, or each by its own name | (1, ...) | channels first, as in PyTorch |
    | file's `logits`, or each by its own name | (1, ...) | |

    `metadata` is JSON data, read back by `read_metadata`. Raises ExportError with the cause in one line, StorageError.
    """
    folded = fold_batchnorm(network, find_batchnorm_pairs(network, example))
    with unrepeated(folded):
        model = convert_tflite(folded, example)
    convolve_tflite(model)
    text = json.dumps(dict(metadata), sort_keys=True).encode()
    model.buffers.append(schema.BufferT(data=np.frombuffer(text, np.uint8)))
    entry = schema.MetadataT(name=METADATA_KEY.encode(), buffer=len(model.buffers) - 1)
    model.metadata = [*(model.metadata or []), entry]
    with converting("cannot export to TFLite"):
        data = bytes(pack(model))
    write_bytes(path, data)
    return describe_tflite(path)


def convert_tflite(network: nn.Module, example: Inputs) -> schema.ModelT:
    """`network`, in eval mode and already folded, as an unpacked model without our metadata. Raises ExportError."""
    example = mapped(cast(example[:1], torch.float32), lambda x: x.detach().cpu())
    given = tensors_of(example)
    names = output_names(network, example, given)
    network, fault = network.cpu().float(), None
    try:
        model = _checked(network, network, example, given, names)
    except ExportError as error:
        fault = error
    if fault is not None:
        # A second look costs seconds, and is hardly ever needed.
        with converting("cannot export to TFLite"), torch.no_grad():
            other = simplified(network, given)
        if other is None:
            raise fault
        model = _checked(other, network, example, given, names)
    return model


def _checked(
    network: nn.Module, own: nn.Module, example: Inputs, given: tuple[torch.Tensor, ...], names: tuple[str, ...]
) -> schema.ModelT:
    """`network` converted, with its inputs and outputs named. Raises ExportError where it does not answer as `own`.

    litert-torch 0.10 says nothing where it mistakes one axis for another (an `expand` between convolutions).
    """
    model = _converted(network, given)
    reduce_in_place(model)
    # Further subgraphs are bodies of composite operators: runtimes know them or not, which only running them shows.
    graph = model.subgraphs[0]
    if len(graph.outputs) != len(names):
        raise ExportError("cannot export to TFLite: the network must give one tensor, or several in a tuple or dict")
    with converting("cannot export to TFLite"):
        _name(graph.inputs, "args_", names_of(example), model, "inputs")
        _name(graph.outputs, "output_", names, model, "outputs")
        found = run_tflite(bytes(pack(model)), to_numpy(example))
        with torch.no_grad():
            wanted = ask(own, example).numpy()
    largest = np.abs(wanted).max(initial=1.0)
    # Coded networks (see `template`), whose values are no weights, may answer infinity.
    if np.isfinite(largest) and (
        found.size != wanted.size or not np.abs(found.ravel() - wanted.ravel()).max(initial=0.0) <= _OFF * largest
    ):
        raise ExportError("cannot export to TFLite: the file answers something else than the network")
    return model


def _converted(network: nn.Module, given: tuple[torch.Tensor, ...]) -> schema.ModelT:
    with converting("cannot export to TFLite"), operators_known(), torch.no_grad():
        # Seconds to import, and it prints: only when a conversion is wanted, and silenced.
        litert_torch = importlib.import_module("litert_torch")
        return unpack(bytes(litert_torch.convert(network, given).model_content()))


def _name(places: Any, prefix: str, names: Sequence[str], model: schema.ModelT, side: str) -> None:
    """Give inputs or outputs their names.

    The converter numbers them (args_0, output_0, ...) in its one signature; those of a mapping keep their names there.
    """
    tensors = model.subgraphs[0].tensors
    entries = [entry for signature in model.signatureDefs or [] for entry in getattr(signature, side)]
    if len(names) == 1 and len(places) == 1:
        tensors[places[0]].name = names[0].encode()
        for entry in entries:
            entry.name = names[0].encode()
        return
    found = {bytes(entry.name): entry for entry in entries}
    for number, name in enumerate(names):
        entry = found.get(f"{prefix}{number}".encode()) or found[name.encode()]
        tensors[entry.tensorIndex].name = entry.name = name.encode()
