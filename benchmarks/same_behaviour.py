"""Does a commit still do to classifiers what an earlier one did: same seeds, same trials, same figures?

    python -m benchmarks.same_behaviour --before COMMIT [--after COMMIT] [--cases digits,mnist,resnet20]

Both commits (after: the working tree, unless it is given) make the same runs, each with caches of its own, one thread,
and a simulated device on which a file takes as long as its constants are large: what it says of itself costs nothing
there, so that another entry in a file's metadata leads the search nowhere else. Then all that was stored is compared,
to the last bit: trials, tuned networks, the final plan, weights, files without their metadata, and every leaf of
result.json that both have, under the name that it has now. Left out is what takes time or is read from this machine:
seconds, heap, states. How fast training steps are is measured by the first of two runs, and taken over by the second.

mnist and resnet20 need EDGEPRUNE_DATA: the folder mnist/, and cifar10-jpeg.zip with resnet20-cifar10jpeg.pt. Exits
with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import runpy
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from edgeprune.artifacts.metadata import METADATA_KEY
from edgeprune.artifacts.tflite_file import pack

ROOT = Path(__file__).resolve().parent.parent
DEVICE = "[latency]\nbase_s = 2e-5\ns_per_byte = 2e-10\n"
#: Where the simulated device's class was, the oldest place first.
SIMULATIONS = ("edgeprune.devices.simulation", "edgeprune.devices.simulated.simulation")
#: With this word the script is `edgeprune run` on that device, of whichever tree PYTHONPATH names.
AS_RUN = "as-run"
#: Of these CIFAR-10 is left: a run of a few minutes is the same program on fewer pictures.
PICTURES = {"train": 200, "test": 50}
CASES: Mapping[str, tuple[str, ...]] = {
    # Nothing is bounded: the reward is equation (3), with no weight for the heap that is read from this machine.
    "digits": (
        *("--data", "digits", "--delta", "0", "--episodes", "20", "--train-epochs", "8", "--finetune-epochs", "6"),
        *("--finalists", "2"),
    ),
    "mnist": (
        *("--data", "mnist", "--model", "lenet-300-100", "--max-latency", "0.5x", "--episodes", "15"),
        *("--train-epochs", "3", "--finetune-epochs", "2", "--finalists", "2"),
    ),
    "resnet20": (
        *("--data", "{pictures}", "--model", "resnet20", "--weights", "{data}/resnet20-cifar10jpeg.pt"),
        *("--max-latency", "0.7x", "--max-drop", "10", "--episodes", "10", "--finetune-epochs", "2"),
        *("--finalists", "2"),
    ),
}
#: What names in result.json of schema 4 are called now.
RENAMED = (
    (r"balanced_accuracy_before_finetune$", "scores_before_finetune.balanced-accuracy"),
    (r"accuracy_before_finetune$", "scores_before_finetune.accuracy"),
    (r"validation_accuracy$", "validation_score"),
    (r"device_balanced_accuracy$", "device_scores.balanced-accuracy"),
    (r"device_accuracy$", "device_scores.accuracy"),
    (r"^(baseline|compressed)\.balanced_accuracy$", r"\1.scores.balanced-accuracy"),
    (r"^(baseline|compressed)\.accuracy$", r"\1.scores.accuracy"),
    (r"\.error_points$", ".lost"),
)
#: Settings, versions, paths, times, what is read from this machine, and what counts the bytes of metadata.
LEFT_OUT = re.compile(
    r"^(schema|edgeprune|config|settled|seconds|training\.timed|device\.(name|facts)|possible\.(memory_share|smallest_bytes)"
    r"|possible\.reference\.(memory|bytes)|search\.(seconds|device_seconds|reward\.(memory|whole_bytes)))(\W|$)"
    r"|^artifacts\[\d+\]\.((baseline_)?(sha256|bytes|peak_bytes)|load_s|first_s|states|drawbacks\[\d+\]\.text)(\W|$)"
)
#: Kinds of figures in result.json, by their names.
KINDS = (
    ("accuracy on the host", re.compile(r"^(baseline|compressed)\.(scores|validation|lost)|^classes")),
    ("accuracy on the device", re.compile(r"^artifacts\[\d+\]\.(baseline_device|device|agreement|parity)")),
    ("NCR, MACs, parameters", re.compile(r"^(baseline|compressed)\.(ncr|macs|neurons|parameters|layers|frozen|unc)")),
    ("latency", re.compile(r"^artifacts\[\d+\]\.(latency|baseline_latency|speedup|process)")),
)
REST = "rest of result.json"
METADATA = "metadata of the files"
#: Of these the later commit may tell more.
MAY_GROW = {*(kind for kind, _ in KINDS), REST, METADATA}
Facts = dict[str, dict[str, Any]]


def constant_bytes(file: Path) -> int:
    """Bytes of the constants that a model file's graph reads."""
    data = file.read_bytes()
    if data[4:8] == b"TFL3":
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
        return sum(len(model.buffers[each].data) for each in used if model.buffers[each].data is not None)
    return sum(numpy_helper.to_array(each).nbytes for each in onnx.load_from_string(data).graph.initializer)


def as_run(words: list[str]) -> None:
    """`edgeprune run`, with latencies of the simulated device that hang on constants alone."""
    place = Path(str(import_module("edgeprune").__file__))
    if not place.is_relative_to(os.environ["PYTHONPATH"]):
        raise SystemExit(f"expected edgeprune of {os.environ['PYTHONPATH']}, got {place}")
    simulation = import_module(next(name for name in SIMULATIONS if find_spec(name)))
    known = cache(lambda path, _: constant_bytes(Path(path)))

    def costs(self: Any, file: Mapping[str, Any]) -> list[float]:
        size = known(str(file["path"]), str(file["sha256"]))
        return [self._latency.base_s + self._latency.s_per_byte * size]

    simulation.Simulation.costs = costs
    sys.argv = ["edgeprune", "run", *words]
    runpy.run_module("edgeprune", run_name="__main__")


def run(tree: Path, folder: Path, words: tuple[str, ...]) -> tuple[Path, float]:
    """One run with the code of `tree`; its run folder and its seconds."""
    for name in ("cache", "config", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "device.toml").write_text(DEVICE)
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "EDGEPRUNE_CONFIG_DIR": str(folder / "config"),
        "TMPDIR": str(folder / "tmp"),
    }
    where = ("--device", f"simulated://{folder / 'device.toml'}", "--runs-dir", str(folder / "runs"), "--name", "run")
    command = [sys.executable, "-P", __file__, AS_RUN, *words, *where, "--processes", "3", "--quiet"]
    began = time.monotonic()
    with (folder / "log").open("wb") as log:
        code = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log, check=False).returncode
    if code not in (0, 3):
        raise SystemExit(f"exit code {code} of {tree}: {(folder / 'log').read_text()[-2000:]}")
    return folder / "runs" / "run", time.monotonic() - began


@contextmanager
def checked_out(commit: str | None, path: Path) -> Iterator[Path]:
    """The tree of a commit, in a worktree at `path`; without one ours, as it is now."""
    if commit is None:
        yield ROOT
        return
    subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", path, commit], check=True)
    try:
        yield path
    finally:
        subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", path], check=True)


def fewer_pictures(source: Path, target: Path) -> None:
    """An image folder in a zip, with the first pictures of each class only."""
    taken: Counter[str] = Counter()
    with zipfile.ZipFile(source) as every, zipfile.ZipFile(target, "w") as few:
        for name in sorted(every.namelist()):
            part, _, rest = name.partition("/")
            kind = f"{part}/{rest.partition('/')[0]}"
            if name.endswith(".jpg") and taken[kind] < PICTURES[part]:
                taken[kind] += 1
                few.writestr(name, every.read(name))


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Plain data as its leaves, by where they are."""
    if isinstance(value, dict) and value:
        parts = [(f"{name}.{key}" if name else str(key), each) for key, each in value.items()]
    elif isinstance(value, list) and value:
        parts = [(f"{name}[{index}]", each) for index, each in enumerate(value)]
    else:
        return {name: value}
    return {key: leaf for part, each in parts for key, leaf in leaves(each, part).items()}


def opened(file: Path) -> tuple[dict[str, Any], str, str]:
    """The metadata of a model file, the hash of what is left without them, and its own."""
    data, text = file.read_bytes(), "{}"
    if file.suffix == ".onnx":
        model = onnx.load_from_string(data)
        texts = {each.key: each.value for each in model.metadata_props}
        text = texts.pop(METADATA_KEY, text)
        del model.metadata_props[:]
        rest = model.SerializeToString(deterministic=True) + repr(sorted(texts.items())).encode()
    else:
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        for entry in model.metadata or []:
            if entry.name == METADATA_KEY.encode():
                text = bytes(model.buffers[entry.buffer].data).decode()
                model.buffers[entry.buffer].data = None
        rest = bytes(pack(model))
    return json.loads(text), hashlib.sha256(rest).hexdigest(), hashlib.sha256(data).hexdigest()


def read_trials(base: Path, metadata_bytes: int) -> Facts:
    """The trials of a run by kinds of figures; sizes without the metadata that every file carries in the end."""
    found: Facts = {kind: {} for kind in ("plans", "proposals", "scores", "rewards", "costs", "evaluations")}
    columns = "trial, plan, proposed, executed, accuracy, ncr, reward, latency_share, bytes, failure, cost"
    with closing(sqlite3.connect(base)) as store:
        rows = store.execute(f"SELECT {columns} FROM trials ORDER BY trial").fetchall()
        evaluations = store.execute("SELECT plan_key, accuracy, ncr FROM evaluations ORDER BY plan_key").fetchall()
    for number, plan, proposed, executed, accuracy, ncr, reward, latency, size, failure, cost in rows:
        name = f"trial {number}"
        measured = json.loads(cost)
        samples = {key: measured.get(key) for key in ("samples", "against")}
        own = {"latency_share": latency, "bytes": size - metadata_bytes, "failure": failure, **samples}
        found["plans"][name] = json.loads(plan)["kept"]
        found["proposals"] |= leaves({"proposed": json.loads(proposed), "executed": json.loads(executed)}, name)
        found["scores"] |= leaves({"accuracy": accuracy, "ncr": ncr}, name)
        found["rewards"][name] = reward
        found["costs"] |= leaves(own, name)
    for key, accuracy, ncr in evaluations:
        found["evaluations"] |= leaves({"accuracy": accuracy, "ncr": ncr}, key)
    return found


def facts(folder: Path) -> tuple[Facts, dict[str, str]]:
    """Everything of a run that hangs on nothing but seeds, by kind and name; and the hashes of its model files."""
    files = {
        name: opened(folder / name)
        for name in ("baseline.onnx", "baseline.tflite", "model.onnx", "model.tflite")
        if (folder / name).exists()
    }
    found = read_trials(folder / "trials.sqlite", len(json.dumps(files["baseline.onnx"][0])))
    found["tuned networks"] = {}
    for note in sorted((folder / "tuned").glob("*.json")):
        data = json.loads(note.read_bytes())
        kept = {key: data[key] for key in ("plan", "asked", "epochs", "accuracy", "history")}
        found["tuned networks"] |= leaves({**kept, "weights": data["weights"]["sha256"]}, note.stem)
    found["final plan"] = json.loads((folder / "plan.json").read_bytes())["plan"]["kept"]
    found["weights"] = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("baseline.safetensors", "pruned.safetensors")
    }
    found["files without metadata"] = {name: rest for name, (_, rest, _) in files.items()}
    found[METADATA] = {key: leaf for name, (said, _, _) in files.items() for key, leaf in leaves(said, name).items()}
    found |= {kind: {} for kind, _ in KINDS} | {REST: {}}
    for name, leaf in leaves(json.loads((folder / "result.json").read_bytes())).items():
        now = name
        for old, new in RENAMED:
            now = re.sub(old, new, now)
        if not LEFT_OUT.search(now):
            kind = next((kind for kind, names in KINDS if names.search(now)), REST)
            found[kind][now] = leaf
    return found, {name: own for name, (_, _, own) in files.items()}


@dataclass(frozen=True, slots=True)
class Compared:
    """How many figures of one kind are equal, the first that differs, and the largest difference of numbers."""

    equal: int
    of: int
    first: str
    largest: float
    #: What only the later commit tells.
    new: tuple[str, ...]


def compare(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Compared:
    """The figures of one kind; one that is missing on a side differs, unless the later commit may tell more."""
    new = tuple(name for name in after if name not in before) if kind in MAY_GROW else ()
    names = [*before, *(name for name in after if name not in before and kind not in MAY_GROW)]
    unequal = [name for name in names if name not in before or name not in after or before[name] != after[name]]
    first, largest = "", 0.0
    if unequal:
        one, two = (f"{side[unequal[0]]!r:.60}" if unequal[0] in side else "missing" for side in (before, after))
        first = f"{unequal[0]}: {one} became {two}"
    for name in unequal:
        pair = before.get(name), after.get(name)
        if all(isinstance(each, int | float) for each in pair):
            largest = max(largest, abs(pair[0] - pair[1]))  # type: ignore[operator]
    return Compared(len(names) - len(unequal), len(names), first, largest, new)


def same(case: str, before: Path, after: Path, folder: Path, data: str) -> bool:
    """Make the runs of a case, print the table, and tell whether all is equal."""
    words = tuple(word.format(data=data, pictures=folder / "pictures.zip") for word in CASES[case])
    one, first_s = run(before, folder / case / "before", words)
    # A clock decides in which memory format a network is trained: one clock for both.
    shutil.copytree(
        one.parent / ".cache",
        folder / case / "after" / "runs" / ".cache",
        ignore=lambda _, names: [name for name in names if not name.startswith("training-")],
    )
    two, second_s = run(after, folder / case / "after", words)
    (figures, files), (later, their_files) = facts(one), facts(two)
    print(f"\n{case}: {first_s:.0f} s before, {second_s:.0f} s after; {' '.join(words)}")
    new: Counter[str] = Counter()
    all_equal = True
    for kind, own in figures.items():
        found = compare(kind, own, later[kind])
        all_equal &= found.equal == found.of
        new.update(re.sub(r"\[\d+\]", "[]", name) for name in found.new)
        text = f"  largest difference {found.largest:.3g}; first: {found.first}" if found.first else ""
        print(f"  {kind:<24}{found.equal:>6} of {found.of:<6}{text}".rstrip())
    alike = sum(files[name] == their_files.get(name) for name in files)
    print(f"  model files equal byte for byte, metadata included: {alike} of {len(files)}")
    if new:
        print(f"  only told after: {', '.join(new)}")
    sys.stdout.flush()
    return all_equal


def main() -> None:
    if sys.argv[1:2] == [AS_RUN]:
        as_run(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, metavar="COMMIT")
    parser.add_argument("--after", metavar="COMMIT", help="else the working tree")
    parser.add_argument("--cases", default=",".join(CASES), help="some of the default, with commas")
    parser.add_argument("--folder", type=Path, help="a new folder that keeps the runs; else they are removed")
    given = parser.parse_args()
    cases, data = given.cases.split(","), os.environ.get("EDGEPRUNE_DATA", "")
    if unknown := set(cases) - set(CASES):
        parser.error(f"expected some of {', '.join(CASES)}, got {', '.join(sorted(unknown))}")
    if not data and set(cases) != {"digits"}:
        parser.error("mnist and resnet20 need EDGEPRUNE_DATA: set it, or give --cases digits")
    with tempfile.TemporaryDirectory() as temporary:
        trees, folder = Path(temporary), (given.folder or Path(temporary) / "runs").resolve()
        folder.mkdir(parents=True)
        if "resnet20" in cases:
            fewer_pictures(Path(data) / "cifar10-jpeg.zip", folder / "pictures.zip")
        with checked_out(given.before, trees / "before") as before, checked_out(given.after, trees / "after") as after:
            equal = [same(case, before, after, folder, data) for case in cases]
    print(f"\n{sum(equal)} of {len(equal)} cases the same: {given.before} and {given.after or 'the working tree'}")
    raise SystemExit(not all(equal))


if __name__ == "__main__":
    main()
