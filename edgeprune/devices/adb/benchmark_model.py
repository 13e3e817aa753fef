"""Google's `benchmark_model` (LiteRT, formerly TFLite): its command line, and what it prints, as values.

One process times one model and prints aggregates only, in microseconds and MiB. What `parse` understands (each line may
carry an `INFO: ` or logcat prefix, and any figure may be in scientific notation):

    count=50 first=266601 curr=266931 min=265837 max=268116 avg=266473 std=419 [p5=... median=... p95=...]
    count=1 curr=266601          count=50 curr=7(all same)
    Inference timings in us: Init: 20283, First inference: 339304, Warmup (avg): 302814, Inference (avg): 266473
    Memory footprint delta from the start of the tool (MB): init=6.7 overall=63.4

and with --enable_op_profiling the table "Run Order" of the timed runs. Everything is seconds and bytes from here on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeprune.core.text import shorten
from edgeprune.devices.channel import OUT_OF_MEMORY, ChannelError

HELP_URL = "https://ai.google.dev/edge/litert/models/measurement"
MAX_OUTPUT_BYTES = 8 << 20
_MAX_LINE = 2000
_MAX_WARNINGS = 10
_MAX_OPERATORS = 10_000

_NUMBER = r"(\d{1,30}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,3})?)"
_TIMINGS = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
    rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}"
)
#: Before 2021 the line began "Peak memory footprint".
_MEMORY = re.compile(
    rf"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): "
    rf"init=\S{{1,40}} overall={_NUMBER}"
)
_COUNT = re.compile(rf"(\w{{1,10}})={_NUMBER}")
_LOGCAT = re.compile(
    r"(?:\d\d-\d\d \d\d:\d\d:\d\d\.\d{1,9} +)?(?:\d{1,9} +\d{1,9} +)?"
    r"([VDIWEF])(?:/| )[\w.]{1,40} *(?:\( *\d{1,9}\))? ?: "
)
_LEVEL = re.compile(r"(VERBOSE|INFO|WARN|WARNING|ERROR|FATAL): ")
#: What a run says that did not execute (all of) the model where it was asked to.
_FALL_BACK = re.compile(
    r"not be executed by the delegate|partially executed by the delegate|falling back|fall back|fallback", re.IGNORECASE
)
#: Old builds print their errors without "ERROR: ".
_COMPLAINT = re.compile(
    r"failed|unsupported|not supported|unresolved|didn't find op|cannot|error|not executable|not found|no such file",
    re.IGNORECASE,
)
#: Exit codes of a shell for a command that a signal ended.
_KILLED = 128 + 9
_SIGNALS = {128 + 4: "SIGILL", 128 + 6: "SIGABRT", 128 + 7: "SIGBUS", 128 + 8: "SIGFPE", 128 + 11: "SIGSEGV"}


@dataclass(frozen=True, slots=True)
class Operator:
    """One line of the table "Run Order": seconds per inference of one operator of the timed runs."""

    kind: str
    name: str
    mean_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """What one process printed. None: this build does not print it."""

    init_s: float
    first_s: float
    warmup_s: float
    #: Of the timed runs. The tool counts whole microseconds, so only the mean is finer than one.
    count: int
    mean_s: float
    median_s: float | None
    #: Memory of the process at its highest, above its start. The runtime's own share is in it.
    overall_bytes: int | None
    #: Lines that say that a delegate did not take the whole model, or that an option is unknown.
    warnings: tuple[str, ...]
    operators: tuple[Operator, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a process warms up and times: at least so many runs *and* seconds, at most `most_s` of either phase."""

    runs: int = 1
    least_s: float = 0.0
    warmup_runs: int = 1
    warmup_s: float = 0.0
    most_s: float = math.inf


def arguments(
    model: str,
    timing: Timing,
    *,
    threads: int,
    shapes: Mapping[str, Iterable[int]] | None = None,
    operators: bool = False,
) -> list[str]:
    """The options that time `model`.

    `shapes`: all inputs in the model's order, where it has dynamic sizes.
    """
    options = [
        f"--graph={model}",
        f"--num_threads={threads}",
        f"--num_runs={max(1, timing.runs)}",
        f"--min_secs={timing.least_s:g}",
        # With no warm-up run there would be no first inference.
        f"--warmup_runs={max(1, timing.warmup_runs)}",
        f"--warmup_min_secs={timing.warmup_s:g}",
        f"--max_secs={timing.most_s:.3f}",
    ]
    if shapes:
        # Names only have to agree with each other, and real ones may hold commas and colons.
        names = [f"input{index}" for index in range(len(shapes))]
        options.append(f"--input_layer={','.join(names)}")
        options.append(f"--input_layer_shape={':'.join(','.join(map(str, shape)) for shape in shapes.values())}")
    if operators:
        options.append("--enable_op_profiling=true")
    return options


def parse(output: str) -> Report:
    """What a process that succeeded printed. Raises ChannelError("garbled") where that is no report."""
    if len(output) > MAX_OUTPUT_BYTES:
        raise ChannelError("garbled", f"benchmark_model printed more than {MAX_OUTPUT_BYTES} bytes")
    lines = [_plain(line) for line in output.splitlines()]
    at, timings = _last(_TIMINGS, lines)
    if timings is None:
        raise ChannelError(
            "garbled",
            f"benchmark_model printed no timings: {_tail(lines)}",
            "give the benchmark_model of LiteRT or TFLite, not benchmark_litert_model",
        )
    init_s, first_s, warmup_s, mean_s = (_figure(text) / 1e6 for text in timings.groups())
    counts = _counts(lines[:at])
    _, memory = _last(_MEMORY, lines)
    if mean_s <= 0 or counts.get("count", 0) < 1 or counts.get("min", 0) > counts.get("max", math.inf):
        raise ChannelError("garbled", f"benchmark_model printed figures that cannot be: {timings.group()[:200]}")
    warnings = [line for line in lines if _FALL_BACK.search(line) or "nconsumed cmdline flags" in line]
    return Report(
        init_s=init_s,
        first_s=first_s,
        warmup_s=warmup_s,
        count=int(counts["count"]),
        mean_s=mean_s,
        median_s=counts["median"] / 1e6 if "median" in counts else None,
        overall_bytes=None if memory is None else int(_figure(memory[1]) * 2**20),
        warnings=tuple(line[:200] for line in warnings[:_MAX_WARNINGS]),
        operators=tuple(_operators(lines)),
    )


def failure(code: int, output: str) -> ChannelError:
    """Why a process that ended with the exit code `code` (not 0) did not measure."""
    why = _first_error([_plain(line) for line in output[:MAX_OUTPUT_BYTES].splitlines()])
    if code == _KILLED:
        return ChannelError("killed", "the phone's system killed benchmark_model", OUT_OF_MEMORY)
    if code in (126, 127):
        hint = "give a build for this phone's processor (see `adb shell getprop ro.product.cpu.abi`)"
        return ChannelError("refused", f"benchmark_model cannot be run on the phone: {why}", hint)
    # A model or an input it cannot use makes it abort too, after saying so.
    if code in _SIGNALS and not re.search(r"\b(ERROR|FATAL): ", output[:MAX_OUTPUT_BYTES]):
        return ChannelError("crashed", f"benchmark_model crashed ({_SIGNALS[code]}): {why}")
    return ChannelError("refused", f"benchmark_model refused the model (exit code {code}): {why}")


def _plain(line: str) -> str:
    """A line without its logcat or INFO prefix; the word ERROR stays, also where logcat says it with a letter."""
    line = line[:_MAX_LINE].rstrip()
    logcat = _LOGCAT.match(line)
    if logcat is not None:
        line = line[logcat.end() :]
    level = _LEVEL.match(line)
    if level is not None and level[1] not in ("ERROR", "FATAL"):
        return line[level.end() :]
    if level is None and logcat is not None and logcat[1] in "EF":
        return f"ERROR: {line}"
    return line


def _last(pattern: re.Pattern[str], lines: list[str]) -> tuple[int, re.Match[str] | None]:
    """The last line that matches, since profiling builds repeat themselves, and its index."""
    for index in reversed(range(len(lines))):
        if found := pattern.search(lines[index]):
            return index, found
    return len(lines), None


def _counts(lines: list[str]) -> dict[str, float]:
    """The statistics of the timed runs, in microseconds: of the last `count=` line before the timings."""
    for line in reversed(lines):
        if line.startswith("count="):
            return {name: _figure(text) for name, text in _COUNT.findall(line)}
    raise ChannelError("garbled", f"benchmark_model printed no count of its runs: {_tail(lines)}")


def _figure(text: str) -> float:
    figure = float(text)
    if not math.isfinite(figure) or figure > 1e15:
        raise ChannelError("garbled", f"benchmark_model printed a figure that cannot be: {text[:40]}")
    return figure


def _operators(lines: list[str]) -> Iterable[Operator]:
    """The last table "Run Order": the first may be the initialization's. Columns by their headings, which vary."""
    starts = [index for index, line in enumerate(lines) if " Run Order " in line]
    if not starts:
        return
    columns: list[str] = []
    for line in lines[starts[-1] + 1 :][:_MAX_OPERATORS]:
        cells = [cell.strip() for cell in line.split("\t")]
        if not columns:
            columns = cells
            continue
        row = dict(zip(columns, cells, strict=False))
        time_ms = re.fullmatch(_NUMBER, row.get("[avg ms]", ""))
        if time_ms is None:
            return
        yield Operator(row.get("[node type]", ""), row.get("[Name]", ""), _figure(time_ms[1]) / 1e3)


def _first_error(lines: list[str]) -> str:
    said = [line.strip() for line in lines if line.strip()]
    for line in said:
        if line.startswith(("ERROR: ", "FATAL: ")):
            return shorten(line.partition(" ")[2], 300)
    for line in said:
        if _COMPLAINT.search(line):
            return shorten(line, 300)
    return _tail(said)


def _tail(lines: list[str]) -> str:
    said = [line.strip() for line in lines if line.strip()]
    return repr(shorten(said[-1], 200)) if said else "it printed nothing"
