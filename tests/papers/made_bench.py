"""A bench folder as `edgeprune bench paper` leaves it, made up: small weights, three seeds, every file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

NET = (784, 300, 100, 10)
SEEDS = (0, 1, 2)
METHODS = ("acnn", "cges", "edgeprune", "unpruned", "l0", "autoprune", "amc", "acnn-noprox", "uniform", "random",
           "greedy", "edgeprune@5")  # fmt: skip
#: method -> widths, errors per seed, NCRs per seed, target, seconds of the search, accuracy before fine-tuning
MADE_UP: dict[str, tuple[tuple[int, int, int], tuple[float, ...], tuple[float, ...], float | None, float, float]] = {
    "unpruned": ((784, 300, 100), (-0.10, -0.04, -0.07), (1.0, 1.0, 1.0), None, 0.0, 0.985),
    "cges": ((250, 90, 30), (0.9, 0.8, 1.3), (3.20, 3.20, 3.20), 3.46, 190.0, 0.95),
    "l0": ((221, 80, 40), (0.6, 0.5, 0.7), (3.47, 3.49, 3.46), 3.46, 210.0, 0.96),
    "autoprune": ((214, 86, 40), (0.5, 0.45, 0.6), (3.48, 3.48, 3.50), 3.46, 233.0, 0.955),
    "amc": ((225, 80, 37), (0.61, 0.44, 0.52), (3.46, 3.46, 3.46), 3.46, 55.0, 0.52),
    "acnn": ((219, 81, 43), (0.50, 0.30, 0.40), (3.46, 3.46, 3.46), 3.46, 12.3, 0.569),
    "acnn-noprox": ((230, 70, 42), (0.55, 0.42, 0.47), (3.46, 3.46, 3.46), 3.46, 11.8, 0.55),
    "uniform": ((226, 86, 29), (0.70, 0.66, 0.81), (3.47, 3.47, 3.47), 3.46, 0.08, 0.5),
    "random": ((240, 60, 42), (0.45, 0.38, 0.41), (3.46, 3.46, 3.46), 3.46, 9.0, 0.97),
    "greedy": ((210, 90, 42), (0.35, 0.30, 0.31), (3.46, 3.46, 3.46), 3.46, 30.0, 0.975),
    "edgeprune": ((205, 95, 42), (0.12, 0.08, 0.16), (3.46, 3.46, 3.46), 3.46, 14.0, 0.978),
    "edgeprune@5": ((150, 60, 27), (0.47, 0.40, 0.52), (5.0, 5.0, 5.0), 5.0, 14.5, 0.95),
}
AGENTS = ("amc", "acnn", "acnn-noprox", "edgeprune", "edgeprune@5")


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def change(path: Path, **fields: Any) -> None:
    """Other values for some fields of a JSON file."""
    write(path, json.loads(path.read_text()) | fields)


def rename(folder: Path, old: str, new: str, seed: int) -> None:
    """Another label for a cell."""
    path = folder / "cells" / f"{old}-{seed}.json"
    write(path.with_name(f"{new}-{seed}.json"), json.loads(path.read_text()) | {"method": new})
    path.unlink()


def _weights(random: np.random.Generator, widths: tuple[int, ...] | None) -> dict[str, np.ndarray[Any, Any]]:
    found = {}
    kept = [
        None if widths is None else random.permutation(size)[:width]
        for size, width in zip(NET, widths or NET, strict=False)
    ]
    for index, (fan_in, fan_out) in enumerate(pairwise(NET)):
        weight = random.normal(0, fan_in**-0.5, (fan_out, fan_in)) * (1 + np.sin(np.arange(fan_in) / 9))
        if widths is not None:
            mask = np.zeros_like(weight)
            rows = kept[index + 1] if index + 1 < len(widths) else np.arange(fan_out)
            mask[np.ix_(rows, kept[index])] = 1
            weight = weight * mask
        found |= {f"fc{index + 1}.weight": weight.astype(np.float32), f"fc{index + 1}.bias": np.zeros(fan_out, "f4")}
    return found


def _rewards(random: np.random.Generator, top: float, count: int = 120) -> list[float]:
    steps = np.arange(count)
    return [float(each) for each in top - 0.5 * np.exp(-steps / 25) + random.normal(0, 0.05, count)]


def _losses(random: np.random.Generator, count: int = 300) -> list[list[float]]:
    steps = np.arange(count)
    critic = 0.8 * np.exp(-steps / 40) + 0.02 + random.exponential(0.02, count)
    actor = -1.6 + np.exp(-steps / 60) + random.normal(0, 0.03, count)
    return [[float(a), float(b)] for a, b in zip(critic, actor, strict=True)]


def _cell(method: str, seed: int, random: np.random.Generator) -> Mapping[str, Any]:
    widths, errors, ncrs, target, seconds, before = MADE_UP[method]
    baseline = (0.985, 0.984, 0.986)[seed]
    sizes = (*widths, 10)
    macs = sum(a * b for a, b in pairwise(sizes))
    agent = method in AGENTS
    return {
        "schema": 1, "method": method, "seed": seed, "widths": dict(zip(("inputs", "fc1", "fc2"), widths, strict=True)),
        "ncr": ncrs[seed], "ncr_target": target, "macs_share": macs / 266_200, "baseline_accuracy": baseline,
        "accuracy_before": before + 0.01 * (seed - 1), "accuracy": baseline - errors[seed] / 100,
        "error": errors[seed], "search_seconds": seconds * (1 + 0.05 * (seed - 1)),
        "finetune_seconds": 60.0 + 2 * seed, "method_epochs": 0, "finetune_epochs": 40, "evaluations": 160,
        "agent_sparsity": {"acnn": 0.96 + 0.01 * (seed - 1), "amc": 0.0}.get(method, 0.9) if agent else None,
        "rewards": _rewards(random, 1.9 + 0.02 * AGENTS.index(method)) if agent else [],
        "losses": _losses(random) if agent else [],
        "criterion": "l1" if method in ("amc", "acnn", "acnn-noprox") else "reconstruction",
        "repair": method not in ("amc", "acnn", "acnn-noprox"), "weights": f"weights/{method}-{seed}.safetensors",
    }  # fmt: skip


def make_bench(folder: Path) -> Path:
    """Weights are there for seed 0 of ACNN and of edgeprune."""
    random = np.random.default_rng(1)
    header = {"schema": 1, "data": "mnist", "net": NET, "seeds": SEEDS, "methods": METHODS, "finetune_epochs": 40,
              "machine": "2 cores, Intel Xeon", "published": True}  # fmt: skip
    write(folder / "bench.json", header)
    for seed, accuracy in zip(SEEDS, (0.985, 0.984, 0.986), strict=True):
        baseline = {"schema": 1, "seed": seed, "accuracy": accuracy, "validation": 0.98, "epochs": 30, "seconds": 61.0}
        write(folder / f"baseline-{seed}.json", baseline)
        for method in METHODS:
            write(folder / "cells" / f"{method}-{seed}.json", _cell(method, seed, random))
    (folder / "weights").mkdir()
    save_file(_weights(random, None), folder / "weights" / "baseline-0.safetensors")
    for method in ("acnn", "edgeprune"):
        save_file(_weights(random, MADE_UP[method][0]), folder / "weights" / f"{method}-0.safetensors")
    points = [{"beta": beta, "accuracy": 0.985 - 0.02 * beta, "ncr": 1.5 + 2 * beta} for beta in (0.1, 0.3, 0.5, 1, 4)]
    write(folder / "beta.json", {"schema": 1, "method": "edgeprune", "seed": 0, "points": points})
    sparsity = {
        "schema": 1,
        "penalty": {"rewards": [1.90, 1.94, 1.92], "sparsity": [0.95, 0.96, 0.97]},
        "none": {"rewards": [1.85, 1.91, 1.88], "sparsity": [0.0, 0.0, 0.0]},
        "difference": 0.04,
        "interval": [-0.02, 0.1],
    }
    write(folder / "sparsity.json", sparsity)
    write(folder / "evals.json", _evals(random))
    return folder


def _evals(random: np.random.Generator) -> Mapping[str, Any]:
    methods = {}
    finals = {
        "edgeprune": (1.95, 1.96, 1.94, 1.97, 1.93),
        "random": (1.92, 1.94, 1.95, 1.93, 1.93),
        "greedy": (1.93, 1.93, 1.93, 1.93, 1.93),
    }
    for speed, (name, final) in zip((18, 45, 30), finals.items(), strict=True):
        curves = []
        for best in final:
            count = 80 if name == "greedy" else 120
            way = np.maximum.accumulate(best - 0.5 * np.exp(-np.arange(count) / speed) * random.uniform(0.5, 1, count))
            curves.append([*map(float, way[:-1]), best])
        methods[name] = {"final": final, "curves": curves}
    return {"schema": 1, "budget": 120, "seeds": list(range(5)), "methods": methods}
