from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.devices.adb.benchmark_model import Report, Timing, arguments, failure, parse
from edgeprune.devices.channel import ChannelError

MEMORY = "INFO: Memory footprint delta from the start of the tool (MB): init=6.7 overall=63.4"
TIMINGS = (
    "INFO: Inference timings in us: Init: 20283, First inference: 339304, Warmup (avg): 302814, Inference (avg): 266473"
)
NEW = f"""INFO: STARTING!
INFO: Loaded model m.tflite
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=2 first=339304 curr=266324 min=266324 max=339304 avg=302814 std=1 p5=266324 median=302814 p95=339304

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=266601 curr=266931 min=265837 max=268116 avg=266473 std=419 p5=265900 median=266400 p95=267900

{TIMINGS}
{MEMORY}
"""
#: Printed on a phone before 2021: no prefixes, no percentiles.
OLD = """Min num runs: [50]
count=7 first=11147 curr=8300 min=8200 max=11147 avg=8779.68 std=591

count=110 first=8325 curr=10016 min=7863 max=10688 avg=8680.33 std=591

Inference timings in us: Init: 1451507, First inference: 11147, Warmup (avg): 8779.68, Inference (avg): 8680.33
Peak memory footprint (MB): init=63.4883 overall=63.4883
"""
LOGCAT = """07-08 15:33:58.992 I/tflite  ( 5395): count=1 curr=2732148 p5=2732148 median=2732148 p95=2732148
07-08 15:34:26.201 I/tflite  ( 5395): count=10 first=2653894 curr=2709263 min=2640862 max=3025403 avg=2.71985e+06 std=105101 p5=2640862 median=2709263 p95=3025403
07-08 15:34:26.202 I/tflite  ( 5395): Inference timings in us: Init: 458883, First inference: 2732148, Warmup (avg): 2.73215e+06, Inference (avg): 2.71985e+06
07-08 15:34:26.202 I/tflite  ( 5395): Memory footprint delta from the start of the tool (MB): init=286.73 overall=337
"""  # noqa: E501 - as it was printed
ONCE = "count=1 curr=9\ncount=1 curr=7\n" + TIMINGS.replace("266473", "7")
PROFILE = f"""{NEW}INFO: Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t         AllocateTensors\t    0.147\t    0.147\t100.000%\t100.000%\t     0.000\t        1\tAllocateTensors/0

Timings (microseconds): count=1 curr=147
INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t            0.000\t    1.504\t    1.504\t  7.205%\t  7.205%\t     0.000\t        1\t[a/Relu6]:0
\t                 SOFTMAX\t            1.504\t    0.689\t    0.025\t  3.301%\t 10.506%\t     0.000\t        1\t[b]:1

============================== Top by Computation Time ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t            0.000\t    1.504\t    9.999\t  7.205%\t  7.205%\t     0.000\t        1\t[a/Relu6]:0

Timings (microseconds): count=50 first=1 curr=2 min=1 max=9 avg=5 std=1
{TIMINGS}
"""  # noqa: E501 - as it was printed


def test_what_is_printed_today() -> None:
    report = parse(NEW)
    assert (report.init_s, report.first_s, report.warmup_s) == (0.020283, 0.339304, 0.302814)
    assert (report.count, report.mean_s, report.median_s) == (50, 0.266473, 0.2664)
    assert report.overall_bytes == int(63.4 * 2**20)
    assert not report.warnings
    assert report.operators == ()


def test_what_was_printed_before() -> None:
    report = parse(OLD)
    assert (report.count, report.mean_s, report.median_s) == (110, 0.00868033, None)
    assert report.overall_bytes == int(63.4883 * 2**20)


def test_logcat_and_scientific_notation() -> None:
    report = parse(LOGCAT)
    assert (report.count, report.mean_s, report.median_s, report.warmup_s) == (10, 2.71985, 2.709263, 2.73215)


def test_a_single_run_and_equal_runs() -> None:
    assert (parse(ONCE).count, parse(ONCE).mean_s) == (1, 7e-6)
    assert parse(ONCE.replace("count=1 curr=7", "count=50 curr=7(all same)")).count == 50


def test_no_memory_is_none() -> None:
    assert parse(NEW.replace(MEMORY, "")).overall_bytes is None


def test_operators_of_the_timed_runs_only() -> None:
    report = parse(PROFILE)
    assert report.count == 50
    assert report.median_s == 0.2664
    assert [(each.kind, each.name, each.mean_s) for each in report.operators] == [
        ("CONV_2D", "[a/Relu6]:0", pytest.approx(1.504e-3)),
        ("SOFTMAX", "[b]:1", pytest.approx(2.5e-5)),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "INFO: Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.",
        "INFO: Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate w/ 2",
        "07-08 15:33:58.992 W/tflite  ( 5395): Falling back to OpenGL",
    ],
)
def test_a_fall_back_is_told(line: str) -> None:
    report = parse(f"{line}\n{NEW}")
    assert len(report.warnings) == 1
    assert report.warnings[0] in line
    assert not report.warnings[0].startswith(("INFO", "07-08"))


def test_an_unknown_option_is_told() -> None:
    report = parse("WARN: Unconsumed cmdline flags: --output_filepath=out\n" + NEW)
    assert report.warnings == ("Unconsumed cmdline flags: --output_filepath=out",)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "\0\xff garbage",
        TIMINGS,
        NEW.replace("266473", "nan"),
        NEW.replace("avg=266473", "avg=x").replace("(avg): 266473", "(avg): 1e999"),
        NEW.replace("(avg): 266473", "(avg): 0"),
        NEW.replace("count=50", "count=0"),
        NEW.replace("count=50", "count=-1"),
        NEW.replace("min=265837", "min=999999"),
        NEW[: NEW.index("Inference timings")],
        "x" * (9 << 20),
    ],
)
def test_what_is_no_report_is_garbled(output: str) -> None:
    with pytest.raises(ChannelError) as caught:
        parse(output)
    assert caught.value.kind == "garbled"


@pytest.mark.parametrize(
    ("code", "output", "kind", "said"),
    [
        (
            1,
            "INFO: Loaded\nERROR: Didn't find op for builtin opcode 'A'\nERROR: Benchmarking failed.",
            "refused",
            "opcode 'A'",
        ),
        (1, "Loaded model m\nFailed to allocate tensors!\nBenchmarking failed.", "refused", "Failed to allocate"),
        (1, "ERROR: Failed to apply XNNPACK delegate.", "refused", "Failed to apply XNNPACK"),
        (1, "07-08 15:33:58.9 E/tflite  ( 53): Unsupported data type", "refused", "Unsupported data type"),
        (1, "", "refused", "printed nothing"),
        (134, "FATAL: The size of in is 3 bytes. It should be 64 bytes.\nAborted", "refused", "The size of in"),
        (139, "INFO: STARTING!\nSegmentation fault", "crashed", "SIGSEGV"),
        (137, "INFO: STARTING!\nKilled", "killed", "killed"),
        (126, "sh: ./b: not executable: 64-bit ELF file", "refused", "64-bit ELF"),
        (127, "sh: ./b: not found", "refused", "cannot be run"),
    ],
)
def test_why_a_run_failed(code: int, output: str, kind: str, said: str) -> None:
    error = failure(code, output)
    assert (error.kind, "\n" in error.message) == (kind, False)
    assert said in error.message


def test_arguments() -> None:
    timing = Timing(runs=0, least_s=0.006, warmup_runs=0, warmup_s=0.05, most_s=60)
    options = arguments("/m.tflite", timing, threads=2, shapes={"a,b:c": (1, 3)})
    assert "--num_runs=1" in options
    assert "--warmup_runs=1" in options
    assert "--min_secs=0.006" in options
    assert "--input_layer=input0" in options
    assert "--input_layer_shape=1,3" in options


PIECES = st.sampled_from(
    [*NEW.splitlines(), *OLD.splitlines(), *LOGCAT.splitlines(), *PROFILE.splitlines(), "ERROR: x", "count=", "=" * 9]
)


@given(st.lists(PIECES | st.text(max_size=60), max_size=30), st.integers(0, 3000), st.text(max_size=4))
def test_any_output_is_a_sane_report_or_garbled(lines: list[str], at: int, splice: str) -> None:
    text = "\n".join(lines)
    report: Report | str
    try:
        report = parse(text[:at] + splice + text[at:])
    except ChannelError as error:
        report = error.kind
    if isinstance(report, str):
        assert report == "garbled"
        return
    assert report.mean_s > 0
    assert report.count >= 1
    assert {field.name for field in fields(report)} == {field.name for field in fields(Report)}


@given(st.integers(1, 255), st.text(max_size=500))
def test_any_failure_is_one_short_line(code: int, output: str) -> None:
    error = failure(code, output)
    assert "\n" not in error.message
    assert len(error.message) < 500


@pytest.mark.parametrize(
    "piece", ["I ", "07-08 15:33:58.9 ", "9 ", "count=1", "init=1.", "Inference timings in us: Init: "]
)
def test_long_lines_take_no_time(piece: str) -> None:
    with pytest.raises(ChannelError):
        parse((piece * 200_000)[: 1 << 20] + "\n" + piece * 1000)
