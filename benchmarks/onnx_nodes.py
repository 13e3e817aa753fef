"""The node cases inside the onnx wheel, each with its own inputs: what plain ONNX Runtime runs, the probe must run.

    python benchmarks/onnx_nodes.py [--only NAME] [--list]

Plain means `InferenceSession(FILE).run(None, inputs)`. The probe gets the same inputs as `edgeprune profile --input
NAME=FILE.npy` hands them on, and times each case. Sequences, optional values and strings are counted by themselves.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from edgeprune.core.clock import Deadline
from edgeprune.core.files import sha256_file
from edgeprune.devices.channel import ChannelError, ProcessChannel
from edgeprune.probe import PROBE

_SINGLE = {"warmup_runs": 1, "warmup_s": 0.0, "min_runs": 2, "min_s": 0.0, "max_s": 5.0}


@dataclass(frozen=True)
class Case:
    name: str
    model: Path
    inputs: dict[str, Any]
    #: "plain", or what is special about its inputs and outputs: "sequence", "optional", "string".
    kind: str


def main() -> int:
    """Count, name every difference, and fail where there is one that the bar does not allow."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--list", action="store_true", help="say how every case went")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    missed: list[tuple[Case, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        channel = _start()
        for case in _cases(Path(folder), options.only):
            counts["cases"] += 1
            if not _plain(case):
                counts["not run by plain ONNX Runtime"] += 1
                continue
            counts[f"{case.kind}: run by plain ONNX Runtime"] += 1
            try:
                channel.request({"op": "hello", "runtime": "onnxruntime", "threads": 1, "warm": []}, Deadline.after(60))
                answer = channel.request({"op": "single", **_file(case), **_SINGLE}, Deadline.after(60))
            except ChannelError as error:
                answer, channel = {"ok": False, "error": error.message}, _start()
            if answer["ok"]:
                counts[f"{case.kind}: run by the probe"] += 1
                counts[f"{case.kind}: run by the probe, outputs and inputs bound: {answer['opened']['binding']}"] += 1
            else:
                missed.append((case, str(answer["error"])))
            if options.list:
                print(case.name, "ok" if answer["ok"] else answer["error"])
        channel.close()
    for what, count in sorted(counts.items()):
        print(f"{count:5} {what}")
    for case, why in missed:
        print(f"not run by the probe: {case.name} ({case.kind}): {why[:200]}")
    print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
    return 1 if any(case.kind == "plain" for case, _ in missed) else 0


def _start() -> ProcessChannel:
    return ProcessChannel([sys.executable, "-u", str(PROBE)])


def _cases(folder: Path, only: str) -> list[Case]:
    found = []
    for case in collect_testcases():
        if only in case.name and case.model is not None:
            model = folder / f"{case.name}.onnx"
            model.write_bytes(case.model.SerializeToString())
            names = [each.name for each in case.model.graph.input]
            inputs = dict(zip(names, map(_value, case.data_sets[0][0]), strict=False))
            found.append(Case(case.name, model, inputs, _kind(case.model.graph)))
    return found


def _kind(graph: onnx.GraphProto) -> str:
    types = [each.type for each in (*graph.input, *graph.output)]
    for kind, special in (("optional_type", "optional"), ("sequence_type", "sequence")):
        if any(each.WhichOneof("value") == kind for each in types):
            return special
    string = any(each.tensor_type.elem_type == onnx.TensorProto.STRING for each in types)
    return "string" if string else "plain"


def _value(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, onnx.SequenceProto):
        return numpy_helper.to_list(value)
    if isinstance(value, onnx.OptionalProto):
        return numpy_helper.to_optional(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _plain(case: Case) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(case.model, options, providers=["CPUExecutionProvider"])
        session.run(None, case.inputs)
    except Exception:  # noqa: BLE001 - it cannot, for whatever reason
        return False
    return True


def _file(case: Case) -> dict[str, Any]:
    """The case as the probe's FILE; what no .npy file can hold is left out, and so made up or refused."""
    values = {}
    for index, (name, value) in enumerate(case.inputs.items()):
        try:
            array = np.asarray(value)
        except ValueError:  # a sequence of different shapes
            continue
        if value is None:
            continue
        there = case.model.with_name(f"{case.name}-{index}.npy")
        np.save(there, array.astype(str) if array.dtype.kind == "O" else array, allow_pickle=False)
        values[name] = {"path": str(there), "sha256": sha256_file(there)}
    return {"path": str(case.model), "sha256": sha256_file(case.model), "shapes": {}, "values": values}


if __name__ == "__main__":
    sys.exit(main())
