"""A `result.json` and a `front.json`, made up: every field is there."""

from __future__ import annotations

from typing import Any

from edgeprune.core.budget import Budget
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.pipeline.config import RunConfig, Setting, to_plain
from edgeprune.pipeline.records.files import Latency, NotExported, Speedup, Validated
from edgeprune.pipeline.records.front import Between, Front, FrontDevice, Impossible, Reached, Tried, Unpruned
from edgeprune.pipeline.records.network import After, BeforeTrained, Data, Layer, Recall, Scaled, Staying
from edgeprune.pipeline.records.result import Check, Device, Judged, Result, Trained
from edgeprune.pipeline.records.search import MeanReward, Possible, Reference, Search
from edgeprune.search.reward import Reward


def made_result() -> dict[str, Any]:
    """A finished run."""
    scores = {"accuracy": 0.9, "balanced-accuracy": 0.9}
    shipped = Validated(
        format="onnx", exported=True, validated=True, precision="fp32",
        path="model.onnx", sha256="a", bytes=10, baseline_path="baseline.onnx",
        baseline_sha256="b", baseline_bytes=20, parity_max_abs=1e-6, runtime="onnxruntime", device_scores=scores,
        baseline_device_scores=scores, agreement=1.0, latency=Latency(1e-5, (1e-5,), "s"),
        baseline_latency=Latency(2e-5, (2e-5,), "s"), process=(0,),
        speedup=Speedup(value=2.0, ci_low=1.9, ci_high=2.1, processes=1, left_out=0), load_s=0.1, first_s=None,
        peak_bytes=10, baseline_peak_bytes=20, memory_method="mallinfo2", settings=MeasureSettings("onnxruntime"),
        states=({"load": [0.1]},), verdict="stable", advice="", rejected=0, drawbacks=(),
    )  # fmt: skip
    before = BeforeTrained(
        scores=scores, interval=(0.8, 0.95), validation_score=0.9, neurons=10, parameters=100, macs=90, uncounted={},
        source="trained", epochs=3, key="k",
    )  # fmt: skip
    after = After(
        scores=scores, scores_before_finetune={"accuracy": 0.8}, interval=(0.8, 0.95), validation_score=0.9, lost=0.0,
        lost_unit="points", ncr=2.0, neurons=5, parameters=50, macs=45, finetune_epochs=2.0, epoch_taken="best",
        layers=(Layer("fc1", "neurons", 6, 3),), frozen={"head": Staying("it gives the output", 9, 0.1, 10)},
    )  # fmt: skip
    search = Search(
        method="edgeprune", agent="proximal-ddpg", credit="episode", criterion="l1", episodes=4, converged=False,
        stopped="", seconds=1.0, device_seconds=0.5, measured=4, cache_hits=0, failures=0, candidates="sliced",
        agent_sparsity=0.9, warm_up_episodes=2, mean_reward=MeanReward(0.5, 0.6), losses=((0.1, 0.2),),
        reward=Reward(0.9, 2.0, 0.6, 0.6), chance_level=0.1, at_chance=0, best_trial=1,
    )  # fmt: skip
    check = Check(bound="max_drop", limit=1.0, value=0.5, unit="points", default=False, answer="met", met=True)
    scaled = Scaled(scale=0.1, mean=(0.0,), std=(1.0,), formula="x / 16", source="data", tried=())
    unable = NotExported(format="tflite", exported=False, path=None, validated=False, why_not="no such operator")
    result = Result(
        status="done", stage="done", config=to_plain(RunConfig()), task="classification", metric="accuracy",
        device=Device(name="local", kind="local", emulated=False, unit="s", facts={"cores": 2}),
        data=Data(
            name="digits", fingerprint="f", train=9, validation=9, test=9, input_shape=(8, 8), preprocessing=scaled
        ),
        baseline=before, compressed=after, classes=(Recall("0", 9, 0.9, 0.8),),
        artifacts=(shipped, unable), search=search,
        possible=Possible(3.0, 0.4, 0.4, Reference(2e-5, 20, 20), 5), settled={"seed": Setting(0, "default")},
        training=Trained(device="cpu", memory_format="contiguous", precision="float32", timed=()), seconds=9.0,
        budget=Judged(
            asked=Budget(), artifact="model.onnx", checks=(check,), answer="met", met=True, recommended=True
        ),
    )  # fmt: skip
    plain: dict[str, Any] = to_json(result)
    return plain


def made_front() -> dict[str, Any]:
    """Two bounds, of which one cannot be kept."""
    quality = Between(0.9, 0.8, 0.95)
    point = Reached(
        name="0.6x", asked="0.6x", limit=0.6, status="done", answer="met", missed=(), recommended=True, path="0.6x",
        file="0.6x/model.onnx", trial=0, quality=quality, drop=0.1, latency=1e-5,
        latency_share=Between(0.5, 0.49, 0.51), peak_bytes=10, memory_share=0.5, bytes=10, bytes_share=0.5, ncr=2.0,
    )  # fmt: skip
    none = Impossible(
        name="0.1x", asked="0.1x", limit=0.1, status="impossible", answer="not met", error="no", path=None
    )
    front = Front(
        status="budget-not-met", model="m", data="d", task="classification", metric="accuracy", bound="max_latency",
        device=FrontDevice(name="local", kind="local", emulated=False, unit="s"),
        unpruned=Unpruned(quality=quality, latency=2e-5, peak_bytes=20, bytes=20),
        points=(point, none),
        trials=(Tried(trial=0, score=0.9, latency_share=0.5, memory_share=0.5, bytes_share=None, ncr=2.0),),
        seconds=9.0,
    )  # fmt: skip
    plain: dict[str, Any] = to_json(front)
    return plain
