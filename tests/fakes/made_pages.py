"""Folders of finished runs, made up: as a run leaves them, as far as a page of it reads them."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from fakes.made_results import made_front, made_result

from edgeprune.core.design import PruningPlan
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.core.store import TrialStore
from edgeprune.core.trial import Candidate, Trial
from edgeprune.pipeline.config import RunConfig, Setting, to_plain
from edgeprune.pipeline.records.result import FrontHeader

#: Channels of the groups of a made-up network.
GROUPS = {"inputs": 64, "fc1": 300, "fc2": 100}


def made_trials(count: int, unit: Any = "s") -> list[Trial]:
    """So many trials: the wider, the better, give or take; every fortieth could not be measured."""
    rng = np.random.default_rng(7)
    made = []
    for index in range(count):
        widths = {name: int(rng.integers(most // 10, most)) for name, most in GROUPS.items()}
        left = sum(widths.values()) / sum(GROUPS.values())
        samples, against = tuple(float(x) for x in 1e-5 * (0.3 + 0.7 * left) * rng.normal(1, 0.01, 11)), (1e-5,) * 11
        if unit == "instructions":
            samples, against = (float(round(2e7 * left)),), (2e7,)
        cost = Measurement(
            unit=unit, samples=samples, warmups=(), against=against,
            peak_bytes=int(1e5 * left), against_peak_bytes=100_000, memory_method="mallinfo2", sha256="a",
            against_sha256="b", device="local", facts={}, settings=MeasureSettings("onnxruntime"),
        )  # fmt: skip
        plan = PruningPlan({name: tuple(range(width)) for name, width in widths.items()})
        quality = float(np.clip(0.6 + 0.38 * left + rng.normal(0, 0.02), 0, 1))
        failed = Failure("timeout", "it took too long", True)
        found = Candidate(plan, quality, 1 / left, failed if index % 40 == 13 else cost, int(2e5 * left))
        made.append(Trial(index, found, 3 + quality, 0.5, (0.5,), (0.5,)))
    return made


def keep_trials(folder: Path, trials: list[Trial]) -> None:
    """As a search leaves them."""
    with closing(TrialStore(folder / "trials.sqlite")) as store:
        # A search waits for the disk after each; here nothing is lost by waiting once.
        store._db.execute("BEGIN")
        for trial in trials:
            store.add(trial)
        store._db.execute("COMMIT")


def whole_result(unit: Any = "s") -> dict[str, Any]:
    """A finished run with as many figures as one has."""
    rng = np.random.default_rng(1)
    made = made_result()
    made["compressed"]["layers"] = [
        {"name": name, "kind": "neurons", "channels": most, "kept": most // 3} for name, most in GROUPS.items()
    ]
    made["classes"] = [
        {"name": f"class {each}", "images": 30, "baseline_recall": 0.9, "recall": 0.9 - 0.01 * each}
        for each in range(20)
    ]
    made["search"]["losses"] = [[float(x), float(-x)] for x in rng.uniform(0.1, 1, 50)]
    made["search"]["best_trial"] = 5
    for side, scale in (("latency", 1e-5), ("baseline_latency", 2e-5)):
        samples = [float(x) for x in scale * rng.normal(1, 0.03, 120)]
        if unit == "instructions":
            samples = [scale * 1e12]
        made["artifacts"][0][side] = {"median": float(np.median(samples)), "samples": samples, "unit": unit}
    if unit != "s":
        made["device"] |= {"name": "emulated-rpi4", "kind": "emulated", "emulated": True, "unit": unit}
        made["possible"]["unit"] = unit
    made["settled"] = {"seed": to_json(Setting(0, "default")), "model": to_json(Setting("m", "given"))}
    return made


def made_run(folder: Path, trials: int = 40, result: dict[str, Any] | None = None) -> Path:
    """The folder of a finished run."""
    folder.mkdir(parents=True)
    made = whole_result() if result is None else result
    (folder / "result.json").write_text(json.dumps(made))
    keep_trials(folder, made_trials(trials, made["device"]["unit"]))
    return folder


def made_front_run(folder: Path, trials: int = 40) -> Path:
    """The folder of a run with two bounds, of which one cannot be kept."""
    folder.mkdir(parents=True)
    front, tried = made_front(), made_trials(trials)
    front["points"][0]["trial"] = 5
    front["trials"] = [
        {
            "trial": each.index, "score": each.candidate.accuracy, "ncr": each.candidate.ncr,
            "latency_share": each.candidate.cost.quotient, "memory_share": each.candidate.cost.memory_quotient,
            "bytes_share": each.candidate.bytes / 2e5,
        }
        if isinstance(each.candidate.cost, Measurement)
        else {
            "trial": each.index, "score": each.candidate.accuracy, "ncr": each.candidate.ncr,
            "latency_share": None, "memory_share": None, "bytes_share": None,
        }
        for each in tried
    ]  # fmt: skip
    header = FrontHeader(
        status="budget-not-met", stage="done", config=to_plain(RunConfig(max_latency="0.6x,0.1x")), settled={},
        front="front.json",
    )  # fmt: skip
    for name, value in (
        ("result.json", to_json(header)),
        ("front.json", front),
        ("searches.json", {"0.6x": trials, "0.1x": trials}),
    ):
        (folder / name).write_text(json.dumps(value))
    keep_trials(folder, tried)
    (folder / "0.6x").mkdir()
    (folder / "0.6x" / "result.json").write_text(json.dumps(whole_result()))
    return folder
