"""ONNX: a dynamic batch dimension, one file, our metadata, and nothing that differs between two runs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edgeprune.core.artifact import Artifact, TensorSpec
from edgeprune.core.errors import ExportError
from edgeprune.core.files import sha256_file, write_bytes
from edgeprune.core.reading import Source
from edgeprune.core.version import ONNX_IR, ONNX_OPSET
from edgeprune.exporters.operators import operators_known
from edgeprune.exporters.quiet import converting
from edgeprune.models.inputs import OUTPUT, Inputs, cast, mapped, names_of, outputs_of, tensors_of
from edgeprune.pruning.folding import find_batchnorm_pairs, fold_batchnorm

#: Under this key both formats carry our metadata, as a JSON object.
METADATA_KEY = "edgeprune"


def export_onnx(network: nn.Module, example: Inputs, path: Path, metadata: Mapping[str, Any]) -> Artifact:
    """Write `network` as float32 ONNX, batch normalisation folded.

    | tensor | shape | |
    |---|---|---|
    | `example` | (N, ...), N >= 2 | any values; a batch of 1 would freeze the batch dimension silently |
    | file's `input`, or each by its own name | (batch, ...) | batch is dynamic |
    | file's `logits`, or each by its own name | (batch, ...) | |

    `metadata` is JSON data, read back by `read_metadata`. Raises ExportError with the cause in one line, StorageError.
    """
    folded = fold_batchnorm(network, find_batchnorm_pairs(network))
    model = convert_onnx(folded, example)
    # Inferred shapes of activations: kilobytes that no runtime reads, and that a sliced candidate does not have.
    del model.graph.value_info[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(dict(metadata), sort_keys=True)
    with converting("cannot export to ONNX"):
        data = model.SerializeToString(deterministic=True)
    write_bytes(path, data)
    return describe_onnx(path)


def convert_onnx(network: nn.Module, example: Inputs) -> onnx.ModelProto:
    """`network`, in eval mode and already folded, as an ONNX model without metadata. Raises ExportError."""
    if len(example) < 2:
        raise ExportError("cannot export to ONNX: the example batch has fewer than 2 images", "give 2 or more")
    given = tensors_of(mapped(cast(example, torch.float32), lambda x: x.detach().cpu()))
    names = output_names(network, example, given)
    with converting("cannot export to ONNX"), operators_known(), torch.no_grad():
        program = torch.onnx.export(
            network.cpu().float(),
            given,
            dynamo=True,
            dynamic_shapes=_dynamic(network, len(given)),
            input_names=list(names_of(example)),
            output_names=list(names),
            opset_version=ONNX_OPSET,
            verbose=False,
        )
        if program is None:
            raise ExportError("cannot export to ONNX: the exporter gave nothing back")
        model = program.model_proto
    if len(model.graph.output) != len(names):
        raise ExportError("cannot export to ONNX: the network must give one tensor, or several in a tuple or dict")
    if not all(value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input):
        raise ExportError(
            "cannot export to ONNX: the batch dimension was frozen",
            "take the batch size from x.shape[0] in forward, not from len(x) and not as a number",
        )
    _strip(model)
    # What is new in later versions of the format is not used.
    model.ir_version = ONNX_IR
    return model


def output_names(network: nn.Module, example: Inputs, given: tuple[Tensor, ...]) -> tuple[str, ...]:
    """What outputs are called in a file: as the network's mapping has them, or by number. Raises ExportError.

    `given` are the tensors of `example` as the network takes them.
    """
    with converting("cannot export the network"), torch.no_grad():
        names = tuple(outputs_of(network.cpu().float()(*given))) or (OUTPUT,)
    if twice := set(names) & set(names_of(example)):
        raise ExportError(
            f"cannot export the network: an input and an output are both called {min(twice)}", "rename the input"
        )
    return names


def _dynamic(network: nn.Module, count: int) -> Any:
    """The batch of each input is open. A forward with *args wants them as one."""
    batch = {0: torch.export.Dim("batch")}
    kinds = [each.kind for each in inspect.signature(network.forward).parameters.values()]
    return ((batch,) * count,) if kinds[:1] == [inspect.Parameter.VAR_POSITIONAL] else (batch,) * count


def describe_onnx(path: Path) -> Artifact:
    """Hash, size, inputs and outputs of an ONNX file. Raises ExportError where it is none."""
    model = load_onnx(path)
    with Source(path, ExportError, "export the file again").guarded():
        inputs, outputs = tuple(map(_spec, model.graph.input)), tuple(map(_spec, model.graph.output))
    return Artifact(
        path=path,
        format="onnx",
        precision="fp32",
        sha256=sha256_file(path),
        bytes=path.stat().st_size,
        inputs=inputs,
        outputs=outputs,
    )


def onnx_metadata(path: Path) -> str | None:
    """Our metadata entry of an ONNX file as JSON text, None where it has none. Raises ExportError."""
    for entry in load_onnx(path).metadata_props:
        if entry.key == METADATA_KEY:
            return str(entry.value)
    return None


def load_onnx(path: Path) -> onnx.ModelProto:
    """The file without its external data. Raises ExportError where it is not an ONNX model."""
    source = Source(path, ExportError, "export or copy the file again", "the ONNX file")
    with source.guarded():
        model = onnx.load(path, load_external_data=False)
    # Protobuf reads an empty file, and some garbage, as an empty model.
    if not model.graph.output:
        raise source.refusal("it holds no graph")
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: stack traces with paths of this machine, which no runtime reads."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _spec(value: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return TensorSpec(value.name, shape, str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
