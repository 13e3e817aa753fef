"""ONNX: a dynamic batch dimension, one file, our metadata, and nothing that differs between two runs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgeprune.artifacts.metadata import METADATA_KEY
from edgeprune.artifacts.onnx_file import describe_onnx
from edgeprune.core.artifact import Artifact
from edgeprune.core.errors import ExportError
from edgeprune.core.files import write_bytes
from edgeprune.core.quiet import converting
from edgeprune.core.version import ONNX_IR, ONNX_OPSET
from edgeprune.exporters.layouts import convolve_onnx
from edgeprune.exporters.operators import operators_known
from edgeprune.exporters.tracing import traceable
from edgeprune.models.inputs import OUTPUT, Inputs, cast, mapped, names_of, outputs_of, tensors_of
from edgeprune.pruning.constant import unrepeated
from edgeprune.pruning.folding import find_batchnorm_pairs, fold_batchnorm

#: Operands of recurrent operations that are initial states, and what makes no other values of zeros.
_STATES = {"RNN": (5,), "GRU": (5,), "LSTM": (5, 6)}
_SHAPING = ("Expand", "Slice", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Transpose")


def export_onnx(network: nn.Module, example: Inputs, path: Path, metadata: Mapping[str, Any]) -> Artifact:
    """Write `network` as float32 ONNX, batch normalisation folded.

    | tensor | shape | |
    |---|---|---|
    | `example` | (N, ...), N >= 2 | any values; a batch of 1 would freeze the batch dimension silently |
    | file's `input`, or each by its own name | (batch, ...) | batch is dynamic |
    | file's `logits`, or each by its own name | (batch, ...) | |

    `metadata` is JSON data, read back by `read_metadata`. Raises ExportError with the cause in one line, StorageError.
    """
    folded = fold_batchnorm(network, find_batchnorm_pairs(network, example))
    with unrepeated(folded):
        model = convert_onnx(folded, example)
    with converting("cannot export to ONNX"):
        convolve_onnx(model)
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
    with converting("cannot export to ONNX"), operators_known(), traceable(network), torch.no_grad():
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
            "take the batch size from x.shape[0] in forward, not as a number",
        )
    _strip(model)
    _start_at_zero(model.graph)
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


def _start_at_zero(graph: onnx.GraphProto) -> None:
    """Recurrent layers begin at zeros where no state is given: the zeros that torch expands for them go.

    They cost time in every inference, and repeat the number of units, which a sliced candidate has fewer of.
    """
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def is_zero(name: str) -> bool:
        if name in constants:
            return not numpy_helper.to_array(constants[name]).any()
        node = makers.get(name)
        # What shapes and cuts zeros leaves zeros.
        return node is not None and node.op_type in _SHAPING and is_zero(node.input[0])

    unused = []
    for node in graph.node:
        for place in _STATES.get(node.op_type, ()):
            if len(node.input) > place and node.input[place] and is_zero(node.input[place]):
                unused.append(node.input[place])
                node.input[place] = ""
    while unused:
        name = unused.pop()
        node = makers.get(name)
        if name in (used := _used(graph)) or (node is not None and not used.isdisjoint(node.output)):
            continue
        if node is not None and node in graph.node:
            unused += node.input
            graph.node.remove(node)
        elif name in constants:
            graph.initializer.remove(constants.pop(name))


def _used(graph: onnx.GraphProto) -> set[str]:
    """Names that something reads: nodes, the branches of loops inside them, whoever runs the file."""
    used = {value.name for value in graph.output}
    for node in graph.node:
        used.update(node.input)
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                used |= _used(inner)
    return used


def _strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: stack traces with paths of this machine, which no runtime reads."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
