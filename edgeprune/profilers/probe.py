"""Runs ON the device: loads models, times them, reads memory. Standard library, numpy and one runtime; Python 3.9+.

It imports nothing of edgeprune, is copied under the name of its own hash and started as `python -u <file>`. One JSON
object per line comes in on stdin (`{"op": ..., "n": ...}`), one goes out on stdout, with the same `n`:
`{"ok": true, ...}` or `{"ok": false, "kind": "refused" | "lost" | "crashed", "error": "one line"}`. A failed request
never ends the probe. Seconds and bytes throughout.

    hello    {runtime, threads, warm: [{path, sha256}]}     -> facts {...}
    load     {id, path, sha256}                             -> load_s, first_s, inputs, outputs
    memory   {path, sha256}                                 -> bytes, method
    race     {a: {path, sha256}, b: the same or null, rounds, round_s, min_runs, warmup_runs, warmup_s}
                      -> samples_a, warmups_a, load_s_a, first_s_a, the same of b, runs: {a, b} per block
    predict  {id, inputs, outputs}                          -> count, seconds
    unload   {id}                                           -> (nothing)
    quit     {}                                             -> (nothing), then the process ends
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import platform
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

_MAX_REQUEST = 1 << 20
_MAX_WARMUPS = 200
_MAX_ROUNDS = 10_000
_MAX_RUNS = 1_000_000
#: After the long warm-up, a model loaded anew needs only its own memory touched.
_REWARM_RUNS = 3


class ProbeError(Exception):
    """A request that cannot be served; `kind` goes into the answer."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


# ---------------------------------------------------------------------------------------------------- the machine


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.readline().strip().strip("\0")
    except OSError:
        return ""


def _cpu() -> str:
    """The processor's name: "model name" on x86, the board's "Model" and core on ARM."""
    fields: Dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                key, _, value = line.partition(":")
                fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    if fields.get("model name"):
        return fields["model name"]
    board = _first_line("/proc/device-tree/model") or fields.get("Model", "")
    core = fields.get("CPU part", "")
    return " ".join(part for part in (board, core and "part " + core) if part) or platform.processor() or "unknown"


def _status(key: str) -> int:
    """A line of /proc/self/status or /proc/meminfo in bytes, 0 where there is none."""
    for path in ("/proc/self/status", "/proc/meminfo"):
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                for line in stream:
                    if line.startswith(key + ":"):
                        return int(line.split()[1]) * 1024
        except (OSError, ValueError, IndexError):
            continue
    return 0


def _facts() -> Dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "release": platform.release(),
        "cpu": _cpu(),
        "cores": cores,
        "memory_bytes": _status("MemTotal"),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "libc": " ".join(platform.libc_ver()).strip(),
        "python": platform.python_version(),
        "mallinfo2": _MALLINFO is not None,
    }


# -------------------------------------------------------------------------------------------------------- memory


class _Mallinfo2(ctypes.Structure):
    # fmt: off
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]
    # fmt: on


def _find_mallinfo() -> Optional[Callable[[], Any]]:
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError, TypeError):
        return None
    function.restype = _Mallinfo2
    return function


_MALLINFO = _find_mallinfo()


class _Memory:
    """Bytes held since it was made: heap in use by mallinfo2, or the high-water mark where there is no mallinfo2."""

    def __init__(self) -> None:
        gc.collect()
        self.method = "vmhwm" if _MALLINFO is None else "mallinfo2"
        if _MALLINFO is None:
            try:  # resets VmHWM to the memory resident now, so that an earlier, larger model does not hide this one
                with open("/proc/self/clear_refs", "w", encoding="ascii") as stream:
                    stream.write("5")
            except OSError:
                pass
        self._before = self._now("VmRSS")
        self.highest = 0

    def _now(self, line: str) -> int:
        if _MALLINFO is None:
            return _status(line)
        info = _MALLINFO()
        return int(info.uordblks + info.hblkhd)

    def read(self) -> None:
        self.highest = max(self.highest, self._now("VmHWM") - self._before)


# ------------------------------------------------------------------------------------------------------ runtimes


def _random(shape: Tuple[int, ...], dtype: Any) -> Any:
    """Seeded: floats in [0, 1), bytes over their range; zeros for wider integers, which may be indices."""
    import numpy as np

    kind = np.dtype(dtype)
    generator = np.random.RandomState(0)
    if kind.kind == "f":
        return generator.random_sample(shape).astype(kind)
    if kind in (np.dtype(np.int8), np.dtype(np.uint8)):
        return generator.randint(0, 128, shape).astype(kind)
    if kind.kind in "iub":
        return np.zeros(shape, kind)
    raise ProbeError("refused", "no way to make up an input of type " + str(dtype))


def _as_input(row: Any, shape: Tuple[int, ...]) -> Any:
    """One image in the shape the model wants, batch 1. Not (3, 32, 32) as (32, 32, 3), which would only look right."""
    if row.shape == shape[1:] or (row.size == _size(shape) and row.ndim != len(shape) - 1):
        return row.reshape(shape)
    raise ProbeError("refused", "an input of shape %s does not fit the model's %s" % (row.shape, shape))


def _size(shape: Tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


#: Where onnxruntime's name of an element type is not numpy's.
_ORT_TYPES = {"float": "float32", "double": "float64", "bool": "bool_"}


class _Onnx:
    """A model open in onnxruntime. `lean`: in an arena that grows by exactly what is asked for (to read memory)."""

    _shared_arena = False

    def __init__(self, path: str, threads: int, lean: bool = False) -> None:
        import numpy as np
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        if lean:
            self._share_arena(ort)
            options.add_session_config_entry("session.use_env_allocators", "1")
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._shrinking = ort.RunOptions()
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self.inputs = [self._spec(node) for node in self._session.get_inputs()]
        self.outputs = [self._spec(node) for node in self._session.get_outputs()]
        self._names = [self._session.get_outputs()[0].name]
        self._feed = {name: _random(shape, np.dtype(dtype)) for name, shape, dtype in self.inputs}

    @classmethod
    def _share_arena(cls, ort: Any) -> None:
        if not cls._shared_arena:
            exact = ort.OrtArenaCfg(
                {
                    "arena_extend_strategy": 1,
                    "initial_chunk_size_bytes": -1,
                    "max_dead_bytes_per_chunk": -1,
                    "max_mem": 0,
                }
            )
            kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
            ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT), exact)
            cls._shared_arena = True

    @staticmethod
    def _spec(node: Any) -> Tuple[str, Tuple[int, ...], str]:
        shape = tuple(side if isinstance(side, int) and side > 0 else 1 for side in node.shape or ())
        name = node.type.replace("tensor(", "").rstrip(")")
        return node.name, shape, _ORT_TYPES.get(name, name)

    def runner(self) -> Callable[[], Any]:
        run, names, feed = self._session.run, self._names, self._feed
        return lambda: run(names, feed)

    def settle(self) -> None:
        """Run until the memory held is what every later run needs: the first runs leave chunks that none uses again."""
        self.runner()()
        self.runner()()
        self._session.run(self._names, self._feed, self._shrinking)
        self.runner()()

    def release(self) -> None:
        """Give the shared arena's chunks back, or the next model would find its memory already there."""
        self._session.run(self._names, self._feed, self._shrinking)

    def predict(self, row: Any) -> Any:
        name, shape, dtype = self.inputs[0]
        return self._session.run(self._names, {name: _as_input(row, shape).astype(dtype, copy=False)})[0]


class _LiteRt:
    """A model open in LiteRT, or in its predecessor tflite_runtime where only that exists."""

    def __init__(self, path: str, threads: int, lean: bool = False) -> None:
        del lean  # it has no arena to tune: tensors and packed weights are allocated once, at their size
        self._interpreter = _litert().Interpreter(model_path=path, num_threads=threads)
        self._take = self._interpreter.get_input_details()
        for detail in self._take:
            if any(side < 1 for side in detail["shape_signature"]):
                self._interpreter.resize_tensor_input(detail["index"], [max(1, s) for s in detail["shape_signature"]])
        self._interpreter.allocate_tensors()
        self._take = self._interpreter.get_input_details()
        self._give = self._interpreter.get_output_details()
        self.inputs = [self._spec(detail) for detail in self._take]
        self.outputs = [self._spec(detail) for detail in self._give]
        for detail in self._take:
            shape = tuple(int(side) for side in detail["shape"])
            self._interpreter.set_tensor(detail["index"], _random(shape, detail["dtype"]))

    @staticmethod
    def _spec(detail: Dict[str, Any]) -> Tuple[str, Tuple[int, ...], str]:
        import numpy as np

        return detail["name"], tuple(int(side) for side in detail["shape"]), np.dtype(detail["dtype"]).name

    def runner(self) -> Callable[[], Any]:
        return self._interpreter.invoke  # type: ignore[no-any-return]

    def settle(self) -> None:
        for _ in range(3):
            self._interpreter.invoke()

    def release(self) -> None:
        """Nothing outlives the interpreter."""

    def predict(self, row: Any) -> Any:
        import numpy as np

        take, give = self._take[0], self._give[0]
        value = _as_input(row, self.inputs[0][1])
        scale, zero = take["quantization"]
        if scale and np.dtype(take["dtype"]).kind in "iu":
            limits = np.iinfo(take["dtype"])
            value = np.clip(np.rint(value / scale) + zero, limits.min, limits.max)
        self._interpreter.set_tensor(take["index"], value.astype(take["dtype"], copy=False))
        self._interpreter.invoke()
        answer = self._interpreter.get_tensor(give["index"])
        scale, zero = give["quantization"]
        if scale and answer.dtype.kind in "iu":
            answer = (answer.astype(np.float32) - zero) * np.float32(scale)
        return answer


def _litert() -> Any:
    try:
        from ai_edge_litert import interpreter
    except ImportError:
        from tflite_runtime import interpreter
    return interpreter


def _version(runtime: str) -> Tuple[str, str]:
    """Name and version of the installed runtime. Raises ImportError."""
    if runtime == "onnxruntime":
        import onnxruntime

        return "onnxruntime", str(onnxruntime.__version__)
    from importlib import metadata

    package = _litert().__name__.split(".")[0]
    try:
        return package, metadata.version(package.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return package, "unknown"


# ------------------------------------------------------------------------------------------------------- the ops


def _checked(path: str, sha256: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise ProbeError("lost", "the file is not readable on the device: " + str(error)) from error
    if digest.hexdigest() != sha256:
        raise ProbeError("lost", "the file on the device is not the one that was sent (SHA-256 differs)")
    return path


def _median(values: List[int]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _block(run: Callable[[], Any], runs: int) -> List[int]:
    """Nanoseconds of each of `runs` runs."""
    clock = time.perf_counter_ns
    times = [0] * runs
    for index in range(runs):
        start = clock()
        run()
        times[index] = clock() - start
    return times


def _warm_up(run: Callable[[], Any], least_runs: int, least_s: float) -> List[int]:
    """At least so many runs and seconds, then on (at most to three times that) until two halves agree in 3 %."""
    times: List[int] = []
    last = 0.0
    for half in range(6):
        block: List[int] = []
        start = time.perf_counter()
        while len(block) * 2 < least_runs or (time.perf_counter() - start) * 2 < least_s:
            block += _block(run, 1)
        times += block
        middle = _median(block)
        if half and abs(middle - last) <= 0.03 * last:
            break
        last = middle
    return times


def _quietly(work: Callable[..., List[int]], *arguments: Any) -> List[int]:
    """`work` without the garbage collector stepping in."""
    gc.collect()
    gc.disable()
    try:
        return work(*arguments)
    finally:
        gc.enable()


class Probe:
    """The state of one probe process: a runtime and the models loaded in it."""

    def __init__(self) -> None:
        self.runtime: Any = None
        self.threads = 1
        self.models: Dict[str, Any] = {}

    def _open(self, path: str, sha256: str, lean: bool = False) -> Any:
        if self.runtime is None:
            raise ProbeError("crashed", "no hello yet: the runtime is not chosen")
        _checked(path, sha256)
        try:
            return self.runtime(path, self.threads, lean)
        except ProbeError:
            raise
        except Exception as error:
            raise ProbeError("refused", "the runtime cannot open the model: " + _one_line(error)) from error

    def hello(self, runtime: str, threads: int, warm: List[Dict[str, str]]) -> Dict[str, Any]:
        """Import the runtime and warm it up."""
        kinds = {"onnxruntime": _Onnx, "litert": _LiteRt}
        if runtime not in kinds:
            raise ProbeError("refused", "unknown runtime " + repr(runtime))
        try:
            import numpy as np

            package, version = _version(runtime)
        except ImportError as error:
            raise ProbeError("refused", "%s cannot be imported: %s" % (runtime, _one_line(error))) from error
        self.runtime, self.threads = kinds[runtime], threads
        for model in warm:
            self.memory(model["path"], model["sha256"])
        gc.collect()
        gc.freeze()  # what was imported stays, and need not be looked through before every block
        facts = dict(_facts(), runtime=package, runtime_version=version, numpy=np.__version__, threads=threads)
        return {"facts": facts}

    def _first(self, file: Dict[str, str]) -> Tuple[Any, float, float]:
        """A model loaded and run once, and the seconds of both."""
        gc.collect()
        start = time.perf_counter()
        model = self._open(file["path"], file["sha256"])
        loaded = time.perf_counter()
        try:
            model.runner()()
        except Exception as error:
            raise ProbeError("refused", "the runtime cannot run the model: " + _one_line(error)) from error
        return model, loaded - start, time.perf_counter() - loaded

    def load(self, id: str, path: str, sha256: str) -> Dict[str, Any]:
        """Open a model and run it once."""
        model, load_s, first_s = self._first({"path": path, "sha256": sha256})
        self.models[id] = model
        return {"load_s": load_s, "first_s": first_s, "inputs": model.inputs, "outputs": model.outputs}

    def unload(self, id: str) -> Dict[str, Any]:
        """Close a model."""
        self.models.pop(id, None)
        gc.collect()
        return {}

    def memory(self, path: str, sha256: str) -> Dict[str, Any]:
        """Heap the model holds while it runs; buffers that only the loading needs are not counted."""
        memory = _Memory()
        model = self._open(path, sha256, lean=True)
        memory.read()
        try:
            model.settle()
            memory.read()
            model.release()
        except Exception as error:
            raise ProbeError("refused", "the runtime cannot run the model: " + _one_line(error)) from error
        del model
        gc.collect()
        return {"bytes": memory.highest, "method": memory.method}

    def _model(self, id: str) -> Any:
        if id not in self.models:
            raise ProbeError("crashed", "no model is loaded as " + repr(id))
        return self.models[id]

    def race(
        self,
        *,
        a: Dict[str, str],
        b: Optional[Dict[str, str]],
        rounds: int,
        round_s: float,
        min_runs: int,
        warmup_runs: int,
        warmup_s: float,
    ) -> Dict[str, Any]:
        """Time `a` and `b` in turns. A round holds two blocks of each, `a` first, then `b` first; a sample is the mean.

        Both are loaded anew for every block, in the block's order: where the weights come to lie in memory, and which
        were laid there first, moves small models by 5 to 10 %, and a layout that lasted would move every sample of this
        process the same way.
        """
        racers = {"a": a} if b is None else {"a": a, "b": b}
        answer: Dict[str, Any] = {"samples_b": [], "warmups_b": []}
        runs: Dict[str, int] = {}
        for name, file in racers.items():
            answer.update({"samples_" + name: [], "load_s_" + name: [], "first_s_" + name: []})
            model = self._open(file["path"], file["sha256"])
            times = _quietly(_warm_up, model.runner(), max(1, warmup_runs), warmup_s)
            answer["warmups_" + name] = [nanoseconds / 1e9 for nanoseconds in times[:_MAX_WARMUPS]]
            steady = max(1.0, _median(times[len(times) // 2 :]))
            per_round = max(2, min_runs, int(round_s * 1e9 / steady) + 1)
            runs[name] = min((per_round + 1) // 2, _MAX_RUNS)
            del model
        for _ in range(min(rounds, _MAX_ROUNDS)):
            medians: Dict[str, List[float]] = {name: [] for name in racers}
            for order in (sorted(racers), sorted(racers, reverse=True)):
                models = {}
                for name in order:
                    models[name], load_s, first_s = self._first(racers[name])
                    answer["load_s_" + name].append(load_s)
                    answer["first_s_" + name].append(first_s)
                for name in order:
                    times = _quietly(_block, models[name].runner(), runs[name] + _REWARM_RUNS)[_REWARM_RUNS:]
                    medians[name].append(_median(times) / 1e9)
                models.clear()
            for name, values in medians.items():
                answer["samples_" + name].append(sum(values) / len(values))
        return dict(answer, runs=runs)

    def predict(self, id: str, inputs: str, outputs: str) -> Dict[str, Any]:
        """Images (N, ...) one at a time; writes the first output as float32 (N, K)."""
        import numpy as np

        model = self._model(id)
        images = np.load(inputs, mmap_mode="r", allow_pickle=False)
        start = time.perf_counter()
        rows = [np.asarray(model.predict(np.array(image)), np.float32).reshape(-1) for image in images]
        seconds = time.perf_counter() - start
        with open(outputs, "wb") as stream:
            np.save(stream, np.stack(rows) if rows else np.zeros((0, 0), np.float32), allow_pickle=False)
        return {"count": len(rows), "seconds": seconds}


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    return (type(error).__name__ + ": " + text)[:500]


def _serve(probe: Probe, request: Dict[str, Any]) -> Dict[str, Any]:
    ops = {
        "hello": probe.hello,
        "load": probe.load,
        "memory": probe.memory,
        "race": probe.race,
        "predict": probe.predict,
        "unload": probe.unload,
        "quit": dict,
    }
    arguments = {key: value for key, value in request.items() if key not in ("op", "n")}
    try:
        if request.get("op") not in ops:
            raise ProbeError("crashed", "unknown op " + repr(request.get("op"))[:100])
        answer: Dict[str, Any] = ops[request["op"]](**arguments)  # type: ignore[operator]
    except ProbeError as error:
        return {"ok": False, "kind": error.kind, "error": str(error)[:500]}
    except Exception as error:
        return {"ok": False, "kind": "crashed", "error": _one_line(error)}
    return dict(answer, ok=True)


def main() -> None:
    """Answer requests until `quit` or the end of stdin."""
    # Runtimes print to fd 1 from C++ too, so the real one is kept aside and fd 1 becomes stderr.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    # The folder of this script holds pushed files; nothing there is to be imported.
    sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(os.path.abspath(__file__))]
    probe = Probe()
    while True:
        line = sys.stdin.buffer.readline(_MAX_REQUEST)
        if not line:
            return
        try:
            request = json.loads(line)
            answer = _serve(probe, request)
            answer["n"] = request.get("n")
        except Exception as error:
            answer, request = {"ok": False, "kind": "garbled", "error": _one_line(error)}, {}
        try:
            out.write(json.dumps(answer).encode("ascii") + b"\n")
            out.flush()
        except BrokenPipeError:
            return
        if request.get("op") == "quit":
            return


if __name__ == "__main__":
    main()
