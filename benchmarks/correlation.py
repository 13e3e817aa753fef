"""Which score of a candidate says what it is worth after full fine-tuning: Kendall's tau, over plans near a bound.

OMP_NUM_THREADS=2 python -m benchmarks.correlation --networks lenet-300-100,lenet5 [--plans 12] [--epochs 3]

Plans are drawn at random and brought to one share (--macs) of the unpruned network's multiply-accumulates, so they
differ in where they are cut and not in how much. Each is scored in several ways and then fine-tuned as a run does; what
that gives on all validation images is what a score should have told, and on test images where the network came with
weights that know the others by heart (resnet20). So should what is known of the groups before any plan is made, added
up. Seconds are those of making what is scored.
Intervals are 95 %, by the bootstrap over plans; the last ones are of how far tau lies above that of a run's own score,
over the same draws of plans.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import kendalltau
from torch import nn

from edgeprune.core.design import PruningPlan
from edgeprune.core.progress import Silent
from edgeprune.data.catalog import DATASETS, load_data
from edgeprune.models.source import load_weights
from edgeprune.models.zoo import build
from edgeprune.pipeline.criterion import make_criterion
from edgeprune.pipeline.finetune import Tuner, prune_and_tune
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.groups import discover
from edgeprune.pruning.shares import LayerShares
from edgeprune.pruning.structure import Criterion, Structure
from edgeprune.pruning.surgery import cut, mask, prune
from edgeprune.search.costs import Costs
from edgeprune.search.frontier import Frontier
from edgeprune.search.reward import Limits
from edgeprune.search.space import Space
from edgeprune.training.augmentation import Augmentation
from edgeprune.training.batches import Batches
from edgeprune.training.brief import BriefTuning
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import predict, score, train
from edgeprune.training.heap import keep_freed_memory
from edgeprune.training.narrow import narrow
from edgeprune.training.place import Place
from edgeprune.training.problem import Problem
from edgeprune.training.recalibration import recalibrate
from edgeprune.training.regime import FINETUNE_DECAY, Regime
from edgeprune.training.sensitivity import divergences

#: Validation images that a score is taken of, from the first on.
COUNTS = (500, 1000, 2000, 4000)
#: What every other score is set beside, plan by plan: what a run has for a small convolutional network.
OURS = "20x128 at 0.002; right, 4000"
DATA = {
    "lenet-300-100": "mnist",
    "lenet5": "fashion-mnist",
    "ds-cnn": "fashion-mnist",
    "mobilenetv2-small": "cifar10-jpeg.zip",
    "resnet20": "cifar10-jpeg.zip",
}


@dataclass
class Ground:
    network: nn.Module
    structure: Structure
    train: Batches
    validation: Batches
    unseen: Batches
    place: Place
    augmentation: Augmentation | None
    convolves: bool


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", default=",".join(DATA))
    parser.add_argument("--plans", type=int, default=12)
    parser.add_argument("--macs", type=float, default=0.5, help="share of the multiply-accumulates that plans leave")
    parser.add_argument("--epochs", type=int, default=3, help="of fine-tuning")
    parser.add_argument("--train-images", type=int, default=12000, help="that fine-tuning sees")
    parser.add_argument("--train-epochs", type=int, default=8, help="of the unpruned network, where it has no weights")
    parser.add_argument("--weights", type=Path, help="of the one network given")
    parser.add_argument("--tuned", default="20x128,60x128,150x128,80x32,240x32", help="STEPSxBATCH of candidates")
    parser.add_argument("--rates", default="0.002,0.01", help="learning rates of candidates")
    parser.add_argument("--shared-steps", type=int, default=0, help="steps of shared training of nested widths")
    parser.add_argument("--train-device", default="cpu", choices=("cpu", "cuda", "mps"))
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
        "reconstruction", repair=True, network=ground.network, structure=ground.structure,
        problem=Problem(ground.train, ground.validation), images=4000, seed=0, progress=Silent(),
    )  # fmt: skip
    plans = [criterion.plan(widths) for widths in draw(ground, args.plans, args.macs)]
    small = some(ground.train, args.train_images)
    made = makers(ground, criterion, args)
    answers = predict(ground.network, ground.validation, COUNTS[-1], place=ground.place).softmax(1)
    told: defaultdict[str, list[float]] = defaultdict(list)
    seconds: defaultdict[str, float] = defaultdict(float)
    truth: list[float] = []
    for way, (losses, taken) in foreknown(ground, criterion).items():
        told[way] = [-sum(losses[name][width] for name, width in plan.widths.items()) for plan in plans]
        seconds[way] = taken
    regime = Regime(
        epochs=args.epochs, learning_rate=2e-3, batch_size=128, seed=0, weight_decay=FINETUNE_DECAY,
        augmentation=ground.augmentation, place=ground.place,
        taken="best" if ground.unseen is ground.validation else "last",
    )  # fmt: skip
    # All plans see the same images, which the unpruned network is asked about once.
    teacher = Distillation(ground.network, 3.0 if ground.convolves else 1.0)
    tuner = Tuner(problem=Problem(small, ground.validation), regime=regime, teacher=teacher, progress=Silent())
    for number, plan in enumerate(plans, start=1):
        for way, make in made.items():
            started = time.perf_counter()
            pruned = make(plan)
            taken = (time.perf_counter() - started) / len(plans)
            for how, value in scores(ground, answers, pruned).items():
                told[f"{way}; {how}"].append(value)
                seconds[f"{way}; {how}"] += taken
        _, fit, _ = prune_and_tune(ground.network, ground.structure, plan.widths, lambda *_: criterion, tuner)
        truth.append(score(fit.network, ground.unseen, place=ground.place))
        print(f"{name} {number}/{len(plans)} {truth[-1]:.4f} {list(plan.widths.values())}", flush=True)
    print(f"\n{name}: {len(plans)} plans, after {args.epochs} epochs {min(truth):.4f} to {max(truth):.4f}")
    print(f"{'score':40} {'tau':>6} {'95 %':>16} {'s a plan':>9} {'above ours':>11} {'95 %':>16}")
    table = {}
    for way, values in told.items():
        tau, low, high = kendall(values, truth)
        table[way] = {"tau": tau, "interval": [low, high], "seconds": seconds[way], "scores": values}
        line = f"{way:40} {tau:6.2f} {low:7.2f} to {high:5.2f} {seconds[way]:9.2f}"
        if OURS in told and way != OURS:
            more, low, high = kendall(values, truth, told[OURS])
            line += f" {more:11.2f} {low:7.2f} to {high:5.2f}"
        print(line, flush=True)
    return {"plans": [plan.widths for plan in plans], "after": truth, "scores": table}


def make_ground(name: str, args: argparse.Namespace) -> Ground:
    torch.manual_seed(0)
    folder = Path(os.environ["EDGEPRUNE_DATA"])
    source = DATA[name] if DATA[name] in DATASETS else str(folder / DATA[name])
    data = load_data(source, folder, seed=0, progress=Silent())
    train_set, validation, test = (
        Batches(split, data.preprocessing) for split in (data.train, data.validation, data.test)
    )
    network = build(name, data.input_shape, len(data.classes))
    convolves = name != "lenet-300-100"
    place = Place(args.train_device, "channels_last") if convolves else Place(args.train_device)
    augmentation = Augmentation.fit(data.input_shape, mirrors=data.mirrors)
    keep_freed_memory()
    if args.weights is not None:
        load_weights(network, args.weights, print)
    elif name == "resnet20":
        load_weights(network, folder / "resnet20-cifar10jpeg.pt", print)
    else:
        kept = Path(f"bench/correlation-{name}.safetensors")
        if kept.exists():
            network.load_state_dict(load_file(kept))
        else:
            regime = Regime(
                epochs=args.train_epochs, learning_rate=2e-3, batch_size=128, seed=0, augmentation=augmentation,
                place=place,
            )  # fmt: skip
            fit = train(network, Problem(train_set, validation), regime, progress=Silent(), title="")
            network.load_state_dict(fit.network.state_dict())
            kept.parent.mkdir(exist_ok=True)
            save_file(network.state_dict(), kept)
    network.eval()
    structure = discover(network, data.input_shape, runtime="onnxruntime")
    unseen = test if name == "resnet20" else validation
    ground = Ground(network, structure, train_set, validation, unseen, place, augmentation, convolves)
    print(f"{name}: unpruned {score(network, unseen, place=place):.4f} on {len(unseen)} images")
    return ground


def draw(ground: Ground, count: int, macs: float) -> list[dict[str, int]]:
    """Different plans that leave a share of the multiply-accumulates."""
    groups, work = ground.structure.groups, LayerShares(ground.network, ground.structure)
    costs = Costs(groups, work, 1)
    noise = np.random.default_rng(0)
    for _ in range(200):
        widths = {g.name: g.snap(g.channels * noise.uniform(0.1, 1.0)) for g in groups}
        costs.latency.learn(widths, max(work(widths).macs, 1e-3))
    frontier = Frontier(Space(groups, 1), Limits(latency=macs), costs)
    found: list[dict[str, int]] = []
    while len(found) < count:
        widths = frontier.fit([g.channels * noise.uniform(0.2, 1.0) for g in groups])
        if widths not in found:
            found.append(widths)
    return found


def makers(
    ground: Ground, criterion: Criterion, args: argparse.Namespace
) -> dict[str, Callable[[PruningPlan], nn.Module]]:
    """The networks of a plan that may be scored, by name."""
    network, structure, place = ground.network, ground.structure, ground.place

    def narrowed(plan: PruningPlan) -> nn.Module:
        return narrow(criterion, structure, plan, ground.train, images=500)

    def tuned(long: str, rate: float) -> Callable[[PruningPlan], nn.Module]:
        steps, batch_size = map(int, long.split("x"))
        brief = BriefTuning(
            ground.train, network, steps=steps, learning_rate=rate, seed=0, place=place, batch_size=batch_size
        )
        return lambda plan: brief(narrowed(plan))

    found: dict[str, Callable[[PruningPlan], nn.Module]] = {
        "as it was: old statistics": lambda plan: prune(criterion, structure, plan),
        "statistics": narrowed,
    }
    for long in args.tuned.split(","):
        for rate in map(float, args.rates.split(",")):
            found[f"{long} at {rate:g}"] = tuned(long, rate)
    if args.shared_steps:
        started = time.perf_counter()
        shared = train_shared(ground, criterion, args.shared_steps, args.macs)
        print(f"shared training: {time.perf_counter() - started:.1f} s")

        def from_shared(plan: PruningPlan) -> nn.Module:
            pruned = cut(mask(shared, structure.couplings, plan), structure.shape, plan)
            recalibrate(pruned, (x for x, _ in ground.train.ordered(500, 500)), place)
            return pruned

        found[f"shared {args.shared_steps} steps"] = from_shared
    return found


def foreknown(ground: Ground, criterion: Ranked) -> dict[str, tuple[Mapping[str, Sequence[float]], float]]:
    """By name what is said to be lost with each width before a plan is made, and the seconds that took, for all."""
    started = time.perf_counter()
    found = divergences(criterion, ground.structure, ground.train, ground.place, Silent())
    return {
        "summed over groups: divergences": (found, time.perf_counter() - started),
        "summed over groups: lost shares": (criterion.ranking.lost, 0.0),
        "summed over groups: roots of these": (criterion.ranking.errors(), 0.0),
    }


def scores(ground: Ground, answers: torch.Tensor, pruned: nn.Module) -> dict[str, float]:
    """By name what may be said of a network's answers to the first images: what is right, and how near to `answers`.

    The second, minus the cross entropy, is less noisy than counting.
    """
    logits = predict(pruned, ground.validation, len(answers), place=ground.place)
    right = (logits.argmax(1) == ground.validation.y[: len(logits)]).double()
    near = -nn.functional.cross_entropy(logits, answers, reduction="none")
    return {
        f"{kind}, {count}": float(values[:count].mean())
        for kind, values in (("right", right), ("near", near))
        for count in COUNTS
    }


def train_shared(ground: Ground, criterion: Criterion, steps: int, macs: float) -> nn.Module:
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
    plans = draw(ground, 64, macs)
    noise = np.random.default_rng(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.005 * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        plan = criterion.plan(plans[int(noise.integers(len(plans)))])
        for coupling in structure.couplings:
            for consumer in coupling.consumers:
                keep = torch.zeros(sum(map(len, consumer.columns)))
                keep[[i for c in plan.kept[coupling.group.name] for i in consumer.columns[c]]] = 1.0
                masks[consumer.layer] = place.moved(keep)
        index = torch.from_numpy(noise.integers(len(ground.train), size=128))
        x, labels = ground.train.inputs(index), ground.train.y[index]
        with torch.no_grad():
            softened = teacher.soften(ground.network(x))
        loss = teacher.loss(place.forward(network, place.inputs(x)), place.moved(labels), place.moved(softened))
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


def kendall(scores: list[float], truth: list[float], others: list[float] | None = None) -> tuple[float, float, float]:
    """Tau-b of `scores`, less that of `others` where given, and its 95 % interval by the bootstrap over plans."""
    ways, b = [np.array(each) for each in (scores, others) if each is not None], np.array(truth)
    noise = np.random.default_rng(0)

    def tau(index: np.ndarray) -> float:
        found = [kendalltau(way[index], b[index]).statistic for way in ways]
        return float(found[0] - sum(found[1:]))

    drawn = [value for _ in range(1000) if np.isfinite(value := tau(noise.integers(len(b), size=len(b))))]
    low, high = np.quantile(drawn, (0.025, 0.975)) if drawn else (np.nan, np.nan)
    return tau(np.arange(len(b))), float(low), float(high)


if __name__ == "__main__":
    main()
