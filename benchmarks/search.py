"""What a search costs: per candidate and part, against the slower of host and device, over depth and over episodes.

OMP_NUM_THREADS=1 python -m benchmarks.search [--parts candidate,overlap,depth,episodes] [--runs runs/NAME ...]

| part | what is told |
|---|---|
| candidate | seconds of surgery, repair, statistics, tuning, scoring, file, device and agent for one candidate |
| overlap | wall time over max(host, device), the device behind a real sshd; one thread each; beside it in turn |
| depth | the same seconds for ResNet-8, 20, 32 and 56, and what it takes until a search may begin |
| episodes | the agent's seconds for 40, 80 and 160 episodes, where a formula takes the place of network and device |
| trials | of finished runs (--runs): duplicates, and how much of the last quarter lies near the bound and is any good |

Weights and images are random: seconds do not hang on what they are.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from boards.board import made_keys, this_machine

from edgeprune.core.clock import Laps
from edgeprune.core.design import Group, PruningPlan
from edgeprune.core.measurement import Measurement, MeasureSettings
from edgeprune.core.progress import Silent
from edgeprune.core.session import DeviceSpec
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.core.trial import Candidate, Trial
from edgeprune.data.dataset import Dataset, Preprocessing, Split
from edgeprune.devices import find_device, open_session
from edgeprune.models.zoo import CifarResNet, build
from edgeprune.pipeline import scoring
from edgeprune.pipeline.candidates import RunIdentity
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.found import facts_of
from edgeprune.pipeline.placing import Training
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.rehearse import Shipped
from edgeprune.pipeline.scaling import Scaling
from edgeprune.pipeline.seek import Searcher, Sought, Wanted, seek
from edgeprune.pipeline.settings import settle
from edgeprune.pipeline.workshop import Workshop, measure_narrowest, workshop
from edgeprune.pruning import surgery
from edgeprune.pruning.groups import discover
from edgeprune.search.costs import Costs
from edgeprune.search.drive import Searching, drive, timed
from edgeprune.search.environment import Environment, Episode
from edgeprune.search.frontier import Frontier
from edgeprune.search.methods import make_method
from edgeprune.search.reward import BoundedReward, Limits
from edgeprune.search.space import Space
from edgeprune.search.states import Losses
from edgeprune.tasks.task import CLASSIFICATION
from edgeprune.training import brief, narrow
from edgeprune.training.batches import Batches
from edgeprune.training.place import Place

PARTS = ("surgery", "repair", "statistics", "tuning", "scoring", "file", "device", "agent")
HOST = tuple(part for part in PARTS if part != "device")
DEPTHS = {"resnet8": 1, "resnet20": 3, "resnet32": 5, "resnet56": 9}
SHAPES = {"ds-cnn": (1, 28, 28)}
BOUND = "0.6x"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", default="candidate,overlap,depth,episodes")
    parser.add_argument("--network", default="resnet20", help="of candidate and overlap")
    parser.add_argument("--candidates", type=int, default=8, help="of a search; half as many for depth")
    parser.add_argument("--steps", type=int, help="that a candidate is tuned for [as in a run]")
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="folders of finished runs, for trials")
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    asked = [*args.parts.split(","), *(["trials"] if args.runs else [])]
    for part in dict.fromkeys(asked):
        print(f"\n{part}", flush=True)
        {
            "candidate": candidate, "overlap": overlap, "depth": depth, "episodes": episodes, "trials": trials,
        }[part](args)  # fmt: skip


def candidate(args: argparse.Namespace) -> None:
    seconds, _ = searched(args.network, args, find_device("local"))
    show_heads()
    show(args.network, seconds, args.candidates)


def overlap(args: argparse.Namespace) -> None:
    """The device is a process of this machine: with one thread it has a core of its own where there are two."""
    torch.set_num_threads(1)
    show_heads()
    with board() as spec:
        for name, where, ahead in (("here, in turn", find_device("local"), 0), ("ssh, in turn", spec, 0),
                                   ("ssh, ahead", spec, 1)):  # fmt: skip
            seconds, sought = searched(args.network, args, where, ahead)
            show(name, seconds, args.candidates)
            host, device = sum(seconds[part] for part in HOST), seconds["device"]
            print(
                f"{'':16} {sought.seconds:.1f} s in all, host {host:.1f}, device {device:.1f}: "
                f"{sought.seconds / max(host, device):.2f} of the slower one",
                flush=True,
            )


def depth(args: argparse.Namespace) -> None:
    show_heads()
    count = max(1, args.candidates // 2)
    for name in DEPTHS:
        seconds, _ = searched(name, argparse.Namespace(candidates=count, steps=args.steps), find_device("local"))
        show(name, seconds, count)
        print(
            f"{'':16} before the search: groups {seconds['discover']:.1f} s, criterion and template "
            f"{seconds['opening']:.1f} s, cost of widths {seconds['costs']:.1f} s",
            flush=True,
        )


def show_heads() -> None:
    print(f"{'s a candidate':16} {' '.join(f'{part:>10}' for part in PARTS)} {'all':>7}")


def show(name: str, seconds: Mapping[str, float], count: int) -> None:
    each = [seconds[part] / count for part in PARTS]
    print(f"{name:16} {' '.join(f'{value:10.3f}' for value in each)} {sum(each):7.2f}", flush=True)


def searched(name: str, args: argparse.Namespace, spec: DeviceSpec, ahead: int = 0) -> tuple[dict[str, float], Sought]:
    """Seconds by part of a search of so many candidates, and the search."""
    laps = Laps()
    with tempfile.TemporaryDirectory(prefix="edgeprune-search-") as temporary, open_session(spec) as session:
        config = RunConfig(max_latency=BOUND, search_steps=args.steps, calibration_images=1000)
        started = time.perf_counter()
        prepared = made(name, config)
        discovered = time.perf_counter()
        settings = MeasureSettings("onnxruntime")
        folder = RunFolder(Path(temporary))
        run = RunIdentity("", folder.path, spec.name)
        with (
            contextlib.closing(TrialStore(folder / "trials.sqlite")) as store,
            workshop(
                prepared,
                run,
                folder,
                session,
                settings,
                store,
                Silent(),
                ahead=ahead > 0,
            ) as shop,
        ):
            narrowest = measure_narrowest(shop)
            opened = time.perf_counter()
            method, before = make_method("edgeprune"), dict[str, float]()

            def search(environment: Environment, *, episodes: int, seed: int) -> Searching:
                # What was measured to learn what widths cost comes before.
                before.update(laps.seconds)
                shop.evaluator.spent.clear()
                return method.search(environment, episodes=episodes, seed=seed)

            with counted(laps, shop):
                searcher = Searcher(replace(method, search=search), prepared.settled.search, 0, ahead)
                wanted = Wanted(config.budget(), args.candidates)
                sought = seek(shop, narrowest, searcher, wanted, keep=lambda _: None)
            learnt = time.perf_counter() - opened - sought.seconds
            seconds = {part: laps.seconds.get(part, 0.0) - before.get(part, 0.0) for part in PARTS}
            for part in ("file", "device"):
                seconds[part] = sum(spent.seconds.get(part, 0.0) for spent in shop.evaluator.spent.values())
    seconds["agent"] = sought.agent_seconds
    return seconds | {"discover": discovered - started, "opening": opened - discovered, "costs": learnt}, sought


@contextlib.contextmanager
def counted(laps: Laps, shop: Workshop) -> Iterator[None]:
    """While it lasts the functions that make a candidate are timed; those of the files have their own part."""

    def timing(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed_function(*args: Any, **kwargs: Any) -> Any:
            with laps(part):
                return function(*args, **kwargs)

        return timed_function

    places: list[tuple[Any, str, str]] = [
        (surgery, "cut", "surgery"),
        (type(shop.criterion), "weights", "repair"),
        (narrow, "recalibrate", "statistics"),
        (brief.BriefTuning, "__call__", "tuning"),
        (scoring, "score", "scoring"),
    ]
    before = [(where, name, getattr(where, name)) for where, name, _ in places]
    for (where, name, part), (_, _, function) in zip(places, before, strict=True):
        setattr(where, name, timing(part, function))
    try:
        yield
    finally:
        for where, name, function in before:
            setattr(where, name, function)


def made(name: str, config: RunConfig) -> Prepared:
    """A network with random weights, and random images for it."""
    shape = SHAPES.get(name, (3, 32, 32))
    torch.manual_seed(0)
    network = CifarResNet(DEPTHS[name], shape, 10) if name in DEPTHS else build(name, shape, 10)
    network.eval()
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        x = random.integers(0, 256, (count, *shape), dtype=np.uint8)
        return Split(x, random.integers(0, 10, count))

    preprocessing = Preprocessing(1 / 255, (0.5,) * shape[0], (0.25,) * shape[0])
    dataset = Dataset("random", split(8000), split(2000), split(10), tuple("0123456789"), preprocessing, "random")
    train_set, validation = (Batches(each, preprocessing) for each in (dataset.train, dataset.validation))
    structure = discover(network, shape, runtime="onnxruntime")
    facts = facts_of(dataset, network, structure, "onnxruntime")
    training = Training(Place(memory_format="channels_last"))
    return Prepared(
        dataset, train_set, validation, network, structure, facts, settle(config, facts), CLASSIFICATION, name, 0.1, {},
        Scaling(preprocessing, "data"), Shipped(("onnx",)), training,
    )  # fmt: skip


@contextlib.contextmanager
def board() -> Iterator[DeviceSpec]:
    """This machine behind a real sshd of a plain user."""
    with contextlib.ExitStack() as stack:
        keys, own, home = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"edgeprune-{name}-")))
            for name in ("keys", "sshd", "home")
        )
        yield stack.enter_context(this_machine(stack.enter_context(made_keys(keys)), own, home)).spec()


#: As many groups as ResNet-20 has, each read by the next.
GROUPS = tuple(
    Group(f"g{i}", channels, 8, 8, 1.0, 1.0, channels**2, (f"g{i}",), "channels")
    for i, channels in enumerate((16, 16, 16, 32, 32, 32, 64, 64, 64))
)


def work(widths: Mapping[str, int]) -> list[float]:
    left = [1.0, *(widths.get(group.name, group.channels) / group.channels for group in GROUPS)]
    share = sum(a * b for a, b in pairwise(left)) / len(GROUPS)
    return [share, share]


def formula(widths: Mapping[str, int]) -> Candidate:
    """Quality falls with what each group loses, the first ones most; latency goes with the work."""
    gone = [1 - widths.get(group.name, group.channels) / group.channels for group in GROUPS]
    quality = 0.9 - 0.3 * float(np.mean([(1 - i / 12) * share**2 for i, share in enumerate(gone)]))
    cost = Measurement(
        "s", (0.1 + 0.9 * work(widths)[0],) * 3, (), (1.0,) * 3, 1, 1, "mallinfo2", "", "", "d", {},
        MeasureSettings("onnxruntime"), bytes=1,
    )  # fmt: skip
    plan = PruningPlan({group.name: tuple(range(widths.get(group.name, group.channels))) for group in GROUPS})
    return Candidate(plan, quality, ncr(widths), cost, 1)


def ncr(widths: Mapping[str, int]) -> float:
    channels = sum(group.channels for group in GROUPS)
    return channels / sum(widths.get(group.name, group.channels) for group in GROUPS)


def episodes(args: argparse.Namespace) -> None:  # noqa: ARG001
    limits, space = Limits(latency=0.6), Space(GROUPS, sum(g.channels for g in GROUPS))
    method = make_method("edgeprune")
    # What a criterion would say is lost with each width.
    losses = {
        group.name: tuple((1 - k / group.channels) ** 2 * (1 - i / 12) for k in range(group.channels + 1))
        for i, group in enumerate(GROUPS)
    }
    for count in (40, 80, 160):
        frontier = Frontier(space, limits, Costs(GROUPS, work, 1))
        environment = Environment(
            space, formula, BoundedReward(0.9, limits, 1), min_ncr=None, credit="episode",
            states=method.states(GROUPS, lambda: Losses(losses)), frontier=frontier,
        )  # fmt: skip
        found: list[Episode] = []
        laps, started = Laps(), time.perf_counter()
        drive(
            timed(method.search(environment, episodes=count, seed=0), laps), environment,
            on_episode=lambda _, episode, found=found: found.append(episode),
        )  # fmt: skip
        wall = time.perf_counter() - started
        print(
            f"{count:4} episodes: agent {laps.seconds['agent']:6.2f} s ({laps.seconds['agent'] / count:.3f} each), "
            f"the rest {wall - laps.seconds['agent']:.2f} s; {told(plans_of(found), 0.6)}",
            flush=True,
        )


#: The widths of a plan, its score and its latency, a share of the unpruned network's.
Tried = tuple[tuple[int, ...], float, float]


def plans_of(found: list[Episode]) -> list[Tried]:
    tried = []
    for episode in found:
        assert isinstance(episode.candidate.cost, Measurement)
        widths = tuple(episode.candidate.plan.widths.values())
        tried.append((widths, episode.candidate.accuracy, episode.candidate.cost.quotient))
    return tried


def told(tried: list[Tried], bound: float, quality: float | None = None) -> str:
    """`quality`: what came of it in the end; None: the best score within the bound."""
    inside = [score for _, score, latency in tried if latency <= bound]
    final = quality if quality is not None else max(inside, default=0.0)
    last = tried[-max(1, len(tried) // 4) :]
    near = [abs(latency / bound - 1) <= 0.15 for _, _, latency in last]
    good = [score >= 0.9 * final for _, score, _ in last]
    both = statistics.fmean(a and b for a, b in zip(near, good, strict=True))
    twice = 1 - len({widths for widths, _, _ in tried}) / len(tried)
    return (
        f"duplicates {100 * twice:.1f} %; last quarter within 15 % of the bound {100 * statistics.fmean(near):.0f} %, "
        f"above 90 % of the final quality {100 * statistics.fmean(good):.0f} %, both {100 * both:.0f} %"
    )


def trials(args: argparse.Namespace) -> None:
    for folder in args.runs:
        result = json.loads((folder / "result.json").read_bytes())
        bound = result["config"]["max_latency"]
        if not (bound or "").endswith("x"):
            print(f"{folder}: --max-latency {bound} is no share of the unpruned network's")
            continue
        with contextlib.closing(TrialStore(folder / "trials.sqlite")) as store:
            found: list[Trial] = store.trials()
        measured = [
            (tuple(trial.candidate.plan.widths.values()), trial.candidate.accuracy, trial.candidate.cost.quotient)
            for trial in found
            if isinstance(trial.candidate.cost, Measurement)
        ]
        print(f"{folder}: {len(found)} trials; {told(measured, float(bound[:-1]), result['compressed']['accuracy'])}")


if __name__ == "__main__":
    main()
