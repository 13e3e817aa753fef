"""What the host reads in a model file that a runtime does not tell: variables, and scales inside the graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Variables:
    """What a .tflite file keeps from run to run.

    `tensors` (states of LSTMs and the like) are reset by the runtime when it is asked to; `resources` (of VAR_HANDLE)
    are not, and begin anew only with a new interpreter.
    """

    tensors: int = 0
    resources: int = 0


def variables(file: Path) -> Variables:
    """Of a .tflite file; none of others. Raises ValueError where it cannot be read."""
    if file.suffix.lower() != ".tflite":
        return Variables()
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - not needed for ONNX

    from edgeprune.artifacts.tflite_file import codes_of  # noqa: PLC0415 - likewise

    try:
        model = schema.ModelT.InitFromPackedBuf(file.read_bytes(), 0)
        codes = codes_of(model)
        handles = {
            bytes(operator.builtinOptions.sharedName or b"")
            for graph in model.subgraphs
            for operator in graph.operators or ()
            if codes[operator.opcodeIndex] == schema.BuiltinOperator.VAR_HANDLE
        }
        tensors = sum(bool(tensor.isVariable) for graph in model.subgraphs for tensor in graph.tensors or ())
    except Exception as error:
        # The generated reader raises anything on bytes that are no flatbuffer.
        raise ValueError(f"{type(error).__name__}: {str(error)[:100]}") from error
    return Variables(tensors, len(handles))


def scale_in_graph(file: Path, name: str) -> tuple[float, int] | None:
    """Scale and zero point of an ONNX model's input of integers, as the operators that read it hold them.

    Files that were quantised with integer inputs begin with DequantizeLinear, QLinearConv or QLinearMatMul. None: the
    input is read by anything else, has several scales, or one that is worked out at run time.
    """
    if file.suffix.lower() != ".onnx":
        return None
    import onnx  # noqa: PLC0415 - not needed for TFLite
    from onnx import numpy_helper  # noqa: PLC0415

    try:
        graph = onnx.load(file, load_external_data=False).graph
        constants = {each.name: each for each in graph.initializer}
        readers = [node for node in graph.node if name in node.input]
        found = set()
        for node in readers:
            if node.op_type not in ("DequantizeLinear", "QLinearConv", "QLinearMatMul") or node.input[0] != name:
                return None
            scale = numpy_helper.to_array(constants[node.input[1]])
            zero = numpy_helper.to_array(constants[node.input[2]]) if len(node.input) > 2 and node.input[2] else None
            if scale.size != 1 or (zero is not None and zero.size != 1):
                return None
            found.add((float(scale.item()), 0 if zero is None else int(zero.item())))
    except Exception:  # noqa: BLE001
        # What protobuf or onnx cannot read here the runtime has read: there is just nothing to be learned from it.
        return None
    return found.pop() if len(found) == 1 else None
