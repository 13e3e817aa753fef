"""Kill a small run at random moments in every stage, resume it, and compare with the run that nobody disturbed.

    python benchmarks/kills.py --kills 100 --folder /tmp/kills

A run is begun, killed (SIGKILL) and resumed again and again, so that resumed runs are killed too; after `--chain` kills
it may come to its end. Then its trials and all of its result that does not depend on time must be those of the
undisturbed run. After every kill no process of the run may be left 5 s later; after the end, and one more command, no
temporary folder and nothing half done in the run folder. The device is simulated, so that its figures repeat exactly;
models are really run in a probe on this machine. Runs are forked from a process that has loaded the libraries, which
saves half of the time; with `--cold` each is a command of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STAGES = ("start", "prepare", "search", "fine-tune", "export", "validate")
SETTINGS = (
    *("--data", "digits", "--model", "mlp-32-16", "--episodes", "3", "--train-epochs", "1", "--finetune-epochs", "1"),
    *("--processes", "3", "--finalists", "1", "--calibration-images", "300", "--max-drop", "90"),
)
DEVICE = "seed = 1\n[latency]\nbase_s = 1e-4\ns_per_byte = 2e-10\n"
#: Seconds in which a probe must have noticed that its host is gone.
LIMIT_S = 5.0
#: What of a result says how long something took, how much of it was found in the cache, or where it was done.
TIMES = {"seconds", "device_seconds", "config", "measured", "cache_hits", "source", "states", "load_s", "first_s"}
#: Figures of this machine: heap that is read afresh at the end differs by some bytes.
READINGS = {"free_bytes", "peak_bytes", "baseline_peak_bytes"}


@dataclass
class Tally:
    """What came of the kills, per stage."""

    kills: Counter[str] = field(default_factory=Counter)
    probes: Counter[str] = field(default_factory=Counter)
    ends: int = 0
    same: int = 0
    folders: int = 0
    differences: list[str] = field(default_factory=list)


class Forked:
    """A command in a process forked from this one; as much of `Popen` as is needed."""

    def __init__(self, words: list[str], environment: dict[str, str], log: int) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.environ.update(environment)
                tempfile.tempdir = None
                importlib.import_module("edgeprune.cli.main").main(words)
            except SystemExit as end:
                os._exit(int(end.code or 0))
            finally:
                os._exit(70)

    def poll(self) -> int | None:
        """The exit code, None while it lives."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = 1e9) -> int:
        """The exit code. Raises TimeoutExpired."""
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("edgeprune", timeout)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)


Running = subprocess.Popen[bytes] | Forked


class Bench:
    """Runs below one folder, with temporary folders of their own."""

    def __init__(self, folder: Path, *, warm: bool = False) -> None:
        self.folder = folder
        self.warm = warm
        if warm:
            for name in ("torch", "sklearn.datasets", "onnxscript", "litert_torch", "edgeprune.pipeline.run"):
                importlib.import_module(name)
            # The first export of a process takes seconds for what it does once.
            torch = sys.modules["torch"]
            torch.onnx.export(torch.nn.Linear(2, 2).eval(), (torch.zeros(2, 2),), dynamo=True, verbose=False)
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        (folder / "device.toml").write_text(DEVICE)
        self.device = f"simulated://{folder / 'device.toml'}"

    def begin(self, name: str, *, resume: bool) -> Running:
        """`edgeprune run`, or what goes on with it."""
        which = ["--resume", name] if resume else ["--name", name, "--device", self.device, *SETTINGS]
        return self.command("run", "--runs-dir", str(self.folder / "runs"), "--quiet", *which)

    def command(self, *words: str) -> Running:
        """A command of edgeprune with temporary folders below ours."""
        environment = {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        with (self.folder / "log").open("ab") as log:
            if self.warm:
                return Forked(list(words), environment, log.fileno())
            command = [sys.executable, "-m", "edgeprune", *words]
            return subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)

    def path(self, name: str) -> Path:
        """A run's folder."""
        return self.folder / "runs" / name

    def stage(self, name: str) -> str:
        """The stage that a run says it is in."""
        with contextlib.suppress(OSError, ValueError):
            return str(json.loads((self.path(name) / "result.json").read_bytes())["stage"])
        return ""

    def processes(self) -> list[int]:
        """Probes of these runs that are alive, by the work folder among their words."""
        found = []
        for each in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if each.name.isdigit() and str(self.temporary).encode() in (each / "cmdline").read_bytes():
                    found.append(int(each.name))
        return found

    def left(self, name: str) -> list[str]:
        """What a run that came to its end should not have left."""
        inside = [each for each in self.path(name).iterdir() if each.name == "candidates" or each.suffix == ".tmp"]
        return [str(each) for each in (*inside, *self.temporary.iterdir())]


def kill_in(bench: Bench, name: str, stage: str, chance: random.Random, process: Running) -> str:
    """Kill the process at a random moment of `stage`; in which one it was, "" where it ended before."""
    while process.poll() is None and STAGES.index(stage) > _index(bench.stage(name)):
        time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(chance.uniform(0, LENGTHS[stage]))
    if process.poll() is not None:
        return ""
    process.send_signal(signal.SIGKILL)
    process.wait()
    return bench.stage(name) or "start"


#: Seconds that a stage takes, about; measured by the undisturbed run.
LENGTHS = dict.fromkeys(STAGES, 1.0)


def _index(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else -1


def undisturbed(bench: Bench, name: str) -> int:
    """The run to compare with; how long its stages take is kept in LENGTHS."""
    process, last, since = bench.begin(name, resume=False), "start", time.monotonic()
    while (code := process.poll()) is None:
        stage = bench.stage(name)
        if stage in STAGES and stage != last:
            LENGTHS[last], last, since = time.monotonic() - since, stage, time.monotonic()
        time.sleep(0.05)
    LENGTHS[last] = time.monotonic() - since
    return code


def facts(bench: Bench, name: str) -> dict[str, Any]:
    """Trials and result of a run, without what depends on time."""
    base = sqlite3.connect(bench.path(name) / "trials.sqlite")
    columns = "trial, plan, accuracy, ncr, bytes, reward, proposed, executed, latency_share, memory_share, failure"
    trials = base.execute(f"SELECT {columns} FROM trials ORDER BY trial").fetchall()
    base.close()
    result = json.loads((bench.path(name) / "result.json").read_bytes())
    return {"trials": trials, "result": _stripped(result)}


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stripped(each) for key, each in value.items() if key not in TIMES | READINGS}
    return [_stripped(each) for each in value] if isinstance(value, list) else value


def differences(one: Any, two: Any, where: str = "") -> list[str]:
    """Where two plain values differ."""
    if isinstance(one, dict) and isinstance(two, dict):
        return [
            line for key in sorted({*one, *two}) for line in differences(one.get(key), two.get(key), f"{where}.{key}")
        ]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return [
            line
            for index, pair in enumerate(zip(one, two, strict=True))
            for line in differences(*pair, f"{where}[{index}]")
        ]
    return [] if one == two else [f"{where}: {one!r:.80} became {two!r:.80}"]


def chain(bench: Bench, reference: str, name: str, stages: list[str], chance: random.Random, tally: Tally) -> None:
    """One run, killed once in each of `stages`, in their order, and then let go to its end."""
    process = bench.begin(name, resume=False)
    for stage in stages:
        killed = kill_in(bench, name, stage, chance, process)
        if killed:
            tally.kills[killed] += 1
            until = time.monotonic() + LIMIT_S
            while (alive := bench.processes()) and time.monotonic() < until:
                time.sleep(0.05)
            tally.probes[killed] += len(alive)
        # Killed before it kept its settings there is nothing to resume, and its name is free.
        process = bench.begin(name, resume=(bench.path(name) / "config.json").exists())
    code = process.wait()
    tally.ends += 1
    found = [f"exit code {code}"] if code not in (0, 3) else differences(facts(bench, reference), facts(bench, name))
    tally.same += not found
    tally.differences += [f"{name}: {line}" for line in found[:5]]
    # A later command of any kind removes what is left; resuming a run that is done does nothing else.
    bench.command("devices", "check", "local").wait()
    left = bench.left(name)
    tally.folders += len(left)
    tally.differences += [f"{name}: left {each}" for each in left[:5]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="kills in all, spread over the stages")
    parser.add_argument("--chain", type=int, default=6, help="kills of one run before it may come to its end")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="where to kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cold", action="store_true", help="start a command for each run")
    parser.add_argument("--folder", type=Path, required=True, help="a new folder for everything")
    given = parser.parse_args()
    bench, chance, tally = Bench(given.folder, warm=not given.cold), random.Random(given.seed), Tally()
    if undisturbed(bench, "undisturbed") not in (0, 3):
        raise SystemExit(f"the undisturbed run failed: see {given.folder / 'log'}")
    print("stage seconds:", {stage: round(length, 1) for stage, length in LENGTHS.items()}, flush=True)
    number = 0
    while tally.kills.total() < given.kills:
        wanted = min(given.chain, given.kills - tally.kills.total())
        stages = [given.stages[(number * given.chain + each) % len(given.stages)] for each in range(wanted)]
        chain(bench, "undisturbed", f"run-{number}", sorted(stages, key=STAGES.index), chance, tally)
        number += 1
        if tally.kills.total() < number:
            raise SystemExit("a run ended before it could be killed: does result.json tell its stages?")
        print(
            f"{tally.kills.total()} kills, {tally.probes.total()} probes left,",
            f"{tally.same} of {tally.ends} ends the same",
            *tally.differences[-3:],
            flush=True,
        )
    print(f"\n{'stage':<12}{'kills':>8}{'probes left':>14}")
    for stage in STAGES:
        print(f"{stage:<12}{tally.kills[stage]:>8}{tally.probes[stage]:>14}")
    print(f"\n{tally.same} of {tally.ends} runs ended like the undisturbed one; {tally.folders} folders or files left")
    print(*tally.differences, sep="\n")
    raise SystemExit(tally.same != tally.ends or tally.folders > 0 or tally.probes.total() > 0)


if __name__ == "__main__":
    main()
