"""Do our medians agree with each runtime's own figures? In turns, process by process, on the files given.

python benchmarks/agreement.py FILE... [--processes 7] [--seconds 0.5]

Three references, each in processes of its own:
- a plain loop as onnxruntime_perf_test and benchmark_model have it (neither binary is in a wheel or Debian package):
  onnxruntime with bound inputs and outputs, LiteRT's `invoke`; median
- LiteRT's own benchmark in Python (`ai_edge_litert.tools.benchmark_litert_model`, in the wheel; median): another
  interface, whose look-up of buffers by name adds about 3 us, and which cannot run every file
- onnxruntime's own account in its profile (`model_run`; median): writing the profile adds about 3 us a node
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from edgeprune.core.measurement import MeasureSettings
from edgeprune.devices import find_device, open_session
from edgeprune.profilers.client import in_fresh_process, push
from edgeprune.profilers.recognition import runtime_of

_ORT = """
import json, os, statistics, sys, time
import numpy as np, onnxruntime as ort
path, seconds, trace = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 4
if trace:
    options.enable_profiling, options.profile_file_prefix = True, trace[0]
session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
bound, random = session.io_binding(), np.random.default_rng(0)
for i in session.get_inputs():
    bound.bind_cpu_input(i.name, random.random([s if isinstance(s, int) else 1 for s in i.shape], np.float32))
for o in session.get_outputs():
    bound.bind_output(o.name)
run, clock, times = lambda: session.run_with_iobinding(bound), time.perf_counter, []
"""
_LITERT = """
import json, statistics, sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
path, seconds, trace = sys.argv[1], float(sys.argv[2]), []
interpreter = Interpreter(path, num_threads=1)
interpreter.allocate_tensors()
random = np.random.default_rng(0)
for i in interpreter.get_input_details():
    scale = 1 if i["dtype"] == np.float32 else 100
    interpreter.set_tensor(i["index"], (scale * random.random(i["shape"])).astype(i["dtype"]))
run, clock, times = interpreter.invoke, time.perf_counter, []
"""
_LOOP = """
end = clock() + seconds
while clock() < end:
    start = clock()
    run()
    times.append(clock() - start)
if trace:
    path = session.end_profiling()
    times = [event["dur"] / 1e6 for event in json.load(open(path)) if event.get("name") == "model_run"]
print(json.dumps(statistics.median(times[len(times) // 5 :])))
"""
# The tool rounds what it reports to 10 us, which is much for a small model: its own arithmetic, unrounded.
_TOOL = """
from ai_edge_litert.tools import benchmark_litert_model as tool
tool.round = lambda value, digits=None: value
tool.run_benchmark(tool.parse_args())
"""


def plain_loop(file: Path, seconds: float, *trace: str) -> float:
    """Seconds per inference."""
    code = (_ORT if file.suffix == ".onnx" else _LITERT) + _LOOP
    return float(json.loads(_python(code, str(file), str(seconds), *trace).splitlines()[-1]))


def own_account(file: Path, seconds: float, guess_s: float) -> float | None:
    """Seconds per inference by the runtime's own account; None where its tool cannot run the file."""
    with tempfile.TemporaryDirectory() as folder:
        if file.suffix == ".onnx":
            return plain_loop(file, seconds, f"{folder}/trace")
        out = Path(folder) / "result.json"
        runs = f"--num_runs={max(50, int(seconds / guess_s))}"
        try:
            _python(_TOOL, f"--model={file}", runs, "--warmup_runs=20", "--num_threads=1", f"--result_json={out}")
        except subprocess.CalledProcessError:
            return None
        return float(json.loads(out.read_text())["latency"]["median_ms"]) / 1e3


def _python(code: str, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def told(ours: list[float], others: list[float | None]) -> str:
    """A reference's median and how far ours is from it."""
    known = [other for other in others if other is not None]
    if not known:
        return "cannot run it"
    mine, other = statistics.median(ours), statistics.median(known)
    return f"{1e6 * other:.1f} us ({100 * (mine / other - 1):+.1f} %)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--processes", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    with open_session(find_device("local")) as session:
        for file in options.files:
            settings = MeasureSettings(runtime_of(file), rounds=1, round_s=options.seconds, min_runs=20)
            pushed = push(session, file)
            ours: list[float] = []
            loops: list[float | None] = []
            own: list[float | None] = []
            for _ in range(options.processes):
                single = in_fresh_process(
                    session,
                    settings,
                    lambda client, deadline, pushed=pushed: (
                        client.hello([pushed], deadline),
                        client.single(pushed, 30.0, deadline),
                    )[1],
                    timeout_s=120,
                )
                ours.append(statistics.median(single.samples))
                loops.append(plain_loop(file, options.seconds))
                own.append(own_account(file, options.seconds, ours[-1]))
            print(
                f"{file.name}: ours {1e6 * statistics.median(ours):.1f} us; plain loop {told(ours, loops)}; "
                f"the runtime's own account {told(ours, own)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
