"""The whole job, stage by stage; the one place where real sessions, stores and clocks are plugged together."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from edgeprune.core.budget import Budget
from edgeprune.core.errors import BudgetError, DeviceError, EdgepruneError, UnexpectedError, UsageError
from edgeprune.core.files import storing, write_bytes
from edgeprune.core.lock import FolderLock
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress, Silent
from edgeprune.core.runtimes import AUTO, FORMATS, PRECISIONS, RUNTIMES
from edgeprune.core.session import DeviceSpec, Session
from edgeprune.core.store import BACKENDS, RunFolder
from edgeprune.core.text import shorten
from edgeprune.devices import find_device, open_session
from edgeprune.pipeline.backends import as_chosen, choose_backend, chosen_backend, leaves_open
from edgeprune.pipeline.bounds import FRONT, PICTURE, REPORT
from edgeprune.pipeline.candidates import RunIdentity
from edgeprune.pipeline.config import RunConfig, make_config, to_plain
from edgeprune.pipeline.criterion import criterion_of
from edgeprune.pipeline.export import export_all, model_name, save_network
from edgeprune.pipeline.finetune import Tuner, fine_tune, tuner_of
from edgeprune.pipeline.found import data_as_given
from edgeprune.pipeline.front import FrontResult, Outcome, assemble_front
from edgeprune.pipeline.precisions import quality_at
from edgeprune.pipeline.prepare import Prepared, default_stem, prepare
from edgeprune.pipeline.quantizing import at_precisions, most_lost
from edgeprune.pipeline.records.files import Validated
from edgeprune.pipeline.records.result import EndedEarly, FrontHeader, Status
from edgeprune.pipeline.rehearse import rehearse
from edgeprune.pipeline.result import EXIT_CODES, RunResult, assemble, header
from edgeprune.pipeline.resume import finished_already, finished_bound, known_folder, searches
from edgeprune.pipeline.search import Searched, run_search
from edgeprune.pipeline.seek import Wanted
from edgeprune.pipeline.stored import stored_config
from edgeprune.pipeline.telling import Telling
from edgeprune.pipeline.tuned import TunedNetworks
from edgeprune.pipeline.validate import FINAL_S, as_at_the_end, validate

#: Opens the device, or lends one that is open.
OpenDevice = Callable[[], AbstractContextManager[Session]]


def run(
    config: RunConfig, progress: Progress | None = None, *, resume: bool = False, session: Session | None = None
) -> RunResult:
    """Compress a network and prove it on the device.

    Returns when there is a validated result, whether or not it meets the budget (`RunResult.met`). With `resume` the
    run `config.name` is continued: what it evaluated, measured and tuned is not done again. One that got to its end may
    be given more `finetune_epochs` and `finalists` than it had. The folder is locked meanwhile. Where a `session` is
    given it runs on that device, whatever `config.device` says, and leaves it open.

    Raises EdgepruneError (see `edgeprune.core.errors`): UsageError where another process is at that run, or an option
    holds several bounds, BudgetError where the budget cannot be met by any network. On every error, and on
    KeyboardInterrupt, the run folder keeps what there is and result.json says how it ended.
    """
    config.budget()
    done = _job(config, progress, session, resume=resume)
    assert isinstance(done, RunResult)
    return done


def run_front(
    config: RunConfig, progress: Progress | None = None, *, resume: bool = False, session: Session | None = None
) -> FrontResult:
    """Compress a network for each of several bounds of one option, from one search, and prove each on the device.

    Returns when every bound that can be kept at all has a validated result, as `run` has one, in a folder of its own
    inside the run's; `front.json` has them side by side. With `resume` a run is continued, which may be given more
    bounds, too: only what is missing is done. A network is warm-started from nothing but its own plan.

    Raises as `run`; UsageError where no option holds several bounds, BudgetError where none of them can be kept.
    """
    if config.front is None:
        raise UsageError("no option holds several bounds", "give several, as in --max-latency 0.8x,0.6x, or call run")
    done = _job(config, progress, session, resume=resume)
    assert isinstance(done, FrontResult)
    return done


def _job(
    config: RunConfig, progress: Progress | None, session: Session | None, *, resume: bool
) -> RunResult | FrontResult:
    config = make_config({field.name: getattr(config, field.name) for field in fields(RunConfig)}, "RunConfig")
    spec = find_device(config.device) if session is None else session.spec
    device: OpenDevice = partial(open_session, spec) if session is None else lambda: contextlib.nullcontext(session)
    # Settled here and kept so: a resumed run must measure as it did, whatever the device's settings say then; what is
    # open after that is chosen on the device, once.
    config = replace(
        config,
        device=config.device if session is None else spec.name,
        runtime=config.runtime or spec.runtime or "onnxruntime",
        threads=config.threads or spec.threads or 1,
    )
    for single in config.singles().values() or (config,):
        check_unit(single.budget(), spec)
    folder = known_folder(config) if resume else RunFolder.create(config.runs_dir, config.name, default_stem(config))
    # Nothing is written then, so that it works in a folder that may only be read.
    if resume:
        config = as_chosen(folder, config)
        if (done := finished_already(folder, config)) is not None:
            return done
    with contextlib.closing(folder.own()) as lock:
        # Whoever had the folder until now may have come to the end.
        if resume and (done := finished_already(folder, config)) is not None:
            return done
        return _owned(replace(config, name=folder.path.name), folder, lock, progress or Silent(), device, resume=resume)


def _owned(
    config: RunConfig, folder: RunFolder, lock: FolderLock, progress: Progress, device: OpenDevice, *, resume: bool
) -> RunResult | FrontResult:
    """The job, in a folder that is this process's alone."""

    def note(stage: str) -> None:
        folder.write_json("result.json", to_json(header(as_chosen(folder, config), "running", stage)))

    watch = Telling(progress, folder, note)
    watch.say(f"run folder {folder.path}")
    if lock.left_by is not None:
        watch.say(f"taken over from {lock.left_by}, which was killed")
    if left := folder.sweep():
        watch.say(f"removed what was left half done: {', '.join(left)}")
    try:
        # First what tells the version, which settings of another one might not.
        watch.begin()
        # It was made of what an earlier session came to.
        (folder / REPORT).unlink(missing_ok=True)
        # What a resumed front has searched for until now is kept before its settings say more.
        wanted = searches(folder, config, stored_config(folder)) if resume else []
        folder.write_json("config.json", to_plain(config))
        wanted = wanted or searches(folder, config, None)
        # What is denied may be a file of the user's; what is full is always where we write.
        with storing(folder.path, denied=False):
            done = _stages(config, wanted, folder, watch, device)
        watch.end(done.exit_code)
        return done
    except KeyboardInterrupt:
        _keep(config, folder, watch, "interrupted", "stopped by the user", EXIT_CODES["interrupted"])
        # The command line tells the user the name to resume.
        raise KeyboardInterrupt(folder.path.name) from None
    except BudgetError as error:
        _keep(config, folder, watch, "impossible", str(error), error.exit_code)
        raise
    except (UsageError, DeviceError) as error:
        # Before anything was made, a mistyped option or a board that is off should not leave a folder behind.
        if resume or (folder / "baseline.safetensors").exists():
            _keep(config, folder, watch, "failed", str(error), error.exit_code)
        else:
            folder.discard()
        raise
    except EdgepruneError as error:
        _keep(config, folder, watch, "failed", str(error), error.exit_code)
        raise
    except Exception as error:
        # A bug, here or in the user's model: the details are for whoever mends it, the user gets one line.
        _keep(config, folder, watch, "failed", traceback.format_exc(), UnexpectedError.exit_code)
        first = shorten((str(error).strip() or "no message").splitlines()[0], 200)
        raise UnexpectedError(
            f"unexpected {type(error).__name__} while in stage {watch.current}: {first}",
            f"the traceback is in {folder / 'run.log'}: mend the model's code, or report it",
        ) from error


def _stages(
    config: RunConfig, wanted: list[Wanted], folder: RunFolder, watch: Telling, device: OpenDevice
) -> RunResult | FrontResult:
    started = time.monotonic()
    with device() as session:
        dataset = None
        if leaves_open(config):
            watch.stage("choose")
            dataset = data_as_given(config, watch)
            folder.write_json(BACKENDS, to_json(choose_backend(config, dataset, session, watch)))
            config = as_chosen(folder, config)
            folder.write_json("config.json", to_plain(config))
        settings = config.measured
        watch.stage("prepare")
        prepared = prepare(
            config,
            folder,
            watch,
            settings.runtime,
            lambda network, images: rehearse(
                config.exported,
                network,
                images,
                folder,
                session,
                settings,
                watch,
                config.precisions,
                choose=config.precision == AUTO,
            ),
            dataset,
        )
        if (chosen := chosen_backend(folder)) is not None:
            prepared = prepared.measured_by(chosen)
        watch.stage("search")
        run = RunIdentity(folder.path.name, config.runs_dir, config.device, config.on_device_loss)
        searched = run_search(wanted, prepared, run, folder, session, settings, watch)
        ending = _Ending(prepared, folder, session, settings, watch, tuner_of(prepared, watch))
        if config.front is None:
            (found,) = searched
            # Of a single budget that cannot be met the search raises the error.
            assert isinstance(found, Searched)
            result = ending.finish(config, found, folder, started)
            folder.write_json("result.json", result)
            watch.say(f"{result['status']} after {result['seconds']:.0f} s")
            return RunResult(folder.path, result)
        answers = dict(zip((want.name for want in wanted), searched, strict=True))
        outcomes = ending.finish_all(config, answers)
    found = next(each for each in searched if isinstance(each, Searched))
    front = assemble_front(config, prepared, found, outcomes, time.monotonic() - started)
    plain = to_json(front)
    folder.write_json(FRONT, plain)
    # It was drawn of an earlier front.
    (folder / PICTURE).unlink(missing_ok=True)
    ended = FrontHeader(
        status=front.status, stage="done", config=to_plain(config), settled=prepared.settled.told(), front=FRONT
    )
    folder.write_json("result.json", to_json(ended))
    watch.say(f"{front.status} after {front.seconds:.0f} s")
    return FrontResult(folder.path, plain)


@dataclass(frozen=True, slots=True)
class _Ending:
    """What comes after the search, once for a run and once for each bound of a front."""

    prepared: Prepared
    folder: RunFolder
    session: Session
    settings: MeasureSettings
    watch: Telling
    #: Of all bounds: their networks see the same images.
    tuner: Tuner

    def finish(
        self, config: RunConfig, searched: Searched, into: RunFolder, started: float, name: str = ""
    ) -> dict[str, Any]:
        """Tune, export and validate; files are left `into` a folder, its result.json is not. The result, as JSON."""
        prepared, session, settings, watch = self.prepared, self.session, self.settings, self.watch
        measured = RUNTIMES[settings.runtime].format.name
        title = f"{name}: " if name else ""
        watch.stage(f"{title}fine-tune")
        tuned = fine_tune(
            prepared,
            searched,
            lambda network, structure: criterion_of(prepared, network, structure, watch),
            TunedNetworks(self.folder, prepared.network, prepared.structure.shape),
            self.tuner,
            lambda network, precision: quality_at(prepared, network, measured, precision),
        )
        chosen = tuned.trial.candidate.precision
        prepared = replace(prepared, shipped=prepared.shipped.chosen(chosen))
        if prepared.shipped.choose:
            watch.say(f"precision: {chosen}, of trial {tuned.trial.index}")
        watch.stage(f"{title}export")
        network, plan = tuned.fit.network, tuned.plan
        save_network(prepared, into, network, plan)
        exported, lost = export_all(prepared, into, network, plan, watch, measured)
        most = most_lost(config.budget(), prepared.task.metric)
        lower, without = at_precisions(prepared, into, network, plan, exported, most, watch, self.tuner)
        exported, lost = [*exported, *lower], [*lost, *without]
        watch.stage(f"{title}validate")
        spec = session.spec
        final = as_at_the_end(settings, spec.unit, config.processes, searched.budget.max_latency, FINAL_S)
        scores, validated = validate(prepared, tuned.before, network, exported, session, final, watch)
        files = [*validated, *lost]
        result = assemble(config, prepared, searched, tuned, scores, files, spec, time.monotonic() - started)
        for item in result.artifacts:
            for drawback in item.drawbacks if isinstance(item, Validated) else ():
                watch.say(f"{item.path}: {drawback.text}")
        plain: dict[str, Any] = to_json(result)
        return plain

    def finish_all(self, config: RunConfig, answers: Mapping[str, Searched | BudgetError]) -> dict[str, Outcome]:
        """Each bound of a front, the loosest first, in a folder of its own; what is finished there stays as it is."""
        # A run of one bound that was given more had its network here.
        models = (model_name(kind, precision) for kind in FORMATS for precision in PRECISIONS)
        for file in ("plan.json", "pruned.safetensors", *models):
            (self.folder / file).unlink(missing_ok=True)
        outcomes: dict[str, Outcome] = {}
        for name, single in config.singles().items():
            found, into = answers[name], RunFolder(self.folder / name)
            if isinstance(found, BudgetError):
                outcomes[name] = found
                continue
            if (done := finished_bound(self.folder, name, single)) is not None:
                outcomes[name] = done
                continue
            into.path.mkdir(exist_ok=True)
            self._share_baselines(self.folder, into)
            outcomes[name] = result = self.finish(single, found, into, time.monotonic(), name)
            into.write_json("result.json", result)
            self._share_baselines(into, self.folder)
            self.watch.say(f"{name}: {result['status']} after {result['seconds']:.0f} s")
        return outcomes

    def _share_baselines(self, source: RunFolder, target: RunFolder) -> None:
        """Copy the exported unpruned network, which is the same for every bound."""
        for kind in self.prepared.shipped.formats:
            name = f"baseline.{kind}"
            if (source / name).exists() and not (target / name).exists():
                write_bytes(target / name, (source / name).read_bytes())


def check_unit(budget: Budget, spec: DeviceSpec) -> None:
    """Raises UsageError for an absolute bound in a unit that the device does not measure in."""
    bound = budget.max_latency
    counts = spec.unit == "instructions"
    if bound is not None and not bound.relative and counts != (bound.unit == "instructions"):
        what = "instructions, which are not converted to time" if counts else "time, not instructions"
        hint = "write 12Minsn (million instructions) or 0.6x" if counts else "write 5ms or 0.6x"
        raise UsageError(f"--max-latency: {spec.name} measures {what}", hint)


def _keep(config: RunConfig, folder: RunFolder, watch: Telling, status: Status, why: str, code: int) -> None:
    """Say in result.json how the run ended; a full disk must not hide the error that is on its way."""
    try:
        ended = EndedEarly(status=status, stage=watch.current, config=to_plain(as_chosen(folder, config)), error=why)
        folder.write_json("result.json", to_json(ended))
        folder.log(f"{status}: {why}")
    except EdgepruneError:
        pass
    watch.end(code)
