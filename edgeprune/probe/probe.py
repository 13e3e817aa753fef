"""Runs ON the device: loads models, times them, reads memory. Standard library, numpy and one runtime; Python 3.9+.

It imports nothing of edgeprune, is copied under the name of its own hash and started as `python -u <file>`. One JSON
object per line comes in on stdin (`{"op": ..., "n": ...}`), one goes out on stdout, with the same `n`:
`{"ok": true, ...}` or `{"ok": false, "kind": "refused" | "lost" | "crashed", "error": "one line"}`. A failed request
never ends the probe. Seconds and bytes throughout. When stdin ends, which is how a host that was killed or cut off is
noticed, the probe ends within seconds, whatever it is doing.

    hello    {runtime, threads, warm: [FILE]}               -> facts {...}, ops [...]
    state    {}                                             -> state {...}, see `_state`
    load     {id, FILE, run}                                -> load_s, first_s, inputs, outputs, ports, opened
    memory   {FILE}                                         -> bytes, method
    race     {a: FILE, b: FILE or null, rounds, round_s, min_runs, warmup_runs, warmup_s, most_s}
                      -> samples_a, warmups_a, load_s_a, first_s_a, opened_a, the same of b, runs: {a, b} per block,
                         states
    single   {FILE, warmup_runs, warmup_s, min_runs, min_s, max_s}
                      -> runs_s (the newest 20,000), count, warmups_s, load_s, first_s, opened, states
    throughput  {FILE, streams, seconds}                    -> inferences, seconds, per_stream
    operators   {FILE, runs, scratch}                       -> operators [{name, type, seconds}] or null, why
    predict  {id, inputs, outputs, EXAMPLES}                -> count, seconds
    outputs  {id, inputs, EXAMPLES}                         -> outputs [[name, kind, shape, keys]], seconds
    unload   {id}                                           -> (nothing)
    quit     {}                                             -> (nothing), then the process ends

FILE is `path, sha256` and, as far as something is known of the model's inputs:

    shapes     {input or axis: [size, ...]}: with it (even empty) every open axis but a first one must be given; without
               it they are all 1. Axes of one name that are not given are as large as the one that is.
    values     {input: {text} or {path, sha256}}: one value that fills the input, or the .npy file with its values
    shared     [name, ...]: names in `shapes` and `values` that a model without such an input leaves to others
    signature  which of a .tflite file is run; "": its first subgraph
    beside     {location: {path, sha256}}: the files in which an ONNX model keeps its weights
    prefix     what stands before names in advice to the user

`opened` (of `race`: `opened_a`) says how a model is run: `inputs` [[name, [size, ...], type, how its values came about:
"given", or what they were made up as]], `signature` and `signatures` (of a .tflite file that has some), `binding`
("kept": inputs and outputs are bound once; "renewed": outputs before each run; "none": each run hands all over; "":
LiteRT), and `unused`, the names of `shared` that the model does not have. `states` are the device's before and after. A
refusal may have a `hint`: what to type.

EXAMPLES is how the examples of a .npy file are run, see `_Examples`.
"""

from __future__ import annotations

import bisect
import ctypes
import gc
import hashlib
import itertools
import json
import mmap
import os
import platform
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Union

_MAX_REQUEST = 1 << 20
_MAX_WARMUPS = 200
_MAX_ROUNDS = 10_000
_MAX_RUNS = 1_000_000
#: Raw runs that one answer holds, the newest; and streams of a throughput test.
_MAX_KEPT = 20_000
_MAX_STREAMS = 256
#: After the long warm-up, a model loaded anew needs only its own memory touched.
_REWARM_RUNS = 3
#: From here on a run is so long that caches it did not touch yet are no part of it, and its first run warms it up.
_SLOW_NS = 20_000_000
#: A race that takes too long has at least so many rounds.
_LEAST_ROUNDS = 3


#: Instructions that are counted of one model at most, if two runs have fewer; see `CountingProbe`.
_COUNTED = 30_000_000
#: Seconds that a probe which has lost its host may take to end by itself.
_GRACE_S = 2.0
#: Exit code of a forked process that found no request to serve.
_NO_MORE = 3


class ProbeError(Exception):
    """A request that cannot be served; `kind` and `hint`, what to type, go into the answer."""

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.hint = hint


class _OpenAxesError(ProbeError):
    """Sizes of inputs are missing. `axes` holds the open ones, each as places (input, axis) that have one size."""

    def __init__(self, message: str, sizes: Dict[str, List[int]], axes: List[List[Tuple[str, int]]]) -> None:
        super().__init__("refused", message)
        self.sizes = sizes
        self.axes = axes


class _BindingError(Exception):
    """A run failed whose inputs and outputs were bound; one that hands them over may succeed."""


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
        # A 32-bit system may run on a 64-bit kernel, which is what platform tells.
        "machine": "armv7l" if platform.machine() == "aarch64" and sys.maxsize < 2**32 else platform.machine(),
        "system": platform.system(),
        "release": platform.release(),
        "cpu": _cpu(),
        "cores": cores,
        "memory_bytes": _status("MemTotal"),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "libc": " ".join(platform.libc_ver()).strip(),
        "python": platform.python_version(),
        "mallinfo2": _MALLINFO is not None,
        "emulated": _emulated(),
    }


def _emulated() -> bool:
    """Whether qemu's user mode runs us: it answers for the first of these names, not for the second."""
    try:
        return os.readlink("/proc/self/exe") != os.readlink("/proc/thread-self/exe")
    except OSError:
        return False


def _number(path: str) -> Optional[int]:
    try:
        return int(_first_line(path), 0)
    except ValueError:
        return None


def _most(paths: List[str]) -> Optional[int]:
    """The largest of the numbers in these files; None where there is none."""
    return max((number for number in map(_number, paths) if number is not None), default=None)


def _cpus() -> List[int]:
    """The processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _cpu_seconds(cpus: List[int]) -> Tuple[Optional[float], Optional[float]]:
    """Seconds since boot that these processors worked for anybody, stolen ones included; and the stolen ones."""
    names = {"cpu%d" % number for number in cpus}
    ticks, stolen, seen = 0, 0, False
    try:
        with open("/proc/stat", encoding="ascii", errors="replace") as stream:
            for line in stream:
                name, *rest = line.split() or [""]
                if name in names:
                    # user (guests included), nice, system, idle, iowait, irq, softirq, steal
                    figures = [int(field) for field in rest[:8]]
                    ticks += sum(figures) - sum(figures[3:5])
                    stolen += sum(figures[7:8])
                    seen = True
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None, None
    return (ticks / tick, stolen / tick) if seen else (None, None)


def _throttled() -> Optional[int]:
    """A Raspberry Pi's own flags (bit 0 under-voltage, 1 capped, 2 throttled, 3 hot; +16: since boot)."""
    try:
        said = subprocess.check_output(["vcgencmd", "get_throttled"], stderr=subprocess.DEVNULL, timeout=5)
        return int(said.decode("ascii", "replace").strip().rpartition("=")[2], 0)
    except (OSError, ValueError, subprocess.SubprocessError):
        pass
    try:  # the kernel prints it in hexadecimal without a prefix
        return int(_first_line("/sys/devices/platform/soc/soc:firmware/get_throttled"), 16)
    except ValueError:
        return None


def _state() -> Dict[str, Any]:
    """What may disturb a measurement, as it is now. What the device does not tell is None.

    `others_cpu_s`, `steal_s`: since boot, on the processors this process may use: of everybody else; of the hypervisor.
    """
    cpus = _cpus()
    folders = ["/sys/devices/system/cpu/cpu%d/cpufreq/" % number for number in cpus]
    # Before the thermal zones: where these are slow to read the processor clocks down meanwhile.
    frequency, most = (
        _most([folder + name for folder in folders]) for name in ("scaling_cur_freq", "cpuinfo_max_freq")
    )
    zones = "/sys/class/thermal/"
    names = os.listdir(zones) if os.path.isdir(zones) else []
    millidegrees = _most([zones + name + "/temp" for name in names if name.startswith("thermal_zone")])
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):
        load = None
    throttled = _throttled()
    busy, stolen = _cpu_seconds(cpus)
    own = time.process_time()
    return {
        "wall_s": time.time(),
        "mono_s": time.monotonic(),
        "temperature_c": None if millidegrees is None else millidegrees / 1000,
        "frequency_hz": None if frequency is None else frequency * 1000,
        "frequency_max_hz": None if most is None else most * 1000,
        "governor": _first_line(folders[0] + "scaling_governor") or None,
        "throttled": throttled,
        "load1": load,
        "others_cpu_s": None if busy is None else max(0.0, busy - own),
        "steal_s": stolen,
        "own_cpu_s": own,
        "cores": len(cpus),
        "memory_available_bytes": _status("MemAvailable") or None,
        "boot_id": _first_line("/proc/sys/kernel/random/boot_id") or None,
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


def _as_input(rows: Any, shape: Tuple[int, ...], dtype: str, scale: float = 0.0, zero: int = 0) -> Any:
    """A batch (B, ...) as the model takes it: in its shape (open axes are below 1), as its type.

    Not (3, 32, 32) as (32, 32, 3), which would only look right.
    """
    one, closed = rows[0], tuple(max(1, side) for side in shape)
    if _fits(rows.shape, shape):
        shaped = rows
    elif len(rows) == 1 and _fits(one.shape, shape):  # a model without an axis of batches
        shaped = one
    elif len(rows) == 1 and one.ndim != len(shape) - 1 and one.size == _size(closed):
        shaped = one.reshape(closed)
    else:
        fits = "an input of shape %s does not fit the model's %s"
        raise ProbeError("refused", fits % (one.shape if len(rows) == 1 else rows.shape, _written(shape)))
    return _as_type(shaped, dtype, scale, zero)


def _fits(given: Tuple[int, ...], shape: Tuple[int, ...]) -> bool:
    return len(given) == len(shape) and all(side in (-1, 0, new) for side, new in zip(shape, given))  # noqa: B905


def _as_type(values: Any, dtype: str, scale: float, zero: int) -> Any:
    """Real values as the model's type: quantised where it has a scale, otherwise unchanged or refused."""
    import numpy as np

    kind = np.dtype(dtype)
    if values.dtype == kind:
        return np.ascontiguousarray(values)
    if scale and kind.kind in "iu" and values.dtype.kind == "f":
        limits = np.iinfo(kind)
        return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(kind)
    with np.errstate(invalid="ignore", over="ignore"):
        made = np.ascontiguousarray(values, kind)
    # A float type may round; an infinity is a value that it cannot hold.
    if not (np.isfinite(made).all() if kind.kind == "f" else np.array_equal(made, values)):
        low, high = float(values.min()), float(values.max())
        raise ProbeError("refused", "values from %g to %g do not fit an input of %s" % (low, high, kind.name))
    return made


def _as_rows(value: Any, batch: int) -> Any:
    """What a model answers to a batch, one row an example (B, K): float32, int64 or strings."""
    import numpy as np

    if isinstance(value, list) and value and isinstance(value[0], dict):  # a map from class to probability per example
        value = [[each[key] for key in value[0]] for each in value]
    array = np.asarray(value)
    if array.dtype.kind == "O":
        array = array.astype(str)
    if array.dtype.kind not in "fiubU":
        raise ProbeError("refused", "an output of type %s is neither numbers nor strings" % array.dtype)
    if array.dtype.kind != "U":
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
    if batch > 1 and array.shape[:1] != (batch,):
        raise ProbeError("refused", "a batch of %d examples gives an output of shape %s" % (batch, array.shape))
    return array.reshape(batch, -1)


#: A model's input: its name, its axes (a size, or the name of one that is open, "" where it has none), its type.
_Declared = Tuple[str, Tuple[Union[int, str], ...], str]

#: Sizes that are tried for open axes: of images, windows of sound and texts.
_TRIED = (16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 416, 480, 512, 576, 640, 1024, 2048, 8000, 16000)
#: Seconds for all of them; open axes of different names at most.
_TRY_S, _TRIED_AXES = 15.0, 5
#: Types that numpy does not have: onnx's number, and the unsigned integer that holds the bits.
_BITS = {
    "bfloat16": (16, "uint16"),
    "float8e4m3fn": (17, "uint8"),
    "float8e4m3fnuz": (18, "uint8"),
    "float8e5m2": (19, "uint8"),
    "float8e5m2fnuz": (20, "uint8"),
    "uint4": (21, "uint8"),
    "int4": (22, "uint8"),
    "float4e2m1": (23, "uint8"),
}
_HALF_BYTES = ("uint4", "int4", "float4e2m1")


def _size(shape: Tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _written(axes: Any) -> str:
    return "x".join(str(side) for side in axes) or "scalar"


def _listed(declared: List[_Declared]) -> str:
    """The inputs for people, open axes by their names: `ids [batch, length], flag [?, 3], rate (one value)`."""
    shown = [
        name + (" [%s]" % ", ".join(str(axis) if axis != "" else "?" for axis in axes) if axes else " (one value)")
        for name, axes, _ in declared[:12]
    ]
    more = ["%d more" % (len(declared) - 12)] if len(declared) > 12 else []
    return "the inputs are " + ", ".join(shown + more) if shown else "it has no inputs"


def _sizes(
    declared: List[_Declared], given: Dict[str, Any], shared: Any, all_known: bool
) -> Tuple[Dict[str, Tuple[int, ...]], List[str]]:
    """A size for every axis of every input, and the names in `shared` that are none of the model's.

    `given` holds sizes by the name of an input, or of an axis. With `all_known` an open axis that is neither a first
    one nor given raises _OpenAxesError; otherwise it is 1.
    """
    inputs = {name: axes for name, axes, _ in declared}
    named = {axis for axes in inputs.values() for axis in axes if isinstance(axis, str) and axis}
    unused = [name for name in given if name not in inputs and not (name in named and len(given[name]) == 1)]
    for name in unused:
        if name not in shared:
            raise ProbeError("refused", "the model has no input %r; %s" % (name, _listed(declared)))
    axes_given = {name: int(size[0]) for name, size in given.items() if name not in inputs and name in named}
    sizes = {name: tuple(int(side) for side in given[name]) for name in inputs if name in given}
    for name, size in sizes.items():
        axes = inputs[name]
        # No axes are declared of a scalar, and of an input that takes any: the runtime knows which.
        if axes and (len(axes) != len(size) or any(isinstance(a, int) and a != s for a, s in zip(axes, size))):  # noqa: B905
            raise ProbeError("refused", "input %s cannot be %s; %s" % (name, _written(size), _listed(declared)))
        for axis, side in zip(axes, size):  # noqa: B905
            if isinstance(axis, str) and axis:
                axes_given.setdefault(axis, side)
    missing: Dict[Any, List[Tuple[str, int]]] = {}
    for name, axes, _ in declared:
        if name in sizes:
            continue
        chosen = []
        for index, axis in enumerate(axes):
            if isinstance(axis, str) and all_known and index and axis not in axes_given:
                missing.setdefault(axis or (name, index), []).append((name, index))
            chosen.append(axis if isinstance(axis, int) else axes_given.get(axis, 1))
        sizes[name] = tuple(chosen)
    if missing:
        places = [axis or "?" for axis in missing if isinstance(axis, str)]
        what = "axes of no fixed size" + (" (%s)" % ", ".join(places[:12]) if places else "")
        raise _OpenAxesError(
            "%s: %s" % (what, _listed(declared)),
            {name: list(size) for name, size in sizes.items()},
            list(missing.values()),
        )
    return sizes, unused


def _trials(error: _OpenAxesError) -> Iterator[Dict[str, List[int]]]:
    """Sizes worth trying: all open axes alike first, then some of them 1 (batches) or 3 (colours)."""
    kept = error.axes[:_TRIED_AXES]
    kinds = sorted(itertools.product("s13", repeat=len(kept)), key=lambda kind: len(kept) - kind.count("s"))
    for kind in kinds:
        for size in _TRIED if "s" in kind else (1,):
            sizes = {name: list(each) for name, each in error.sizes.items()}
            for index, places in enumerate(error.axes):
                for name, axis in places:
                    sizes[name][axis] = size if index >= len(kept) or kind[index] == "s" else int(kind[index])
            yield sizes


def _made_up(shape: Tuple[int, ...], dtype: str) -> Tuple[Any, str]:
    """Values, the same each time, and what they are: zeros for wider integers, which may be indices."""
    import numpy as np

    generator = np.random.RandomState(0)
    if dtype == "string":
        return np.full(shape, "", dtype=object), "empty"
    if dtype == "bfloat16":
        return _bfloat16(generator.random_sample(shape)), "random in [0, 1)"
    if dtype in _BITS:
        return np.zeros(shape, _BITS[dtype][1]), "0"
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return generator.random_sample(shape).astype(kind), "random in [0, 1)"
    if kind in (np.dtype(np.int8), np.dtype(np.uint8)):
        return generator.randint(0, 128, shape).astype(kind), "random in 0 to 127"
    if kind.kind == "S":
        return np.zeros(shape, "S1"), "empty"
    return np.zeros(shape, kind), "false" if kind.kind == "b" else "0"


def _bfloat16(values: Any) -> Any:
    """The bits of the nearest bfloat16 of each value."""
    import numpy as np

    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(np.asarray(values, np.float32)), np.uint16(0x7FC0), nearest)


def _from_text(name: str, text: str, shape: Tuple[int, ...], dtype: str) -> Any:
    """An input filled with one value. Raises ProbeError where its type has no such value."""
    import numpy as np

    if dtype == "string":
        return np.full(shape, text, dtype=object)
    if dtype in _BITS and dtype != "bfloat16":
        raise ProbeError("refused", "input %s is of %s: give its values as a file" % (name, dtype), _npy(name))
    kind = np.dtype("float32" if dtype == "bfloat16" else dtype)
    try:
        if kind.kind == "S":
            return np.full(shape, text.encode())
        if kind.kind == "b":
            value: Any = {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        elif kind.kind in "iu":
            value = int(text)
            if not np.iinfo(kind).min <= value <= np.iinfo(kind).max:
                raise ValueError
        else:
            value = float(text)
    except (ValueError, KeyError):
        wanted = {"b": "true or false", "i": "a whole number", "u": "a whole number"}.get(kind.kind, "a number")
        said = "input %s takes %s (%s), got %s" % (name, wanted, dtype.rstrip("_"), text[:80])
        raise ProbeError("refused", said) from None
    return _bfloat16(np.full(shape, value, kind)) if dtype == "bfloat16" else np.full(shape, value, kind)


def _npy(name: str) -> str:
    return "give --input %s=FILE.npy, an array that numpy saved" % name


def _from_array(name: str, array: Any, dtype: str) -> Any:
    """The values of a .npy file in the type that the input has. Raises ProbeError where some would change."""
    import numpy as np

    said = "input %s takes %s, the file holds %s" % (name, dtype.rstrip("_"), array.dtype)
    hint = "save it as %s: numpy.save(FILE, array.astype('%s'))" % ((dtype.rstrip("_"),) * 2)
    if dtype == "string":
        if array.dtype.kind not in "US":
            raise ProbeError("refused", said, "save an array of strings")
        return (np.char.decode(array) if array.dtype.kind == "S" else array).astype(object)
    if dtype in _BITS:
        bits = np.dtype(_BITS[dtype][1])
        if dtype == "bfloat16" and array.dtype.kind == "f":
            return _bfloat16(array)
        if array.dtype.kind != "V" or array.dtype.itemsize != bits.itemsize:
            raise ProbeError("refused", said, "save an array of that type of ml_dtypes")
        array = np.array(array, order="C").view(bits)
        return _packed(array) if dtype in _HALF_BYTES else array
    kind = np.dtype(dtype)
    if array.dtype != kind:
        whole = array.dtype.kind in "iub"
        fits = whole and kind.kind in "iu" and array.dtype.kind != "b"
        if fits and array.size:
            fits = np.iinfo(kind).min <= int(array.min()) and int(array.max()) <= np.iinfo(kind).max
        if not fits and not (kind.kind == "f" and (array.dtype.kind == "f" or whole)):
            raise ProbeError("refused", said, hint)
    return np.array(array, kind, order="C")


def _packed(array: Any) -> Any:
    """Values of four bits, one a byte, as onnxruntime reads them: two a byte, the rest of the bytes unused."""
    import numpy as np

    flat = np.append(array.reshape(-1) & 0xF, np.zeros(array.size % 2, np.uint8))
    packed = np.zeros(array.size, np.uint8)
    packed[: len(flat) // 2] = flat[0::2] | flat[1::2] << 4
    return packed.reshape(array.shape)


class _Inputs:
    """What a model is fed with: given, or made up. `sizes` by name; `feed` the arrays; `opened` as in answers."""

    def __init__(self, declared: List[_Declared], file: Dict[str, Any], values: Dict[str, Any]) -> None:
        known = {name for name, _, _ in declared}
        shared = file.get("shared") or ()
        for name in values:
            if name not in known and name not in shared:
                raise ProbeError("refused", "the model has no input %r; %s" % (name, _listed(declared)))
        shapes = dict(file.get("shapes") or {})
        types = {name: dtype for name, _, dtype in declared}
        for name, value in values.items():
            if name in known and not isinstance(value, str) and "(" not in types[name]:
                shapes[name] = value.shape
        plain = [each for each in declared if "(" not in each[2]]
        self.sizes, unused = _sizes(plain, shapes, shared, file.get("shapes") is not None)
        self.unused = sorted({*unused, *(name for name in values if name not in known)})
        self.feed: Dict[str, Any] = {}
        self.how: Dict[str, str] = {}
        for name, _, dtype in declared:
            if "(" in dtype:
                self.sizes[name] = ()
                self.feed[name], self.how[name] = _nested(name, values.get(name), dtype)
            elif name not in values:
                self.feed[name], self.how[name] = _made_up(self.sizes[name], dtype)
            else:
                value, self.how[name] = values[name], "given"
                text = isinstance(value, str)
                self.feed[name] = (
                    _from_text(name, value, self.sizes[name], dtype) if text else _from_array(name, value, dtype)
                )


def _nested(name: str, value: Any, dtype: str) -> Tuple[Any, str]:
    """A sequence (the first axis of an array runs over it) or an optional value of onnxruntime; others are refused."""
    inner = dtype
    if dtype.startswith("optional(") and value is None:
        return None, "nothing"
    if inner.startswith("optional("):
        inner = inner[len("optional(") : -1]
    sequence = inner.startswith("seq(")
    if sequence:
        inner = inner[len("seq(") : -1]
    element = _element(inner)
    if "(" in element or value is None or isinstance(value, str):
        hint = "" if "(" in element else _npy(name) + (": its first axis runs over the sequence" if sequence else "")
        said = "input %s is of type %s, for which no values are made up" % (name, dtype)
        raise ProbeError("refused", said, hint)
    array = _from_array(name, value, element)
    if not sequence:
        return array, "given"
    if not array.ndim:
        raise ProbeError("refused", "input %s is a sequence: its array needs an axis that runs over it" % name)
    return list(array) if array.ndim > 1 else [
        array[index : index + 1].reshape(()) for index in range(len(array))
    ], "given"


#: How onnxruntime gets inputs and gives outputs, the fastest first; see `binding` at the top.
_BINDINGS = ("kept", "renewed", "none")
#: Where onnxruntime's name of an element type is not numpy's.
_ORT_TYPES = {"float": "float32", "double": "float64", "bool": "bool_"}


def _element(kind: str) -> str:
    """The name of the type `tensor(float)`; of others, which hold a bracket, as onnxruntime writes it."""
    if not kind.startswith("tensor("):
        return kind
    name = kind[len("tensor(") : -1]
    return _ORT_TYPES.get(name, name)


class _Onnx:
    """A model open in onnxruntime. `lean`: in an arena that grows by exactly what is asked for (to read memory)."""

    _shared_arena = False

    def __init__(
        self,
        path: str,
        threads: int,
        file: Dict[str, Any],
        values: Dict[str, Any],
        lean: bool = False,
        trace: str = "",
        binding: str = "kept",
    ) -> None:
        import onnxruntime as ort

        if file.get("signature"):
            raise ProbeError("refused", "an ONNX model has no signatures", "leave out --signature")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        if lean:
            self._share_arena(ort)
            options.add_session_config_entry("session.use_env_allocators", "1")
        if trace:
            options.enable_profiling = True
            options.profile_file_prefix = trace
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._shrinking = ort.RunOptions()
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._binding = binding
        nodes = self._session.get_outputs()
        self._names = [node.name for node in nodes[:1]]
        self.outputs = [
            (node.name, tuple(axis if isinstance(axis, int) and axis > 0 else 1 for axis in axes), dtype)
            for node, axes, dtype in ((node, node.shape or (), _element(node.type)) for node in nodes)
        ]
        self.feed(file, values)

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

    def feed(self, file: Dict[str, Any], values: Dict[str, Any]) -> None:
        """Take these sizes and values."""
        declared: List[_Declared] = []
        for node in self._session.get_inputs():
            # An open axis without a name is None, one of an old file may be below 0.
            axes = tuple(
                (axis if axis >= 0 else "") if isinstance(axis, int) else axis or "" for axis in node.shape or ()
            )
            declared.append((node.name, axes, _element(node.type)))
        self._given = _Inputs(declared, file, values)
        self.inputs = [(name, self._given.sizes[name], dtype) for name, _, dtype in declared]
        self._feed = self._given.feed
        self._values: Dict[str, Any] = {}
        if any(dtype in _BITS for _, _, dtype in self.inputs):
            from onnxruntime import OrtValue

            for name, _, dtype in self.inputs:
                value = self._feed[name]
                self._values[name] = (
                    OrtValue.ortvalue_from_numpy_with_onnx_type(value, _BITS[dtype][0])
                    if dtype in _BITS
                    else OrtValue.ortvalue_from_numpy(value)
                )

    @property
    def opened(self) -> Dict[str, Any]:
        inputs = [[*each, self._given.how[each[0]]] for each in self.inputs]
        return {
            "inputs": inputs,
            "signature": "",
            "signatures": [],
            "binding": self._binding,
            "unused": self._given.unused,
        }

    def runner(self) -> Callable[[], Any]:
        if self._binding == "none":
            return self._run
        # Bound once: `run` hands names and arrays over each time, up to a sixth of what a small network takes.
        bound = self._session.io_binding()
        for name, value in self._feed.items():
            if name in self._values:
                bound.bind_ortvalue_input(name, self._values[name])
            else:
                bound.bind_cpu_input(name, value)
        for name in self._names:
            bound.bind_output(name)
        run = self._session.run_with_iobinding
        if self._binding == "kept":
            return lambda: run(bound)
        names, bind = self._names, bound.bind_output

        def renewed() -> None:
            for name in names:
                bind(name)
            run(bound)

        return renewed

    def _run(self, options: Any = None) -> Any:
        """One run that is handed its inputs and hands out its outputs."""
        if self._values:
            return self._session.run_with_ort_values(self._names, self._values, options)
        return self._session.run(self._names, self._feed, options)

    def settle(self) -> None:
        """Run until the memory held is what every later run needs: the first runs leave chunks that none uses again."""
        self.runner()()
        self.runner()()
        self._run(self._shrinking)
        self.runner()()

    def release(self) -> None:
        """Give the shared arena's chunks back, or the next model would find its memory already there."""
        self._run(self._shrinking)

    def operators(self, runs: int) -> List[Dict[str, Any]]:
        """Median seconds of each node, in the order they run; the file that onnxruntime writes is removed."""
        for _ in range(_REWARM_RUNS + runs):
            self.runner()()
        path = self._session.end_profiling()
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                events = json.load(stream)
        finally:
            os.remove(path)
        return _node_times(events, _REWARM_RUNS)

    def ports(self) -> Dict[str, Any]:
        """Inputs and outputs as the file declares them; they have no scales of their own."""
        both = {"inputs": self._session.get_inputs(), "outputs": self._session.get_outputs()}
        return {key: [_declared(node) for node in nodes] for key, nodes in both.items()}

    def predict(self, rows: Any, name: str, output: str, keep: bool) -> List[Tuple[str, Any]]:
        """What a batch gives: the output of that name, or each. It has no variables to `keep`."""
        del keep
        declared = {node.name: node for node in self._session.get_inputs()}
        given = [node.name for node in self._session.get_outputs()]
        names = [_named(output, given, "output")] if output else given
        feed = dict(self._feed)
        for own, values in _by_input(rows, name, declared):
            feed[own] = _as_input(values, *_declared(declared[own])[1:])
        return list(zip(names, self._session.run(names, feed)))  # noqa: B905


def _declared(node: Any) -> Tuple[str, Tuple[int, ...], str, float, int]:
    """Name, shape (-1 where it is open), type, no scale and no zero point of one of onnxruntime's inputs or outputs."""
    shape = tuple(side if isinstance(side, int) and side > 0 else -1 for side in node.shape or ())
    kind = node.type[len("tensor(") : -1] if node.type.startswith("tensor(") else node.type
    return node.name, shape, _ORT_TYPES.get(kind, kind), 0.0, 0


def _node_times(events: List[Dict[str, Any]], skip: int) -> List[Dict[str, Any]]:
    """Per node the median over runs of its seconds in a run; events are in microseconds, the first runs left out.

    A node in the body of a loop runs several times in a run; the loop's own time holds that of its body.
    """
    spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event.get("name") == "model_run")
    starts = [start for start, _ in spans[skip:]]
    spent: Dict[str, List[float]] = {}
    types: Dict[str, str] = {}
    for event in sorted(events, key=lambda event: event.get("ts", 0)):
        name = event.get("name", "")
        run = bisect.bisect_right(starts, event.get("ts", 0)) - 1
        if event.get("cat") == "Node" and name.endswith("_kernel_time") and run >= 0:
            name = name[: -len("_kernel_time")]
            types[name] = str(event.get("args", {}).get("op_name", ""))
            spent.setdefault(name, [0.0] * len(starts))[run] += event["dur"] / 1e6
    return [{"name": name, "type": types[name], "seconds": _median(times)} for name, times in spent.items()]


class _LiteRt:
    """A model open in LiteRT, or in its predecessor tflite_runtime where only that exists."""

    def __init__(
        self,
        path: str,
        threads: int,
        file: Dict[str, Any],
        values: Dict[str, Any],
        lean: bool = False,
        trace: str = "",
        binding: str = "",
    ) -> None:
        # It has no arena to tune: tensors and packed weights are allocated once, at their size.
        del lean, trace, binding
        self._file = _litert().Interpreter(model_path=path, num_threads=threads)
        self._signature = str(file.get("signature") or "")
        self._interpreter = _Signature(self._file, self._signature) if self._signature else self._file
        self.feed(file, values)

    def feed(self, file: Dict[str, Any], values: Dict[str, Any]) -> None:
        """Take these sizes and values."""
        import numpy as np

        self._take = self._interpreter.get_input_details()
        declared: List[_Declared] = [
            (
                each["name"],
                tuple("" if side < 0 else int(side) for side in each["shape_signature"]),
                np.dtype(each["dtype"]).name if np.dtype(each["dtype"]).kind not in "SO" else "bytes_",
            )
            for each in self._take
        ]
        self._given = _Inputs(declared, *self._renamed(declared, file, values))
        for detail in self._take:
            size = self._given.sizes[detail["name"]]
            if size != tuple(detail["shape_signature"]) or size != tuple(detail["shape"]):
                self._interpreter.resize_tensor_input(detail["index"], list(size))
        self._interpreter.allocate_tensors()
        self._take = self._interpreter.get_input_details()
        self._give = self._interpreter.get_output_details()
        self.inputs = [self._spec(detail) for detail in self._take]
        self.outputs = [self._spec(detail) for detail in self._give]
        for detail in self._take:
            self._interpreter.set_tensor(detail["index"], self._given.feed[detail["name"]])
        self._given.feed.clear()  # the interpreter has its own copy, and ours would count as the model's memory

    def _renamed(
        self, declared: List[_Declared], file: Dict[str, Any], values: Dict[str, Any]
    ) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        """Sizes and values by the names of tensors, where they were given by the names that the signature has."""
        known = {name for name, _, _ in declared}
        if self._signature or not {*(file.get("shapes") or {}), *values} - known:
            return file, values
        tensor: Dict[str, str] = {}
        for signature in self._own_signatures():
            for name, detail in self._file.get_signature_runner(signature).get_input_details().items():
                tensor.setdefault(name, detail["name"])
        names = {name: found for name, found in tensor.items() if name not in known and found in known}
        shapes = file.get("shapes")
        if shapes is not None:
            shapes = {names.get(name, name): size for name, size in shapes.items()}
        return dict(file, shapes=shapes), {names.get(name, name): value for name, value in values.items()}

    def _own_signatures(self) -> List[str]:
        """The signatures that run what runs without one, the file's first subgraph."""
        own = []
        for name in self._file.get_signature_list():
            inputs = self._file.get_signature_runner(name)
            if getattr(inputs, "_subgraph_index", 0) == 0:
                own.append(name)
        return own

    @staticmethod
    def _spec(detail: Dict[str, Any]) -> Tuple[str, Tuple[int, ...], str]:
        import numpy as np

        return detail["name"], tuple(int(side) for side in detail["shape"]), np.dtype(detail["dtype"]).name

    @property
    def opened(self) -> Dict[str, Any]:
        inputs = [[*each, self._given.how[each[0]]] for each in self.inputs]
        signatures = sorted(self._file.get_signature_list())
        chosen = self._signature or next(iter(self._own_signatures()), "")
        return {
            "inputs": inputs,
            "signature": chosen,
            "signatures": signatures,
            "binding": "",
            "unused": self._given.unused,
        }

    def runner(self) -> Callable[[], Any]:
        invoke: Callable[[], Any] = self._interpreter.invoke
        return invoke

    def settle(self) -> None:
        for _ in range(3):
            self._interpreter.invoke()

    def release(self) -> None:
        """Nothing outlives the interpreter."""

    def operators(self, runs: int) -> None:
        """Its Python interface gives no times per operator."""

    def ports(self) -> Dict[str, Any]:
        """Inputs and outputs as the file declares them, with scale and zero point of quantised ones."""
        return {key: [_port(each) for each in both] for key, both in (("inputs", self._take), ("outputs", self._give))}

    def predict(self, rows: Any, name: str, output: str, keep: bool) -> List[Tuple[str, Any]]:
        """What a batch gives, in real values: the output of that name, or each. `keep`: variables stay as they are."""
        import numpy as np

        takes, gives = ({each["name"]: each for each in details} for details in (self._take, self._give))
        fed = [(takes[own], _as_input(each, *_port(takes[own])[1:])) for own, each in _by_input(rows, name, takes)]
        for take, value in fed:
            if value.shape != tuple(take["shape"]):
                self._resize(take["index"], value.shape)
        if not keep:
            self._interpreter.reset_all_variables()
        for take, value in fed:
            self._interpreter.set_tensor(take["index"], value)
        self._interpreter.invoke()
        answers = []
        for give in [gives[_named(output, gives, "output")]] if output else self._give:
            answer = self._interpreter.get_tensor(give["index"])
            scale, zero = give["quantization"]
            if scale and answer.dtype.kind in "iu":
                answer = (answer.astype(np.float32) - zero) * np.float32(scale)
            answers.append((give["name"], answer))
        return answers

    def _resize(self, index: int, shape: Tuple[int, ...]) -> None:
        """Give an input with open axes another size; the other inputs keep their values."""
        values = [(each["index"], self._interpreter.get_tensor(each["index"])) for each in self._take]
        self._interpreter.resize_tensor_input(index, list(shape))
        self._interpreter.allocate_tensors()
        for other, value in values:
            if other != index:
                self._interpreter.set_tensor(other, value)
        sizes = {each["index"]: each["shape"] for each in self._interpreter.get_input_details()}
        for each in self._take:
            each["shape"] = sizes[each["index"]]


def _port(detail: Dict[str, Any]) -> Tuple[str, Tuple[int, ...], str, float, int]:
    """Name, shape (-1 where it is open), type, scale (0: none) and zero point of one of LiteRT's inputs or outputs."""
    import numpy as np

    scale, zero = detail["quantization"]
    shape = tuple(int(side) for side in detail["shape_signature"])
    return detail["name"], shape, np.dtype(detail["dtype"]).name, float(scale), int(zero)


def _named(name: str, known: Any, what: str) -> str:
    """That name, or the first of the known ones where none is given."""
    if name and name not in known:
        raise ProbeError("refused", "the model has no %s %r; it has %s" % (what, name, ", ".join(known)))
    return name or next(iter(known))


def _by_input(rows: Any, name: str, known: Any) -> List[Tuple[str, Any]]:
    """What each input is given: the field of its name, or all of it the input `name` (none: the first)."""
    if rows.dtype.names is None:
        return [(_named(name, known, "input"), rows)]
    return [(_named(field, known, "input"), rows[field]) for field in rows.dtype.names]


class _Signature:
    """One signature of a .tflite file, with the methods of an Interpreter; inputs and outputs bear its names.

    LiteRT's own SignatureRunner sets inputs, allocates and fetches outputs in each call, which would be timed too. This
    invokes the signature's subgraph as `Interpreter.invoke` does the first one.
    """

    def __init__(self, interpreter: Any, name: str) -> None:
        known = sorted(interpreter.get_signature_list())
        if name not in known:
            has = "it has " + ", ".join(known) if known else "it has none"
            raise ProbeError("refused", "the model has no signature %r; %s" % (name, has))
        self._signature = interpreter.get_signature_runner(name)
        self._whole = interpreter
        try:
            self._runtime, self._graph = interpreter._interpreter, self._signature._subgraph_index
        except AttributeError as error:
            said = "this version of the runtime cannot time a signature by itself"
            raise ProbeError("refused", said, "install a newer ai-edge-litert on the device") from error

    def get_input_details(self) -> List[Dict[str, Any]]:
        return [dict(detail, name=name) for name, detail in self._signature.get_input_details().items()]

    def get_output_details(self) -> List[Dict[str, Any]]:
        return [dict(detail, name=name) for name, detail in self._signature.get_output_details().items()]

    def resize_tensor_input(self, index: int, size: List[int]) -> None:
        import numpy as np

        self._runtime.ResizeInputTensor(index, np.array(size, np.int32), False, self._graph)

    def allocate_tensors(self) -> None:
        self._runtime.AllocateTensors(self._graph)

    def set_tensor(self, index: int, value: Any) -> None:
        self._runtime.SetTensor(index, value, self._graph)

    def get_tensor(self, index: int) -> Any:
        return self._runtime.GetTensor(index, self._graph)

    def invoke(self) -> None:
        self._runtime.Invoke(self._graph)

    def reset_all_variables(self) -> None:
        self._whole.reset_all_variables()


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


def _check(path: str, sha256: str) -> None:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise ProbeError("lost", "the file is not readable on the device: " + str(error)) from error
    if digest.hexdigest() != sha256:
        raise ProbeError("lost", "the file on the device is not the one that was sent (SHA-256 differs)")


#: What was checked already: size, time of change and number of the file, by path.
_KNOWN_FILES: Dict[str, Tuple[int, int, int]] = {}


def _check_once(path: str, sha256: str) -> None:
    """As `_check`, but a file that has not changed since is not read again: weights may hold gigabytes."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise ProbeError("lost", "the file is not readable on the device: " + str(error)) from error
    mark = (status.st_size, status.st_mtime_ns, status.st_ino)
    if _KNOWN_FILES.get(path) != mark:
        _check(path, sha256)
        _KNOWN_FILES[path] = mark


def _placed(path: str, sha256: str, beside: Dict[str, Dict[str, str]]) -> str:
    """The model's path in a folder where the files that hold its weights lie as it names them.

    Files come to the device under the names of their hashes. They are linked and not copied where the file system can:
    the runtime maps them into memory.
    """
    key = hashlib.sha256(json.dumps([sha256, beside], sort_keys=True).encode()).hexdigest()
    folder = os.path.join(os.getcwd(), "beside-" + key[:32])
    model = os.path.basename(path)
    for location, there in [(model, {"path": path, "sha256": sha256}), *sorted(beside.items())]:
        target = os.path.normpath(os.path.join(folder, location))
        if os.path.isabs(location) or not target.startswith(folder + os.sep):
            raise ProbeError("refused", "the model's weights would lie outside its folder: %r" % location)
        if not os.path.exists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            temporary = "%s.%d" % (target, os.getpid())
            try:
                os.link(there["path"], temporary)
            except OSError:
                shutil.copyfile(there["path"], temporary)
            os.replace(temporary, target)
        _check_once(target, there["sha256"])
    return os.path.join(folder, model)


def _values(file: Dict[str, Any]) -> Dict[str, Any]:
    """What was given of the inputs: a text, or the array of a file. Raises ProbeError."""
    import numpy as np

    found: Dict[str, Any] = {}
    for name, value in (file.get("values") or {}).items():
        if "text" in value:
            found[name] = str(value["text"])
            continue
        _check_once(value["path"], value["sha256"])
        try:
            found[name] = np.load(value["path"], allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ProbeError(
                "refused", "the values of input %s cannot be read: %s" % (name, _one_line(error))
            ) from error
    return found


def _median(values: List[Any]) -> float:
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


def _warm_up(run: Callable[[], Any], least_runs: int, least_s: float, most_s: float) -> List[int]:
    """At least so many runs and seconds, then on (at most to three times that) until two halves agree in 3 %.

    After `most_s` it ends, but not before the second run.
    """
    times: List[int] = []
    last = 0.0
    begin = time.perf_counter()
    for half in range(6):
        block: List[int] = []
        start = time.perf_counter()
        while len(block) * 2 < least_runs or (time.perf_counter() - start) * 2 < least_s:
            block += _block(run, 1)
            if time.perf_counter() - begin > most_s:
                break
        times += block
        middle = _median(block)
        if half and (abs(middle - last) <= 0.03 * last or time.perf_counter() - begin > most_s):
            break
        last = middle
    return times


def _timed(run: Callable[[], Any], least_runs: int, least_s: float, most_s: float) -> Tuple[List[int], int]:
    """One run after the other, at least so many and so long, but not past `most_s`: the newest times, and the count."""
    clock, times = time.perf_counter_ns, deque(maxlen=_MAX_KEPT)  # type: Any, Any
    begin = now = clock()
    count = 0
    while (count < least_runs or now - begin < least_s * 1e9) and (not count or now - begin < most_s * 1e9):
        start = clock()
        run()
        now = clock()
        times.append(now - start)
        count += 1
    return list(times), count


def _quietly(work: Callable[..., Any], *arguments: Any) -> Any:
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
        #: Of the runtime, with its version.
        self.name = "the runtime"
        self.threads = 1
        self.models: Dict[str, Any] = {}
        self.files: Dict[str, Dict[str, Any]] = {}
        self.binding = _BINDINGS[0]

    def _open(self, file: Dict[str, Any], **how: Any) -> Any:
        return self._load(self._checked(file), file, _values(file), **how)

    def _checked(self, file: Dict[str, Any]) -> str:
        """Where the model lies, and what it needs beside it; its hash is looked at."""
        if self.runtime is None:
            raise ProbeError("crashed", "no hello yet: the runtime is not chosen")
        _check(file["path"], file["sha256"])
        return _placed(file["path"], file["sha256"], file["beside"]) if file.get("beside") else str(file["path"])

    def _load(self, path: str, file: Dict[str, Any], values: Dict[str, Any], **how: Any) -> Any:
        try:
            return self.runtime(path, self.threads, file, values, binding=self.binding, **how)
        except _OpenAxesError as error:
            raise ProbeError("refused", str(error), self._proposal(path, file, values, error)) from error
        except ProbeError:
            raise
        except Exception as error:
            said = _one_line(error, os.path.dirname(path))
            raise ProbeError("refused", "%s cannot open the model: %s" % (self.name, said)) from error

    @contextmanager
    def _running(self) -> Iterator[None]:
        """What goes wrong in here is the model's own fault, said as a refusal."""
        try:
            yield
        except (ProbeError, _BindingError):
            raise
        except Exception as error:
            if self.runtime is _Onnx and self.binding != _BINDINGS[-1]:
                raise _BindingError(_one_line(error)) from error
            raise ProbeError("refused", "%s cannot run the model: %s" % (self.name, _one_line(error))) from error

    def _proposal(self, path: str, file: Dict[str, Any], values: Dict[str, Any], error: _OpenAxesError) -> str:
        """What to type where sizes are missing: the first that are tried and run."""
        sizes, failed = _first_that_runs(self.runtime, path, file, values, error)
        trial = sizes or next(_trials(error))
        given = file.get("shapes") or {}
        asked = [name for name in trial if any(place[0] == name for places in error.axes for place in places)]
        options = [
            "--shape " + shlex.quote("%s%s=%s" % (file.get("prefix", ""), name, _written(trial[name])))
            for name in asked
            if name not in given
        ]
        if sizes:
            return "these sizes run (yours may be others): type " + " ".join(options)
        return "give them, like %s (no sizes that were tried run: %s)" % (" ".join(options), failed)

    def escalating(self, work: Callable[..., Dict[str, Any]]) -> Callable[..., Dict[str, Any]]:
        """`work`, done again with a looser binding where a run failed: all models of a process are run alike."""

        def done(**fields: Any) -> Dict[str, Any]:
            while True:
                try:
                    return work(**fields)
                except _BindingError:
                    self.binding = _BINDINGS[_BINDINGS.index(self.binding) + 1]

        return done

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
        self.runtime, self.threads, self.name = kinds[runtime], threads, package + " " + version
        self.binding = _BINDINGS[0]
        for model in warm:
            self.escalating(self.memory)(**model)
        gc.collect()
        gc.freeze()  # what was imported stays, and need not be looked through before every block
        facts = dict(_facts(), runtime=package, runtime_version=version, numpy=np.__version__, threads=threads)
        return {"facts": facts, "ops": sorted(_ops(self))}

    def state(self) -> Dict[str, Any]:
        """What may disturb a measurement."""
        return {"state": _state()}

    def _first(self, file: Dict[str, Any], **how: Any) -> Tuple[Any, float, float]:
        """A model loaded and run once, and the seconds of both. Loading is the runtime's alone, without our hash."""
        path, values = self._checked(file), _values(file)
        gc.collect()
        start = time.perf_counter()
        model = self._load(path, file, values, **how)
        loaded = time.perf_counter()
        with self._running():
            model.runner()()
        return model, loaded - start, time.perf_counter() - loaded

    def load(self, id: str, run: bool = True, **file: Any) -> Dict[str, Any]:
        """Open a model and run it once, or only open it: then there are no seconds."""
        model, load_s, first_s = self._first(file) if run else (self._open(file), None, None)
        self.models[id], self.files[id] = model, file
        told = {"inputs": model.inputs, "outputs": model.outputs, "ports": model.ports(), "opened": model.opened}
        return dict(told, load_s=load_s, first_s=first_s)

    def unload(self, id: str) -> Dict[str, Any]:
        """Close a model."""
        self.models.pop(id, None)
        self.files.pop(id, None)
        gc.collect()
        return {}

    def memory(self, **file: Any) -> Dict[str, Any]:
        """Heap the model holds while it runs; buffers that only the loading needs are not counted."""
        memory = _Memory()
        model = self._open(file, lean=True)
        memory.read()
        with self._running():
            model.settle()
            memory.read()
            model.release()
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
        a: Dict[str, Any],
        b: Optional[Dict[str, Any]],
        rounds: int,
        round_s: float,
        min_runs: int,
        warmup_runs: int,
        warmup_s: float,
        most_s: float,
    ) -> Dict[str, Any]:
        """Time `a` and `b` in turns. A round holds two blocks of each, `a` first, then `b` first; a sample is the mean.

        After `most_s` no further round begins, but three there are; slow models get fewer runs in each.

        Both are loaded anew for every block, in the block's order: where the weights come to lie in memory, and which
        were laid there first, moves small models by 5 to 10 %, and a layout that lasted would move every sample of this
        process the same way.
        """
        before, begin = _state(), time.perf_counter()
        racers = {"a": a} if b is None else {"a": a, "b": b}
        answer: Dict[str, Any] = {"samples_b": [], "warmups_b": []}
        runs: Dict[str, int] = {}
        rewarm: Dict[str, int] = {}
        for name, file in racers.items():
            answer.update({"samples_" + name: [], "load_s_" + name: [], "first_s_" + name: []})
            model = self._open(file)
            with self._running():
                times = _quietly(_warm_up, model.runner(), max(1, warmup_runs), warmup_s, most_s / 8)
            answer["opened_" + name] = model.opened
            answer["warmups_" + name] = [nanoseconds / 1e9 for nanoseconds in times[:_MAX_WARMUPS]]
            steady = max(1.0, _median(times[len(times) // 2 :]))
            per_round = max(2, min_runs, int(round_s * 1e9 / steady) + 1)
            affordable = int(most_s * 1e9 / steady / (4 * max(1, rounds)))
            runs[name] = max(1, min((per_round + 1) // 2, affordable, _MAX_RUNS))
            rewarm[name] = _REWARM_RUNS if steady < _SLOW_NS else 0
            del model
        for done in range(min(rounds, _MAX_ROUNDS)):
            if done >= _LEAST_ROUNDS and time.perf_counter() - begin > most_s:
                break
            medians: Dict[str, List[float]] = {name: [] for name in racers}
            for order in (sorted(racers), sorted(racers, reverse=True)):
                models = {}
                for name in order:
                    models[name], load_s, first_s = self._first(racers[name])
                    answer["load_s_" + name].append(load_s)
                    answer["first_s_" + name].append(first_s)
                for name in order:
                    with self._running():
                        times = _quietly(_block, models[name].runner(), runs[name] + rewarm[name])[rewarm[name] :]
                    medians[name].append(_median(times) / 1e9)
                models.clear()
            for name, values in medians.items():
                answer["samples_" + name].append(sum(values) / len(values))
        return dict(answer, runs=runs, states=[before, _state()])

    def single(
        self, *, warmup_runs: int, warmup_s: float, min_runs: int, min_s: float, max_s: float, **file: Any
    ) -> Dict[str, Any]:
        """One query after the other: every run's time."""
        before = _state()
        model, load_s, first_s = self._first(file)
        with self._running():
            warmups = _quietly(_warm_up, model.runner(), max(1, warmup_runs), warmup_s, max_s / 4)
            times, count = _quietly(_timed, model.runner(), min(max(1, min_runs), _MAX_RUNS), min_s, max_s)
        return {
            "runs_s": [nanoseconds / 1e9 for nanoseconds in times],
            "count": count,
            "warmups_s": [nanoseconds / 1e9 for nanoseconds in warmups[:_MAX_WARMUPS]],
            "load_s": load_s,
            "first_s": first_s,
            "opened": model.opened,
            "states": [before, _state()],
        }

    def throughput(self, *, streams: int, seconds: float, **file: Any) -> Dict[str, Any]:
        """Inferences of several models at once, each in a thread of its own: runtimes let go of Python's lock."""
        models = [self._first(file)[0] for _ in range(min(max(1, streams), _MAX_STREAMS))]
        counts, ends = [0] * len(models), [0.0] * len(models)
        errors: List[BaseException] = []
        begin = threading.Event()

        def stream(index: int) -> None:
            run, count = models[index].runner(), 0
            begin.wait()
            stop = start + seconds
            try:
                while time.perf_counter() < stop:
                    run()
                    count += 1
            except Exception as error:
                errors.append(error)
            counts[index], ends[index] = count, time.perf_counter()

        threads = [threading.Thread(target=stream, args=(index,), daemon=True) for index in range(len(models))]
        for thread in threads:
            thread.start()
        start = time.perf_counter()
        begin.set()
        for thread in threads:
            thread.join()
        if errors:
            with self._running():
                raise errors[0]
        return {"inferences": sum(counts), "seconds": max(ends) - start, "per_stream": counts}

    def operators(self, *, runs: int, scratch: str, **file: Any) -> Dict[str, Any]:
        """Seconds of every operator, where the runtime tells them."""
        model = self._first(file, trace=scratch)[0]
        with self._running():
            times = model.operators(min(max(1, runs), 1000))
        why = "" if times else "LiteRT's Python interface gives no times per operator"
        return {"operators": times, "why": why}

    def predict(self, id: str, inputs: str, outputs: str, **how: Any) -> Dict[str, Any]:
        """Examples (N, ...) one batch at a time; writes one output (N, K): float32, int64 or strings."""
        import numpy as np

        self._model(id)
        examples = _Examples(inputs, **how)
        start, rows = time.perf_counter(), []
        for batch, count in examples.batches():
            model = self._fresh(id, examples)
            with self._running():
                answer = model.predict(batch, examples.input, examples.output, examples.keep)[0][1]
            rows.append(_as_rows(answer, len(batch))[:count])
        seconds = time.perf_counter() - start
        with open(outputs, "wb") as stream:
            np.save(stream, np.concatenate(rows) if rows else np.zeros((0, 0), np.float32), allow_pickle=False)
        return {"count": sum(map(len, rows)), "seconds": seconds}

    def outputs(self, id: str, inputs: str, **how: Any) -> Dict[str, Any]:
        """Each output of the first batch: its name, kind (numpy's letter, or "map"), shape, and a map's keys."""
        self._model(id)
        examples = _Examples(inputs, **how)
        batch, _ = next(examples.batches())
        start = time.perf_counter()
        model = self._fresh(id, examples)
        with self._running():
            given = model.predict(batch, examples.input, "", examples.keep)
        return {"outputs": [_told(*each) for each in given], "seconds": time.perf_counter() - start}

    def _fresh(self, id: str, examples: "_Examples") -> Any:
        """The model; opened anew where its variables are of the kind that the runtime does not reset."""
        if examples.reopen:
            self.models[id] = None  # first: two at once may be more than the device has memory for
            self.models[id] = self._open(self.files[id])
        return self._model(id)


def _told(name: str, value: Any) -> Tuple[str, str, List[int], List[str]]:
    """One output as `Probe.outputs` tells it."""
    import numpy as np

    if isinstance(value, list) and value and isinstance(value[0], dict):
        return name, "map", [len(value), len(value[0])], [str(key)[:100] for key in list(value[0])[:2000]]
    array = np.asarray(value)
    kind = array.dtype.kind if array.dtype.kind in "fiub" else "U" if array.dtype.kind in "OU" else "?"
    return name, kind, list(array.shape), []


class _Examples:
    """Examples of a .npy file (N, ...) from `start` to `stop`, in batches: the last is filled with its last example.

    Records (N,) hold several inputs, a field each that bears its name. Otherwise `input` is the name of the one that is
    fed; it and `output` may be empty for the first. `keep` leaves variables as the batch before left them, `reopen`
    opens the model anew for each batch.
    """

    def __init__(
        self,
        path: str,
        input: str = "",
        output: str = "",
        start: int = 0,
        stop: Optional[int] = None,
        batch: int = 1,
        keep: bool = False,
        reopen: bool = False,
    ) -> None:
        import numpy as np

        self._examples = np.load(path, mmap_mode="r", allow_pickle=False)[start:stop]
        self._batch = max(1, batch)
        self.input, self.output, self.keep, self.reopen = input, output, keep, reopen

    def batches(self) -> Any:
        """Each batch (B, ...), and how many of it are not filling."""
        import numpy as np

        for first in range(0, len(self._examples), self._batch):
            part = np.array(self._examples[first : first + self._batch])
            filling = np.repeat(part[-1:], self._batch - len(part), axis=0)
            yield np.concatenate([part, filling]), len(part)


class _Counter:
    """Instructions of this process, which an emulator puts into a shared file whenever getppid is called."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as stream:
            self._count = memoryview(mmap.mmap(stream.fileno(), 8)).cast("Q")

    def now(self) -> int:
        os.getppid()
        return self._count[0]

    def each(self, run: Callable[[], Any], runs: int) -> List[int]:
        """Instructions of each of `runs` runs, without those of asking."""
        now, counts = self.now, [0] * runs
        for index in range(runs):
            start = now()
            between = now()
            run()
            counts[index] = now() - between - (between - start)
        return counts


class CountingProbe(Probe):
    """A probe on an emulated processor: instructions take the place of seconds, and nothing depends on time.

    A model is measured in a forked process that starts where `hello` ended. So its figures are the same each time,
    whatever was measured before, and one reading is enough.
    """

    def __init__(self, counter: _Counter) -> None:
        super().__init__()
        self._counter = counter
        self._forks: Optional[_Forks] = None
        self._known: Dict[str, Dict[str, Any]] = {}

    def hello(self, runtime: str, threads: int, warm: List[Dict[str, Any]]) -> Dict[str, Any]:
        """As elsewhere, but of one thread."""
        if threads != 1:
            raise ProbeError("refused", "instructions can only be counted with one thread: use --threads 1")
        answer = super().hello(runtime, threads, [])
        for model in warm:
            # Opened once for nothing. An emulator translates code when it first runs, so that a first opening may take
            # over two seconds, and onnxruntime's first run later than that after opening leaves another heap.
            self._open(model, lean=True)
            self.escalating(self._memory)(file=model)
        gc.collect()
        self._forks, self._known = _Forks({"memory": self._memory_alone, "count": self._runs_alone}), {}
        answer["facts"].update(unit="instructions", cores=os.cpu_count())
        return dict(answer, ops=[op for op in answer["ops"] if op not in ("single", "throughput", "operators")])

    def memory(self, **file: Any) -> Dict[str, Any]:
        """As elsewhere."""
        return self._measured("memory", file)

    def race(self, *, a: Dict[str, Any], b: Optional[Dict[str, Any]], **_: Any) -> Dict[str, Any]:
        """One round of one sample, the median of the runs: more would be the same."""
        answer: Dict[str, Any] = {}
        files = [file for file in (a, b) if file is not None]
        # Each in a process of its own, and yet both alike: with the loosest binding that one of them needs.
        while len({self._measured("count", file)["opened"]["binding"] for file in files}) > 1:
            self.binding = _BINDINGS[_BINDINGS.index(self.binding) + 1]
        for name, file in (("a", a), ("b", b)):
            runs = self._measured("count", file) if file is not None else {"warmups": [], "kept": [], "opened": None}
            answer["opened_" + name] = runs["opened"]
            kept = sorted(runs["kept"])
            answer.update({"warmups_" + name: runs["warmups"], "samples_" + name: kept[len(kept) // 2 :][:1]})
            answer.update({"load_s_" + name: [], "first_s_" + name: []})
        return answer

    def _timeless(self, **_: Any) -> Dict[str, Any]:
        raise ProbeError("refused", "an emulated processor counts instructions: it has no times")

    single = throughput = operators = _timeless

    def _measured(self, what: str, file: Dict[str, Any]) -> Dict[str, Any]:
        if self._forks is None:
            raise ProbeError("crashed", "no hello yet: the runtime is not chosen")
        wanted = dict(file, binding=self.binding)
        key = json.dumps([what, wanted], sort_keys=True)
        if key not in self._known:
            self._known[key] = self._forks.ask(what, wanted)
        return self._known[key]

    def _memory_alone(self, file: Dict[str, Any]) -> Dict[str, Any]:
        self.binding = file["binding"]
        return self.escalating(self._memory)(file=file)

    def _runs_alone(self, file: Dict[str, Any]) -> Dict[str, Any]:
        self.binding = file["binding"]
        return self.escalating(self._runs)(file=file)

    def _memory(self, file: Dict[str, Any]) -> Dict[str, Any]:
        """As `Probe.memory`, in the fewest runs: an emulated one takes long."""
        memory = _Memory()
        model = self._open(file, lean=True)
        memory.read()
        with self._running():
            model.release()
            model.runner()()
            memory.read()
            model.release()
        return {"bytes": memory.highest, "method": memory.method}

    def _runs(self, file: Dict[str, Any]) -> Dict[str, Any]:
        """Instructions of each run; the first half warms up. A large model, whose runs hardly differ, has only two."""
        model = self._open(file)
        with self._running():
            run = model.runner()
            counts = _quietly(self._counter.each, run, 1)
            counts += _quietly(self._counter.each, run, max(1, min(9, _COUNTED // max(1, counts[0]))))
        half = len(counts) // 2
        return {"warmups": counts[:half], "kept": counts[half:], "opened": model.opened}


class _Forks:
    """A process that stays as it was made, and forks another one for each piece of work."""

    def __init__(self, works: Dict[str, Callable[[Dict[str, Any]], Dict[str, Any]]]) -> None:
        takes, requests = os.pipe()
        answers, gives = os.pipe()
        if os.fork() == 0:
            try:
                _close_all_but(1, 2, takes, gives)  # not stdout, for whose end the other side waits
                _fork_for_each(works, takes, gives)
            finally:
                os._exit(1)
        os.close(takes)
        os.close(gives)
        self._requests, self._answers = os.fdopen(requests, "wb"), os.fdopen(answers, "rb")
        self._asked = 0

    def ask(self, what: str, file: Dict[str, Any]) -> Dict[str, Any]:
        """The answer of one of the `works`. Raises ProbeError, also where its process does not come to its end."""
        try:
            # Of one length always: nothing may differ from request to request. One that died leaves an answer over.
            self._asked += 1
            number = "%09d" % self._asked
            self._requests.write(json.dumps([number, what, file]).encode("ascii") + b"\n")
            self._requests.flush()
            answer: Dict[str, Any] = {"number": ""}
            while answer.get("number", number) != number:
                answer = json.loads(self._answers.readline())
        except (OSError, ValueError) as error:
            raise ProbeError("crashed", "the process that measures has ended: " + _one_line(error)) from error
        if not answer["ok"]:
            raise ProbeError(answer["kind"], answer["error"], answer.get("hint", ""))
        del answer["number"], answer["ok"]
        return answer


def _close_all_but(*kept: int) -> None:
    start = 0
    for descriptor in sorted(kept):
        if start < descriptor:  # Python takes an empty range below 0 for all there are
            os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, 1024)


def _fork_for_each(works: Dict[str, Callable[[Dict[str, Any]], Dict[str, Any]]], takes: int, gives: int) -> None:
    """Fork first and read then: the child reads the request, and nothing of it is left here."""
    while True:
        if os.fork() == 0:
            try:
                os._exit(_serve_one(works, takes, gives))
            finally:
                os._exit(1)
        status = os.wait()[1]
        if status == _NO_MORE << 8:
            return
        if status:
            signalled = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            how = "signal %d" % signalled if signalled else "exit code %d" % os.WEXITSTATUS(status)
            kind = "killed" if signalled == signal.SIGKILL else "crashed"
            died = {"ok": False, "kind": kind, "error": "the process that measured the model ended (%s)" % how}
            os.write(gives, json.dumps(died).encode("ascii") + b"\n")


def _serve_one(works: Dict[str, Callable[[Dict[str, Any]], Dict[str, Any]]], takes: int, gives: int) -> int:
    """Answer one request; the exit code."""
    with os.fdopen(takes, "rb", buffering=0) as stream:  # one line and no more: the next is the next child's
        while True:
            line = stream.readline()
            if not line:
                return _NO_MORE
            try:
                number, what, file = json.loads(line)
            except ValueError:  # what one that died while it read left of its request, which has been answered for it
                continue
            break
    answer = dict(_guarded(works[what], file), number=number)
    with os.fdopen(gives, "wb") as stream:
        stream.write(json.dumps(answer).encode("ascii") + b"\n")
    return 0


#: The longest message of an answer. What is longer loses its middle: numbers stand at the end.
_MAX_MESSAGE = 500
_ORT_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_LOADING = re.compile(r"(?:Load model from .+? failed:|Load model failed:) ?")
#: `/onnxruntime_src/onnxruntime/core/graph/model.cc:150 `, before which C++ may say nothing and after it its function.
_CPP_PLACE = re.compile(r"(?:[\w.+-]*/)*[\w.+-]+\.(?:cc|cpp|cxx|h|hpp|cu|cuh|inc):\d+:? ")
_CPP_HEAD = re.compile(r"[\w:<>,*&~ ]*::[\w:<>~]+(?= ?\()")
#: A function's name alone, as ValidateExternalDataPathFromDir.
_CPP_NAME = re.compile(r"[A-Za-z_]*[a-z][A-Z]\w* ")
_INSTRUCTIONS = re.compile(r"See instructions: https?://\S*?(?=Node number|\s|$)")
#: Sentences that LiteRT puts together without a space.
_GLUED = re.compile(r"(requested\.|to prepare\.|newer model\?)(?=[A-Z])|(?<=\w)(?=Node number \d)")
#: Four hundred characters of onnxruntime, of which three words matter.
_OPSET = re.compile(
    r"ONNX Runtime only \*guarantees\*.* Opset (\d+) is under .* support for domain (\S+) is till opset (\d+)\.?"
)


def _one_line(error: BaseException, folder: str = "") -> str:
    """What an exception says, for a person: without C++ functions, source files and `folder`, the end kept."""
    said = " ".join(str(error).split())
    text = _without_cpp(_LOADING.sub("", _ORT_PREFIX.sub("", said)))
    text = _OPSET.sub(r"Unsupported opset \1 of \2, max supported opset: \3", text)
    text = " ".join(_GLUED.sub(r"\1 ", _INSTRUCTIONS.sub("", text)).split())
    half = len(text) // 2
    if text[:half] + " " + text[:half] == text:  # tflite_runtime says everything twice
        text = text[:half]
    # Runtimes speak in whole sentences; of Python's own errors many say nothing without their name.
    of_runtime = text != said or type(error) in (RuntimeError, ValueError)
    if folder:
        text = text.replace(os.path.join(folder, ""), "")
    if not text or not of_runtime:
        text = type(error).__name__ + ": " + (text or "no message")
    return _shortened(text)


def _without_cpp(text: str) -> str:
    """`text` without each "FILE.cc:LINE FUNCTION(ARGUMENTS) " in it."""
    kept = ""
    place = _CPP_PLACE.search(text)
    while place is not None:
        kept, text = kept + text[: place.start()], text[place.end() :]
        plain = text.replace("(anonymous namespace)", "_anonymous_namespace_")  # of the same length
        head = _CPP_HEAD.match(plain)
        name = _CPP_NAME.match(text)
        if head is not None:
            text = text[_closing(plain, head.end()) :].lstrip()
            text = re.sub(r"^(?:const |noexcept |\[with [^]]*\] )+", "", text)
        elif name is not None:
            text = text[name.end() :]
        place = _CPP_PLACE.search(text)
    return kept + text


def _closing(text: str, start: int) -> int:
    """Behind the bracket that closes the first one from `start` on; 0 where none does."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if text[index] == ")" and depth == 0:
            return index + 1
    return 0


def _shortened(text: str) -> str:
    """At most so many characters: the beginning says what it is about, the end holds the numbers."""
    if len(text) <= _MAX_MESSAGE:
        return text
    return text[: _MAX_MESSAGE // 3] + " ... " + text[len(text) - (_MAX_MESSAGE - _MAX_MESSAGE // 3 - 5) :]


def _first_that_runs(
    runtime: Any, path: str, file: Dict[str, Any], values: Dict[str, Any], error: _OpenAxesError
) -> Tuple[Optional[Dict[str, List[int]]], str]:
    """The first sizes with which the model runs, or None and how the last ones failed.

    They are tried in a forked process: sizes that do not fit may take a runtime down, or take it too long.
    """
    takes, gives = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _close_all_but(1, 2, gives)
            model = runtime(path, 1, dict(file, shapes=None), values, binding="none")
            for sizes in _trials(error):
                try:
                    model.feed(dict(file, shapes=sizes), values)
                    model.runner()()
                except Exception as why:
                    os.write(gives, json.dumps([None, _one_line(why)[:200]]).encode("ascii") + b"\n")
                else:
                    os.write(gives, json.dumps([sizes, ""]).encode("ascii") + b"\n")
                    break
        finally:
            os._exit(0)
    os.close(gives)
    said, until = b"", time.monotonic() + _TRY_S
    while select.select([takes], [], [], max(0.0, until - time.monotonic()))[0]:
        block = os.read(takes, 1 << 16)
        if not block:
            break
        said = (said + block)[-(1 << 20) :]
    os.close(takes)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    lines = said.split(b"\n")[:-1]
    if not lines:
        return None, "none was finished in %.0f s" % _TRY_S
    found, failed = json.loads(lines[-1])
    return found, failed


def _ops(probe: Probe) -> Dict[str, Callable[..., Dict[str, Any]]]:
    again = probe.escalating
    return {
        "hello": probe.hello,
        "state": probe.state,
        "load": again(probe.load),
        "memory": again(probe.memory),
        "race": again(probe.race),
        "single": again(probe.single),
        "throughput": again(probe.throughput),
        "operators": again(probe.operators),
        "predict": again(probe.predict),
        "outputs": again(probe.outputs),
        "unload": probe.unload,
        "quit": dict,
    }


def _guarded(work: Callable[..., Dict[str, Any]], *given: Any, **named: Any) -> Dict[str, Any]:
    """The answer of `work`, or why there is none."""
    try:
        return dict(work(*given, **named), ok=True)
    except ProbeError as error:
        return {"ok": False, "kind": error.kind, "error": _shortened(str(error)), "hint": error.hint[:4000]}
    except Exception as error:
        return {"ok": False, "kind": "crashed", "error": _one_line(error)}


def _serve(probe: Probe, request: Dict[str, Any]) -> Dict[str, Any]:
    ops = _ops(probe)
    if request.get("op") not in ops:
        return {"ok": False, "kind": "crashed", "error": "unknown op " + repr(request.get("op"))[:100]}
    return _guarded(ops[request["op"]], **{key: value for key, value in request.items() if key not in ("op", "n")})


def _end_with_host() -> None:
    """Leave a process beside this one that kills it when stdin has ended and this one goes on all the same.

    While a model runs, and it may run for ever, nobody here reads stdin. A process and no thread: a second thread would
    make each memory request of the runtime a little slower, and could not run where a runtime keeps Python's lock.
    """
    probe = os.getpid()
    if os.getpgrp() != probe:  # over ssh it is the group of the shell; what is forked later is to end as well
        os.setpgid(0, 0)
    ends, _held = os.pipe()  # `ends` hangs up when this process, which holds the other end, has ended
    if os.fork():
        os.close(ends)
        return
    try:
        _close_all_but(0, ends)
        watched = select.poll()
        # The end of a pipe is always told; that of a socket, which sshd may give, only to those who ask.
        watched.register(0, getattr(select, "POLLRDHUP", 0))
        watched.register(ends, 0)
        if ends not in dict(watched.poll()):
            watched.unregister(0)
            if not watched.poll(_GRACE_S * 1000):
                os.killpg(probe, signal.SIGKILL)
    finally:
        os._exit(0)


def main() -> None:
    """Answer requests until `quit` or the end of stdin."""
    _end_with_host()
    # It would start a thread at import, write below the home folder, and be at work while we measure.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # Runtimes print to fd 1 from C++ too, so the real one is kept aside and fd 1 becomes stderr.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    # The folder of this script holds pushed files; nothing there is to be imported.
    sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(os.path.abspath(__file__))]
    counter = os.environ.get("EDGEPRUNE_COUNTER")
    probe = CountingProbe(_Counter(counter)) if counter else Probe()
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
