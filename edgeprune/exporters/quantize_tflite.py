"""TFLite files of another precision, by Google's ai-edge-quantizer."""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgeprune.artifacts.metadata import METADATA_KEY
from edgeprune.artifacts.running import Array, feed
from edgeprune.artifacts.tflite_file import codes_of, describe_tflite, load_tflite, pack, unpack
from edgeprune.core.artifact import Artifact
from edgeprune.core.errors import ExportError
from edgeprune.core.files import write_bytes
from edgeprune.core.quiet import converting
from edgeprune.core.runtimes import Precision
from edgeprune.exporters.units import Operator, units_of

#: How the quantizer names what it fails at: a kind of operators, and at times which of the file's operators.
_REFUSED = re.compile(r"TFLOperationName\.([A-Z0-9_]+)(?:.*?(?:op id |index: )(\d+))?", re.DOTALL)
_Ranges = dict[str, dict[str, Array]]
_CODES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
#: What computes nothing: to keep one of them in float32 changes nothing.
_MOVES = frozenset(
    {
        "BROADCAST_TO",
        "CAST",
        "CONCATENATION",
        "EXPAND_DIMS",
        "GATHER",
        "GATHER_ND",
        "PACK",
        "PAD",
        "PADV2",
        "RELU",
        "RELU6",
        "RESHAPE",
        "SHAPE",
        "SLICE",
        "SPLIT",
        "SPLIT_V",
        "SQUEEZE",
        "STABLEHLO_COMPOSITE",
        "STRIDED_SLICE",
        "TRANSPOSE",
        "UNPACK",
    }
)


class CalibratedTflite:
    """A float32 file with the ranges of its tensors: what int8 files are made from, with all of it in 8 bits or not.

    Weights have 8 bits a channel, symmetric; between the layers are 8 bits, with the least and the greatest value
    that `examples` (N, ...) gave.
    """

    def __init__(self, source: Path, examples: Array) -> None:
        self._source, self._examples = source, examples
        model = load_tflite(source)
        graph = model.subgraphs[0]
        codes = codes_of(model)
        kinds = [_CODES.get(codes[each.opcodeIndex], "CUSTOM") for each in graph.operators]
        seen: Counter[str] = Counter()
        self._labels, known = [], []
        for kind, each in zip(kinds, graph.operators, strict=True):
            seen[kind] += 1
            self._labels.append(f"{kind} {seen[kind]}")
            label = None if kind in _MOVES else self._labels[-1]
            known.append(Operator(label, tuple(map(int, each.inputs)), tuple(map(int, each.outputs))))
        #: What may stay in float32, in the order of the file: operators by their kind, and which of it they are.
        self.units = units_of(known, [*map(int, graph.inputs)])
        self._scopes = ["".join(f"{_name(graph, out)};" for out in each.outputs) for each in graph.operators]
        self._whole = len(model.subgraphs) == 1
        self._ranges: _Ranges = {}
        #: What the quantizer fails at: operators by their place, and kinds where it does not say which of them.
        self._failed: set[int] = set()
        self._failed_kinds: list[str] = []

    @property
    def refused(self) -> tuple[str, ...]:
        """What stays in float32 in the files written because the quantizer fails at it: operators, or all of a kind."""
        return (*(self._labels[place] for place in sorted(self._failed)), *self._failed_kinds)

    def write(self, path: Path, metadata: Mapping[str, Any], floats: Collection[int] = ()) -> Artifact:
        """The int8 file, whose operators `floats` stay in float32. Raises ExportError, StorageError."""
        with converting("cannot make int8 of the TFLite file"):
            before = _numbered(load_tflite(self._source))
            packed = pack(before)
            self._ranges = self._ranges or _ranges(bytes(packed), self._examples)
            model = self._static(packed, floats)
            if not floats:
                _check_smaller(model, before)
        return _written(model, before, path, metadata)

    def _static(self, packed: bytearray, floats: Collection[int]) -> schema.ModelT:
        """The int8 model, of which the operators `floats`, and what the quantizer fails at, stay in float32."""
        while True:
            try:
                scopes = [self._scopes[place] for place in sorted(self._failed.union(floats))]
                return _quantized(packed, _recipe("int8", scopes, self._failed_kinds), self._ranges)
            except ValueError as error:
                named = _REFUSED.search(str(error))
                if named is None or named[1] in self._failed_kinds:
                    raise
                # Places are those of one graph; which, it does not say.
                if self._whole and named[2] and int(named[2]) not in self._failed:
                    self._failed.add(int(named[2]))
                else:
                    self._failed_kinds.append(named[1])


def quantize_tflite(source: Path, path: Path, precision: Precision, metadata: Mapping[str, Any]) -> Artifact:
    """Write the float32 file `source` to `path` at another precision; inputs and outputs stay float32.

    | precision | weights | between the layers |
    |---|---|---|
    | int8-dynamic | 8 bits a channel; fully connected layers have one scale | 8 bits, ranges found at each inference |
    | fp16 | 16 bits | 32 bits |

    tflite-runtime 2.14, which boards have, computes dynamic fully connected layers with a scale a channel wrong, and
    LiteRT 2.3 dynamic convolutions without (measured: off by half of the answers' spread).
    For int8 see `CalibratedTflite`. Raises ExportError where the quantizer cannot, StorageError.
    """
    with converting(f"cannot make {precision} of the TFLite file"):
        before = _numbered(load_tflite(source))
        model = _quantized(pack(before), _recipe(precision), None)
        _check_smaller(model, before)
    return _written(model, before, path, metadata)


def _quantized(packed: bytearray, recipe: Any, ranges: _Ranges | None) -> schema.ModelT:
    # A second to import: only when it is wanted.
    quantizer = importlib.import_module("ai_edge_quantizer.quantizer").Quantizer(packed)
    quantizer.load_quantization_recipe(recipe)
    return unpack(bytes(quantizer.quantize(ranges).quantized_model))


def _check_smaller(model: schema.ModelT, before: schema.ModelT) -> None:
    if _constants(model) >= _constants(before):
        raise ExportError("the quantizer knows none of this network's layers")


def _written(model: schema.ModelT, before: schema.ModelT, path: Path, metadata: Mapping[str, Any]) -> Artifact:
    with converting("cannot write the TFLite file"):
        _keep_names(model, before)
        for entry in model.metadata or []:
            if entry.name == METADATA_KEY.encode():
                text = json.dumps(dict(metadata), sort_keys=True).encode()
                model.buffers[entry.buffer].data = np.frombuffer(text, np.uint8)
        data = bytes(pack(model))
    write_bytes(path, data)
    return describe_tflite(path)


def _recipe(precision: Precision, floats: Iterable[str] = (), refused: Iterable[str] = ()) -> Any:
    """What the quantizer is to do with every operator that it knows; those of the scopes `floats`, and of the kinds
    `refused`, stay as they are."""
    types = importlib.import_module("ai_edge_quantizer.qtyping")
    names = importlib.import_module("ai_edge_quantizer.algorithm_manager").AlgorithmName
    recipe = importlib.import_module("ai_edge_quantizer.recipe_manager").RecipeManager()
    every, operators = ".*", types.TFLOperationName
    if precision == "int8":
        recipe.add_static_config(every, operators.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
        for kind in (operators.INPUT, operators.OUTPUT, *(operators[each] for each in refused)):
            recipe.add_quantization_config(every, kind, algorithm_key=names.NO_QUANTIZE)
        for scope in floats:
            recipe.add_quantization_config(
                f"^{re.escape(scope)}$", operators.ALL_SUPPORTED, algorithm_key=names.NO_QUANTIZE
            )
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
        for index, tensor in enumerate(graph.tensors):
            tensor.name = _name(graph, index, place).encode()
    return model


def _name(graph: schema.SubGraphT, index: int, place: int = 0) -> str:
    ends = {*graph.inputs, *graph.outputs} if place == 0 else set()
    return str(graph.tensors[index].name.decode()) if index in ends else f"{place}.{index}"


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
