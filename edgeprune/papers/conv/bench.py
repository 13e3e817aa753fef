"""One network of `bench conv` with one seed: searches of it, what they found finished, and its family's widths."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeprune.core.budget import Bound
from edgeprune.core.clock import Laps
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import BudgetError, DataError
from edgeprune.core.files import storing, write_json
from edgeprune.core.inputs import plain_shape
from edgeprune.core.measurement import Measurement, MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import RUNTIMES
from edgeprune.core.session import Session
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.data.catalog import DATASETS, data_folder, load_data
from edgeprune.data.split import first_examples
from edgeprune.exporters import EXPORTERS
from edgeprune.models.zoo import FAMILIES
from edgeprune.papers.conv.config import SCRATCH, SEARCHES, ConvConfig
from edgeprune.papers.conv.folder import ConvFolder
from edgeprune.papers.conv.pace import Part
from edgeprune.papers.conv.records import Cell, Family, Finished, Latency, Seconds, Spent, Tested
from edgeprune.papers.records import read_file
from edgeprune.papers.workbench import origin
from edgeprune.pipeline.candidates import RunIdentity, needed
from edgeprune.pipeline.choose import confirmed, excess, latency_interval
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.criterion import criterion_of
from edgeprune.pipeline.export import metadata
from edgeprune.pipeline.field import Field, Side
from edgeprune.pipeline.finetune import prune_and_tune, tuner_of
from edgeprune.pipeline.possible import check_possible, with_defaults
from edgeprune.pipeline.prepare import prepare
from edgeprune.pipeline.search import confirm_best
from edgeprune.pipeline.seek import Searcher, Wanted, seek
from edgeprune.pipeline.settings import settle
from edgeprune.pipeline.validate import as_at_the_end
from edgeprune.pipeline.workshop import Narrowest, Workshop, measure_narrowest, workshop
from edgeprune.profilers.fresh import compare_fresh
from edgeprune.profilers.statistics import Interval, cost_interval
from edgeprune.pruning.cost import count_macs
from edgeprune.training.batches import Batches
from edgeprune.training.fit import Fit, predict, score, train

#: Fresh processes in which what is finished is raced; in which a width of a family is, at least, and seconds at most.
PROCESSES, FAMILY_PROCESSES, FAMILY_S = 5, 3, 15.0
#: Multipliers of a family's widths that are tried: 31/32, 30/32, ... Many round to the same network.
STEPS = 32


class Ledger:
    """Seconds that every plan took, by part (see `Evaluator.spent`), on disk: who asks for a plan is charged for it."""

    def __init__(self, path: Path, spent: Mapping[str, Laps]) -> None:
        self._path, self._spent = path, spent
        self._known = dict(read_file(path, Seconds).plans) if path.exists() else {}

    def note(self, plans: Iterable[PruningPlan]) -> None:
        """Keep what these took in this process."""
        for plan in plans:
            spent = self._spent.get(plan.key)
            if spent is not None:
                self._known[plan.key] = {**self._known.get(plan.key, {}), **spent.seconds}
        write_json(self._path, to_json(Seconds(plans=self._known)))

    def charge(self, plans: Iterable[PruningPlan], *parts: str) -> float:
        """Seconds of some parts of these plans, each counted once."""
        keys = {plan.key for plan in plans}
        return sum(self._known.get(key, {}).get(part, 0.0) for key in keys for part in parts)


class NetworkBench:
    """One network with one seed: everything that its cells share."""

    def __init__(
        self, config: ConvConfig, run: RunConfig, name: str, shop: Workshop, folder: RunFolder, narrowest: Narrowest
    ) -> None:
        self._config, self._run, self._name, self._seed = config, run, name, run.seed
        self._files = ConvFolder(config.out)
        self._protocol = config.protocol(name)
        self._shop, self._folder = shop, folder
        self._narrowest = narrowest
        self._ledger = Ledger(folder / "seconds.json", shop.evaluator.spent)
        prepared = shop.prepared
        self._test = Batches(prepared.dataset.test, prepared.dataset.preprocessing)
        self._tuner = tuner_of(prepared, shop.progress)

    def search(self, part: Part) -> str:
        """Fill the part's cell. Raises BudgetError where no network keeps the bound."""
        if part.method == SCRATCH:
            return self._narrower(part)
        shop, possible, ledger = self._shop, self._narrowest.possible, self._ledger
        run = replace(self._run, max_latency=f"{part.bound:g}x")
        budget, bound = (
            with_defaults(run.budget(), possible, shop.prepared.task.metric),
            Bound(part.bound, relative=True),
        )
        settings = settle(run, shop.prepared.facts).search
        check_possible(budget, possible, self._config.device, shop.prepared.structure)
        searcher = Searcher(SEARCHES[part.method], settings, self._seed)
        wanted = Wanted(run.budget(), self._protocol.episodes)
        sought = seek(shop, self._narrowest, searcher, wanted, keep=lambda trial: ledger.note([trial.candidate.plan]))
        field = Field(shop, (Side(shop, self._narrowest),))
        ordered = confirm_best(field, sought.trials, budget, possible.reference, 1)
        best, candidates = ordered[0].candidate, [trial.candidate for trial in sought.trials]
        tried = [each.plan for each in candidates]
        again = [trial.candidate.plan for trial in ordered if confirmed(trial)]
        ledger.note([*sought.measured, *again])
        latency = None
        if isinstance(best.cost, Measurement):
            latency = Latency.of(latency_interval(best.cost, bound, possible.reference.latency))
        host = ledger.charge([*tried, *sought.measured], "narrowing", "scoring", "file") + sought.agent_seconds
        device = ledger.charge([*tried, *sought.measured], "device") + ledger.charge(again, "again")
        self._write_cell(
            part,
            key=best.plan.key,
            widths=best.plan.widths,
            score=best.accuracy,
            latency=latency,
            keeps=excess(ordered[0], budget, possible.reference) == 0.0,
            evaluations=len(sought.trials),
            seconds=Spent(round(host, 2), round(device, 2), round(sought.agent_seconds, 2)),
            tried=tuple((c.accuracy, c.cost.quotient if isinstance(c.cost, Measurement) else None) for c in candidates),
        )  # fmt: skip
        return f"{part.label}: {100 * best.accuracy:.2f} % on validation, briefly tuned"

    def finish(self, part: Part) -> str | None:
        """Fine-tune what the part's cell found, judge it on the test set, race it; None where that was done before."""
        cell = self._files.cell(part)
        if not cell.exists():
            return None  # it was left out
        found = read_file(cell, Cell)
        path = self._files.finished(self._name, found.key, self._seed)
        if not path.exists():
            self._finish(found, path)
        lost = 100 * (self._baseline - read_file(path, Finished).accuracy)
        return f"{part.label}: {lost:.2f} points lost"

    @cached_property
    def _baseline(self) -> float:
        """Of the unpruned network, on the test set."""
        path = self._folder / "test.json"
        if not path.exists():
            write_json(path, to_json(Tested(accuracy=score(self._shop.prepared.network, self._test))))
        return read_file(path, Tested).accuracy

    def _finish(self, found: Cell, path: Path) -> None:
        shop, started = self._shop, time.monotonic()
        prepared, session = shop.prepared, shop.session
        if found.family_width is None:
            fit, plan = self._tune(found.widths)
        else:
            fit, plan = self._train(found.family_width), None
        tuned = time.monotonic()
        answers = predict(fit.network, self._test).argmax(1)
        right = (answers == self._test.y).numpy()
        file = self._export(fit.network, plan)
        alike = as_at_the_end(shop.settings, session.spec.unit, PROCESSES)
        raced = compare_fresh(session, alike, file, shop.baseline_file, shop.progress, memories=1)
        file.unlink()
        cost = needed(raced, self._config.device)
        shape = prepared.structure.shape
        finished = Finished(
            **origin(),
            network=self._name,
            seed=self._seed,
            key=found.key,
            widths=found.widths,
            epochs=fit.epochs,
            validation=fit.accuracy,
            accuracy=float(right.mean()),
            baseline_accuracy=self._baseline,
            # One bit per test image, so that two networks can be compared image by image.
            right=base64.b64encode(np.packbits(right).tobytes()).decode(),
            images=len(right),
            latency=Latency.of(cost_interval(cost.samples, cost.against, cost.process)),
            unit=cost.unit,
            verdict=cost.verdict,
            macs_share=count_macs(fit.network, shape) / count_macs(prepared.network, shape),
            seconds=round(tuned - started, 1),
        )
        write_json(path, to_json(finished))

    def _tune(self, widths: Mapping[str, int]) -> tuple[Fit, PruningPlan]:
        shop = self._shop
        prepared = shop.prepared
        _, fit, plan = prune_and_tune(
            prepared.network,
            prepared.structure,
            widths,
            lambda network, structure: (
                shop.criterion
                if network is prepared.network
                else criterion_of(prepared, network, structure, shop.progress)
            ),
            self._tuner,
        )
        return fit, plan

    def _train(self, width: float) -> Fit:
        """A network of the family as the unpruned one was trained, for as many epochs as that and fine-tuning had."""
        prepared, schedule = self._shop.prepared, self._shop.prepared.schedule
        epochs = self._protocol.train_epochs + schedule.finetune_epochs
        regime = replace(schedule.baseline(self._seed, prepared.place, "best"), epochs=epochs)
        torch.manual_seed(self._seed)
        return train(self._made(width), prepared.problem, regime, progress=self._shop.progress, title="from scratch")

    def _made(self, width: float) -> nn.Module:
        dataset = self._shop.prepared.dataset
        return FAMILIES[self._name](plain_shape(dataset.input_shape), len(dataset.classes), width)

    def _narrower(self, part: Part) -> str:
        """Find the widest network of the family that keeps the bound on the device."""
        path = self._files.family(self._name)
        # Latency does not hang on what the weights are: seeds share it.
        known = dict(read_file(path, Family).keeps) if path.exists() else {}

        def keeps(width: float) -> bool:
            key = f"{width:g}@{part.bound:g}"
            if key not in known:
                known[key] = self._race(width, Bound(part.bound, relative=True)).high <= part.bound
                write_json(path, to_json(Family(keeps=known)))
            return known[key]

        widths = distinct_widths(self._made)
        width = widest(widths, keeps)
        if width is None:
            raise BudgetError(f"no width from {widths[0]:g} to {widths[-1]:g} keeps the bound")
        convolutions = {
            name: module.out_channels for name, module in self._made(width).named_modules()
            if isinstance(module, nn.Conv2d)
        }  # fmt: skip
        self._write_cell(
            part, key=f"{SCRATCH}{width:g}", widths=convolutions, family_width=width, score=None, latency=None,
            keeps=True, evaluations=0, seconds=Spent(0.0, 0.0, 0.0), tried=(),
        )  # fmt: skip
        return f"{part.label}: width {width:g} of the family keeps the bound"

    def _race(self, width: float, bound: Bound) -> Interval:
        shop = self._shop
        file = self._export(self._made(width).eval(), None)
        alike = as_at_the_end(shop.settings, shop.session.spec.unit, FAMILY_PROCESSES, bound, FAMILY_S)
        cost = needed(compare_fresh(shop.session, alike, file, shop.baseline_file, memories=1), self._config.device)
        file.unlink()
        return cost_interval(cost.samples, cost.against, cost.process)

    def _export(self, network: nn.Module, plan: PruningPlan | None) -> Path:
        """As a file beside the unpruned one. The search's probe is ended: two races would disturb each other."""
        shop = self._shop
        kind = RUNTIMES[shop.settings.runtime].format.name
        path = self._folder / f"raced.{kind}"
        example = shop.prepared.validation.inputs(slice(0, 2))
        EXPORTERS[kind].export(network, example, path, metadata(shop.prepared, plan))
        shop.profiler.close()
        return path

    def _write_cell(self, part: Part, *, family_width: float | None = None, **found: Any) -> None:
        where: dict[str, Any] = {"network": part.network, "bound": part.bound, "method": part.method, "seed": part.seed}
        cell = Cell(**origin(), **where, family_width=family_width, **found)
        write_json(self._files.cell(part), to_json(cell))


def distinct_widths(make: Callable[[float], nn.Module]) -> list[float]:
    """Multipliers below 1, widest first, each of which makes another network."""
    found: dict[tuple[torch.Size, ...], float] = {}
    for step in range(STEPS - 1, 0, -1):
        width = step / STEPS
        found.setdefault(tuple(parameter.shape for parameter in make(width).parameters()), width)
    return [width for shapes, width in found.items() if shapes != tuple(p.shape for p in make(1.0).parameters())]


def widest(widths: Sequence[float], keeps: Callable[[float], bool]) -> float | None:
    """The first of `widths` (widest first) that keeps the bound, each tried: a narrower one may break it all the same,
    where kernels take blocks of channels.
    """
    return next((width for width in widths if keeps(width)), None)


@contextmanager
def opened(
    config: ConvConfig, name: str, seed: int, session: Session, settings: MeasureSettings, progress: Progress
) -> Iterator[NetworkBench]:
    """The unpruned network of one seed, trained where that was not done before, and what evaluates its plans."""
    protocol = config.protocol(name)
    path = ConvFolder(config.out).network(name, seed)
    with storing(path):
        path.mkdir(exist_ok=True)
    folder = RunFolder(path)
    run = RunConfig(
        data=protocol.data if protocol.data in DATASETS else str(_shared(config, protocol.data)),
        data_dir=config.data_dir,
        model=name,
        weights=None if protocol.weights is None else _shared(config, protocol.weights),
        device=config.device,
        runtime=settings.runtime,
        threads=settings.threads,
        formats=RUNTIMES[settings.runtime].format.name,
        name=path.name,
        runs_dir=path.parent,
        seed=seed,
        episodes=protocol.episodes,
        search_steps=protocol.search_steps,
        # With weights nothing is trained: asked for, training would go on from them.
        train_epochs=None if protocol.weights else protocol.train_epochs,
        finetune_epochs=protocol.finetune_epochs,
    )
    whole = load_data(run.data, run.data_dir, seed=seed, validation_share=run.validation_share, progress=progress)
    dataset = first_examples(whole, protocol.images)
    prepared = prepare(run, folder, progress, settings.runtime, dataset=dataset)
    with (
        closing(TrialStore(folder / "trials.sqlite")) as store,
        workshop(
            prepared,
            RunIdentity(path.name, path.parent, config.device),
            folder,
            session,
            settings,
            store,
            progress,
            ahead=False,
        ) as shop,
    ):
        yield NetworkBench(config, run, name, shop, folder, measure_narrowest(shop))


def _shared(config: ConvConfig, name: str) -> Path:
    """A file in the folder of data sets. Raises DataError where it is not there."""
    path = data_folder(config.data_dir) / name
    if not path.exists():
        raise DataError(f"{path} does not exist", "point --data-dir or EDGEPRUNE_DATA at the folder that has it")
    return path
