"""TFLite files of another precision, by Google's ai-edge-quantizer."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgeprune.core.artifact import Artifact
from edgeprune.core.errors import ExportError
from edgeprune.core.files import write_bytes
from edgeprune.core.runtimes import Precision
from edgeprune.exporters.onnx import METADATA_KEY
from edgeprune.exporters.quiet import converting
from edgeprune.exporters.running import Array, feed
from edgeprune.exporters.tflite import describe_tflite, load_tflite, pack, unpack

_Ranges = dict[str, dict[str, Array]]


def quantize_tflite(
    source: Path, path: Path, precision: Precision, examples: Array, metadata: Mapping[str, Any]
) -> Artifact:
    """Write the float32 file `source` to `path` at another precision; inputs and outputs stay float32.

    | precision | weights | between the layers |
    |---|---|---|
    | int8 | 8 bits a channel, symmetric | 8 bits, ranges from `examples` (N, ...) |
    | int8-dynamic | 8 bits a channel; fully connected layers have one scale | 8 bits, ranges found at each inference |
    | fp16 | 16 bits | 32 bits |

    tflite-runtime 2.14, which boards have, computes dynamic fully connected layers with a scale a channel wrong, and
    LiteRT 2.3 dynamic convolutions without (measured: off by half of the answers' spread).
    Raises ExportError where the quantizer cannot, StorageError.
    """
    with converting(f"cannot make {precision} of the TFLite file"):
        before = _numbered(load_tflite(source))
        packed = pack(before)
        # A second to import: only when it is wanted.
        quantizer = importlib.import_module("ai_edge_quantizer.quantizer").Quantizer(packed)
        quantizer.load_quantization_recipe(_recipe(precision))
        found = quantizer.quantize(_ranges(bytes(packed), examples) if precision == "int8" else None)
        model = unpack(bytes(found.quantized_model))
        if _constants(model) >= _constants(before):
            raise ExportError("the quantizer knows none of this network's layers")
        _keep_names(model, before)
        for entry in model.metadata or []:
            if entry.name == METADATA_KEY.encode():
                text = json.dumps(dict(metadata), sort_keys=True).encode()
                model.buffers[entry.buffer].data = np.frombuffer(text, np.uint8)
        data = bytes(pack(model))
    write_bytes(path, data)
    return describe_tflite(path)


def _recipe(precision: Precision) -> Any:
    """What the quantizer is to do with every operator that it knows."""
    types = importlib.import_module("ai_edge_quantizer.qtyping")
    names = importlib.import_module("ai_edge_quantizer.algorithm_manager").AlgorithmName
    recipe = importlib.import_module("ai_edge_quantizer.recipe_manager").RecipeManager()
    every, operators = ".*", types.TFLOperationName
    if precision == "int8":
        recipe.add_static_config(every, operators.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
        for end in (operators.INPUT, operators.OUTPUT):
            recipe.add_quantization_config(every, end, algorithm_key=names.NO_QUANTIZE)
    elif precision == "int8-dynamic":
        recipe.add_dynamic_config(every, operators.ALL_SUPPORTED, num_bits=8)
        recipe.add_dynamic_config(
            every, operators.FULLY_CONNECTED, num_bits=8, granularity=types.QuantGranularity.TENSORWISE
        )
    else:
        halves = types.OpQuantizationConfig(
            weight_tensor_config=types.TensorQuantizationConfig(num_bits=16, dtype=types.TensorDataType.FLOAT),
            compute_precision=types.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        )
        recipe.add_quantization_config(every, operators.ALL_SUPPORTED, halves, algorithm_key=names.FLOAT_CASTING)
    return recipe.get_quantization_recipe()


def _numbered(model: schema.ModelT) -> schema.ModelT:
    """The model with tensors named by their numbers, but for inputs and outputs.

    The quantizer tells tensors by their names, which the converter repeats.
    """
    for place, graph in enumerate(model.subgraphs):
        ends = {*graph.inputs, *graph.outputs} if place == 0 else set()
        for index, tensor in enumerate(graph.tensors):
            if index not in ends:
                tensor.name = f"{place}.{index}".encode()
    return model


def _ranges(model: bytes, examples: Array) -> _Ranges:
    """The least and the greatest value of every tensor over all examples.

    The quantizer's own calibration takes a moving average of them, which clipped what is rare (measured: outputs of
    -9.9 to 12.6 to -7.1 to 6.1).
    """
    interpreter = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    kept = [each for each in interpreter.get_tensor_details() if each["dtype"] == np.float32]
    lows, highs = np.full(len(kept), np.inf), np.full(len(kept), -np.inf)
    for number in range(len(examples)):
        feed(interpreter, examples[number : number + 1])
        interpreter.invoke()
        for index, each in enumerate(kept):
            try:
                values = interpreter.get_tensor(each["index"])
            except ValueError:  # a runtime's own working memory
                continue
            if values.size:
                lows[index] = min(lows[index], values.min())
                highs[index] = max(highs[index], values.max())
    shaped = [np.ones(max(len(each["shape"]), 1), int) for each in kept]
    return {
        each["name"]: {"min": np.full(shape, low, np.float32), "max": np.full(shape, high, np.float32)}
        for each, shape, low, high in zip(kept, shaped, lows, highs, strict=True)
        if np.isfinite(low)
    }


def _keep_names(model: schema.ModelT, before: schema.ModelT) -> None:
    """Outputs get another name where they are turned into floats again; applications ask for them by the old one."""
    graph, old = model.subgraphs[0], before.subgraphs[0]
    for place, was in zip((*graph.inputs, *graph.outputs), (*old.inputs, *old.outputs), strict=True):
        name = old.tensors[was].name
        for tensor in graph.tensors:
            if tensor.name == name and tensor is not graph.tensors[place]:
                tensor.name = name + b"_8bit"
        graph.tensors[place].name = name


def _constants(model: Any) -> int:
    return sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
