"""Do our medians agree with each runtime's own figures? In turns, process by process, on the files given.

python benchmarks/agreement.py FILE... [--processes 7] [--seconds 0.5]

LiteRT: its own benchmark (`ai_edge_litert.tools.benchmark_litert_model`, in the wheel; median). onnxruntime: its
perf test is in no wheel or Debian package, so the reference is what onnxruntime itself writes into its profile, the
"model_run" of each run, from a plain loop: profiling costs a little, so it may lie a little above.
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

from edgeprune.core.types import MeasureSettings
from edgeprune.devices import find_device, open_session
from edgeprune.profilers.client import in_fresh_process, push
from edgeprune.profilers.profile import runtime_of

_ORT = """
import json, os, sys, time
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 4
options.enable_profiling, options.profile_file_prefix = True, sys.argv[2]
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
random = np.random.default_rng(0)
inputs = session.get_inputs()
feed = {i.name: random.random([s if isinstance(s, int) else 1 for s in i.shape], np.float32) for i in inputs}
end = time.perf_counter() + float(sys.argv[3])
while time.perf_counter() < end:
    session.run(None, feed)
path = session.end_profiling()
runs = [event["dur"] for event in json.load(open(path)) if event.get("name") == "model_run"]
os.remove(path)
print(json.dumps(sorted(runs[len(runs) // 5 :])[len(runs) * 2 // 5] / 1e6))
"""

# The tool rounds what it reports to 10 µs, which is much for a small model: its own arithmetic, unrounded.
_LITERT = """
import sys
from ai_edge_litert.tools import benchmark_litert_model as tool
tool.round = lambda value, digits=None: value
tool.run_benchmark(tool.parse_args())
"""


def reference(file: Path, seconds: float, guess_s: float) -> float:
    """Seconds per inference by the runtime's own account, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        if file.suffix == ".onnx":
            command = [sys.executable, "-c", _ORT, str(file), f"{folder}/trace", str(seconds)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            return float(json.loads(done.stdout.splitlines()[-1]))
        out = Path(folder) / "result.json"
        runs = str(max(50, int(seconds / guess_s)))
        subprocess.run(
            [sys.executable, "-c", _LITERT, f"--model={file}",
             f"--num_runs={runs}", "--warmup_runs=20", "--num_threads=1", f"--result_json={out}"],
            env=environment, capture_output=True, check=True,
        )  # fmt: skip
        return float(json.loads(out.read_text())["latency"]["median_ms"]) / 1e3


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
            theirs: list[float] = []
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
                theirs.append(reference(file, options.seconds, ours[-1]))
            mine, other = statistics.median(ours), statistics.median(theirs)
            print(
                f"{file.name}: ours {1e6 * mine:.1f} µs, the runtime's {1e6 * other:.1f} µs, "
                f"{100 * (mine / other - 1):+.1f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
