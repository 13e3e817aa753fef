"""Which score of a candidate says what it is worth after full fine-tuning: Kendall's tau, over plans near a bound.

OMP_NUM_THREADS=2 python -m benchmarks.correlation --networks lenet-300-100,lenet5 [--plans 12] [--epochs 3]

Plans are drawn at random and brought to half of the unpruned network's multiply-accumulates, so they differ in
where they are cut and not in how much. Each is scored in several ways and then fine-tuned as a run does; what that
gives on all validation images is what a score should have told. Intervals are 95 %, by the bootstrap over plans.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import kendalltau
from torch import nn

from edgeprune.core.progress import Silent
from edgeprune.core.types import PruningPlan
from edgeprune.data.catalog import load_data
from edgeprune.models.source import load_weights
from edgeprune.models.zoo import build
from edgeprune.pipeline.criterion import make_criterion
from edgeprune.pipeline.finetune import FineTune, prune_and_tune
from edgeprune.pruning.groups import discover
from edgeprune.pruning.shares import LayerShares
from edgeprune.pruning.structure import Structure
from edgeprune.pruning.surgery import cut, mask, prune
from edgeprune.search.costs import Costs
from edgeprune.search.frontier import Frontier
from edgeprune.search.reward import Limits
from edgeprune.training.augmentation import Augmentation
from edgeprune.training.batches import Batches
from edgeprune.training.brief import BriefTuning
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import predict, score, train
from edgeprune.training.heap import keep_freed_memory
from edgeprune.training.narrow import narrow
from edgeprune.training.place import PLAIN, Place
from edgeprune.training.recalibration import recalibrate

DATA = {"lenet-300-100": "mnist", "lenet5": "fashion-mnist", "ds-cnn": "fashion-mnist", "resnet20": "cifar10-jpeg.zip"}


@dataclass
class Ground:
    network: nn.Module
    structure: Structure
    train: Batches
    validation: Batches
    place: Place
    augmentation: Augmentation | None
    convolves: bool


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", default=",".join(DATA))
    parser.add_argument("--plans", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=3, help="of fine-tuning")
    parser.add_argument("--train-images", type=int, default=12000, help="that fine-tuning sees")
    parser.add_argument("--train-epochs", type=int, default=8, help="of the unpruned network, where it has no weights")
    parser.add_argument("--weights", type=Path, help="of the one network given")
    parser.add_argument("--tuned", default="20x128,60x128,150x128,80x32,240x32", help="STEPSxBATCH of candidates")
    parser.add_argument("--rates", default="0.002,0.01", help="learning rates of candidates")
    parser.add_argument("--shared-steps", type=int, default=0, help="steps of shared training of nested widths")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results = {}
    for name in args.networks.split(","):
        results[name] = one(name, args)
        if args.out:
            args.out.write_text(json.dumps(results))


def one(name: str, args: argparse.Namespace) -> dict[str, object]:
    ground = make_ground(name, args)
    criterion = make_criterion(
        "reconstruction", repair=True, network=ground.network, structure=ground.structure, train_set=ground.train,
        validation=ground.validation, images=4000, seed=0, progress=Silent(),
    )  # fmt: skip
    plans = [criterion.plan(widths) for widths in draw(ground, args.plans)]
    small = some(ground.train, args.train_images)
    ways = scores(ground, criterion, args)
    told: dict[str, list[float]] = {way: [] for way in ways}
    seconds: dict[str, float] = dict.fromkeys(ways, 0.0)
    truth: list[float] = []
    for number, plan in enumerate(plans, start=1):
        for way, score_of in ways.items():
            started = time.perf_counter()
            told[way].append(score_of(plan))
            seconds[way] += (time.perf_counter() - started) / len(plans)
        settings = FineTune(
            epochs=args.epochs, temperature=3.0 if ground.convolves else 1.0, augmentation=ground.augmentation,
            place=ground.place,
        )  # fmt: skip
        _, fit, _ = prune_and_tune(
            ground.network, ground.structure, plan.widths, lambda *_: criterion, train_set=small,
            validation=ground.validation, settings=settings, seed=0, progress=Silent(),
        )  # fmt: skip
        truth.append(fit.accuracy)
        print(f"{name} {number}/{len(plans)} {fit.accuracy:.4f} {list(plan.widths.values())}", flush=True)
    print(f"\n{name}: {len(plans)} plans, after {args.epochs} epochs {min(truth):.4f} to {max(truth):.4f}")
    print(f"{'score':34} {'tau':>6} {'95 %':>16} {'s a plan':>9}")
    table = {}
    for way, values in told.items():
        tau, low, high = kendall(values, truth)
        table[way] = {"tau": tau, "interval": [low, high], "seconds": seconds[way], "scores": values}
        print(f"{way:34} {tau:6.2f} {low:7.2f} to {high:5.2f} {seconds[way]:9.2f}", flush=True)
    return {"plans": [plan.widths for plan in plans], "after": truth, "scores": table}


def make_ground(name: str, args: argparse.Namespace) -> Ground:
    torch.manual_seed(0)
    data = load_data(DATA[name], Path(os.environ["EDGEPRUNE_DATA"]), seed=0, progress=Silent())
    train_set, validation = (Batches(split, data.preprocessing) for split in (data.train, data.validation))
    network = build(name, data.input_shape, len(data.classes))
    convolves = name != "lenet-300-100"
    place = Place(memory_format="channels_last") if convolves else PLAIN
    augmentation = Augmentation.fit(data.input_shape, mirrors=data.mirrors)
    keep_freed_memory()
    if args.weights is not None:
        load_weights(network, args.weights, print)
    elif name == "resnet20":
        load_weights(network, Path(os.environ["EDGEPRUNE_DATA"]) / "resnet20-cifar10jpeg.pt", print)
    else:
        kept = Path(f"bench/correlation-{name}.safetensors")
        if kept.exists():
            network.load_state_dict(load_file(kept))
        else:
            fit = train(
                network, train_set, validation, epochs=args.train_epochs, learning_rate=2e-3, batch_size=128, seed=0,
                progress=Silent(), title="", augmentation=augmentation, place=place,
            )  # fmt: skip
            network.load_state_dict(fit.network.state_dict())
            kept.parent.mkdir(exist_ok=True)
            save_file(network.state_dict(), kept)
    network.eval()
    structure = discover(network, data.input_shape, runtime="onnxruntime")
    ground = Ground(network, structure, train_set, validation, place, augmentation, convolves)
    print(f"{name}: unpruned {score(network, validation, place=place):.4f} on {len(validation)} validation images")
    return ground


def draw(ground: Ground, count: int) -> list[dict[str, int]]:
    """Different plans at half of the multiply-accumulates."""
    groups, work = ground.structure.groups, LayerShares(ground.network, ground.structure)
    costs = Costs(groups, work, 1)
    noise = np.random.default_rng(0)
    for _ in range(200):
        widths = {g.name: g.snap(g.channels * noise.uniform(0.1, 1.0)) for g in groups}
        costs.latency.learn(widths, max(work(widths).macs, 1e-3))
    frontier = Frontier(groups, Limits(latency=0.5), costs, lambda _: 1.0)
    found: list[dict[str, int]] = []
    while len(found) < count:
        widths = frontier.fit([g.channels * noise.uniform(0.2, 1.0) for g in groups])
        if widths not in found:
            found.append(widths)
    return found


def scores(ground: Ground, criterion: object, args: argparse.Namespace) -> dict[str, Callable[[PruningPlan], float]]:
    """The ways to score a plan, by name."""
    network, structure, place = ground.network, ground.structure, ground.place

    def right(pruned: nn.Module, images: int | None) -> float:
        return score(pruned, ground.validation, images, place=place)

    def agreement(pruned: nn.Module) -> float:
        """Less noisy than counting what is right: minus the cross entropy to the unpruned network's answers."""
        logits = predict(pruned, ground.validation, 2000, place=place)
        return -float(nn.functional.cross_entropy(logits, answers))

    answers = predict(network, ground.validation, 2000, place=place).softmax(1)
    known: dict[tuple[str, str, float], nn.Module] = {}

    def tuned(plan: PruningPlan, long: str, rate: float) -> nn.Module:
        key = (plan.key, long, rate)
        if key not in known:
            steps, batch_size = map(int, long.split("x"))
            brief = BriefTuning(
                ground.train, network, steps=steps, learning_rate=rate / 5, seed=0, place=place, batch_size=batch_size
            )
            known[key] = brief(narrow(criterion, structure, plan, ground.train, images=500))  # type: ignore[arg-type]
        return known[key]

    ways: dict[str, Callable[[PruningPlan], float]] = {
        "as it was: old statistics, 1000": lambda p: right(prune(criterion, structure, p), 1000),  # type: ignore[arg-type]
        "statistics, 1000": lambda p: right(narrow(criterion, structure, p, ground.train, images=500), 1000),  # type: ignore[arg-type]
    }
    for long in args.tuned.split(","):
        for rate in map(float, args.rates.split(",")):
            # The first of each is charged for the tuning.
            ways[f"{long} at {rate:g}, 1000"] = lambda p, s=long, r=rate: right(tuned(p, s, r), 1000)
            ways[f"{long} at {rate:g}, 4000"] = lambda p, s=long, r=rate: right(tuned(p, s, r), 4000)
            ways[f"{long} at {rate:g}, answers"] = lambda p, s=long, r=rate: agreement(tuned(p, s, r))
    shared_steps = args.shared_steps
    if shared_steps:
        started = time.perf_counter()
        shared = train_shared(ground, criterion, shared_steps)
        print(f"shared training: {time.perf_counter() - started:.1f} s")

        def from_shared(plan: PruningPlan) -> nn.Module:
            pruned = cut(mask(shared, structure.couplings, plan), structure.shape, plan)
            recalibrate(pruned, (x for x, _ in ground.train.ordered(500, 500)), place)
            return pruned

        ways[f"shared {shared_steps} steps, 1000"] = lambda p: right(from_shared(p), 1000)
        ways[f"shared {shared_steps} steps, 4000"] = lambda p: right(from_shared(p), 4000)
        ways[f"shared {shared_steps} steps, answers"] = lambda p: agreement(from_shared(p))
    return ways


def train_shared(ground: Ground, criterion: object, steps: int) -> nn.Module:
    """Nested widths trained together (Yu & Huang 2019): at each step one drawn plan, its channels masked where read."""
    place, structure = ground.place, ground.structure
    network = place.copy(ground.network).train()
    teacher = Distillation(ground.network, 3.0, share=1.0)
    masks: dict[str, torch.Tensor] = {}

    def hook(layer: str) -> Callable[..., tuple[torch.Tensor, ...]]:
        def masked(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            x = args[0]
            keep = masks[layer]
            return (x * (keep.reshape(1, -1, 1, 1) if x.ndim == 4 else keep), *args[1:])

        return masked

    handles = [
        network.get_submodule(consumer.layer).register_forward_pre_hook(hook(consumer.layer))
        for coupling in structure.couplings
        for consumer in coupling.consumers
    ]
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.005)
    plans = draw(ground, 64)
    noise = np.random.default_rng(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.005 * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        plan = criterion.plan(plans[int(noise.integers(len(plans)))])  # type: ignore[attr-defined]
        for coupling in structure.couplings:
            for consumer in coupling.consumers:
                keep = torch.zeros(sum(map(len, consumer.columns)))
                keep[[i for c in plan.kept[coupling.group.name] for i in consumer.columns[c]]] = 1.0
                masks[consumer.layer] = keep
        index = torch.from_numpy(noise.integers(len(ground.train), size=128))
        x, labels = ground.train.inputs(index), ground.train.y[index]
        with torch.no_grad():
            softened = teacher.soften(ground.network(x))
        loss = teacher.loss(place.forward(network, place.inputs(x)), labels, softened)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    for handle in handles:
        handle.remove()
    return place.back(network).eval()


def some(batches: Batches, count: int) -> Batches:
    """The first `count` examples."""
    from copy import copy  # noqa: PLC0415

    other = copy(batches)
    other.x, other.y = batches.x[:count], batches.y[:count]
    return other


def kendall(scores: list[float], truth: list[float]) -> tuple[float, float, float]:
    """Tau-b, and its 95 % interval by the bootstrap over plans."""
    a, b = np.array(scores), np.array(truth)
    noise = np.random.default_rng(0)
    drawn = []
    for _ in range(1000):
        index = noise.integers(len(a), size=len(a))
        tau = kendalltau(a[index], b[index]).statistic
        if np.isfinite(tau):
            drawn.append(tau)
    low, high = np.quantile(drawn, (0.025, 0.975)) if drawn else (np.nan, np.nan)
    return float(kendalltau(a, b).statistic), float(low), float(high)


if __name__ == "__main__":
    main()
