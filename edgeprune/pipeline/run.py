"""The whole job, stage by stage; the one place where real sessions, stores and clocks are plugged together."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields, replace

from edgeprune.core.errors import BudgetError, DeviceError, EdgepruneError, UnexpectedError, UsageError
from edgeprune.core.files import storing
from edgeprune.core.lock import FolderLock
from edgeprune.core.progress import Progress, Silent, Task
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.core.text import shorten
from edgeprune.core.types import Budget, DeviceSpec, MeasureSettings
from edgeprune.devices import find_device, open_session
from edgeprune.pipeline.artefacts import export_all, save_network
from edgeprune.pipeline.config import FORMAT, RunConfig, make_config, to_plain
from edgeprune.pipeline.criterion import criterion_of
from edgeprune.pipeline.finetune import fine_tune
from edgeprune.pipeline.prepare import default_stem, prepare
from edgeprune.pipeline.rehearse import rehearse
from edgeprune.pipeline.result import RunResult, Status, assemble, header
from edgeprune.pipeline.search import run_search
from edgeprune.pipeline.stored import finished, stored_config
from edgeprune.pipeline.tuned import TunedNetworks, check_tuned
from edgeprune.pipeline.validate import FINAL_S, as_at_the_end, validate

#: What a run may be resumed with more of.
RAISABLE = ("finetune_epochs", "finalists")


class _Logged:
    """A `Progress` that also writes stages and lines to run.log, and notes the stage it is in (`note`)."""

    def __init__(self, progress: Progress, log: Callable[[str], None], note: Callable[[str], None]) -> None:
        self._progress = progress
        self._log = log
        self._note = note
        self.current = "start"

    def stage(self, title: str) -> None:
        self.current = title
        self._note(title)
        self._log(f"== {title}")
        self._progress.stage(title)

    def say(self, text: str) -> None:
        self._log(text)
        self._progress.say(text)

    def task(self, title: str, total: float | None) -> AbstractContextManager[Task]:
        return self._progress.task(title, total)


def run(config: RunConfig, progress: Progress | None = None, *, resume: bool = False) -> RunResult:
    """Compress a network and prove it on the device.

    Returns when there is a validated result, whether or not it meets the budget (`RunResult.met`). With `resume` the
    run `config.name` is continued: what it evaluated, measured and tuned is not done again. One that got to its end may
    be given more `finetune_epochs` and `finalists` than it had. The folder is locked meanwhile.

    Raises EdgepruneError (see `edgeprune.core.errors`): UsageError where another process is at that run, BudgetError
    where the budget cannot be met by any network. On every error, and on KeyboardInterrupt, the run folder keeps what
    there is and result.json says how it ended.
    """
    config = make_config({field.name: getattr(config, field.name) for field in fields(RunConfig)}, "RunConfig")
    spec = find_device(config.device)
    # Settled here and kept so: a resumed run must measure as it did, whatever the device's settings say then.
    config = replace(
        config,
        runtime=config.runtime or spec.runtime or "onnxruntime",
        threads=config.threads or spec.threads or 1,
    )
    check_unit(config.budget(), spec)
    folder = _known(config) if resume else RunFolder.create(config.runs_dir, config.name, default_stem(config))
    # Nothing is written then, so that it works in a folder that may only be read.
    if resume and not _check_resumable(folder, config) and (done := _finished(folder)) is not None:
        return done
    with contextlib.closing(folder.own()) as lock:
        # Whoever had the folder until now may have come to the end.
        if resume and not _check_resumable(folder, config) and (done := _finished(folder)) is not None:
            return done
        return _owned(replace(config, name=folder.path.name), folder, lock, progress or Silent(), spec, resume=resume)


def _owned(
    config: RunConfig, folder: RunFolder, lock: FolderLock, progress: Progress, spec: DeviceSpec, *, resume: bool
) -> RunResult:
    """`run`, in a folder that is this process's alone."""

    def note(stage: str) -> None:
        folder.write_json("result.json", header(config, "running", stage))

    watch = _Logged(progress, folder.log, note)
    watch.say(f"run folder {folder.path}")
    if lock.left_by is not None:
        watch.say(f"taken over from {lock.left_by}, which was killed")
    if left := folder.sweep():
        watch.say(f"removed what was left half done: {', '.join(left)}")
    try:
        # First what tells the version, which settings of another one might not.
        note(watch.current)
        folder.write_json("config.json", to_plain(config))
        # What is denied may be a file of the user's; what is full is always where we write.
        with storing(folder.path, denied=False):
            return _stages(config, folder, watch, spec)
    except KeyboardInterrupt:
        _keep(config, folder, watch, "interrupted", "stopped by the user")
        # The command line tells the user the name to resume.
        raise KeyboardInterrupt(folder.path.name) from None
    except BudgetError as error:
        _keep(config, folder, watch, "impossible", str(error))
        raise
    except (UsageError, DeviceError) as error:
        # Before anything was made, a mistyped option or a board that is off should not leave a folder behind.
        if resume or (folder / "baseline.safetensors").exists():
            _keep(config, folder, watch, "failed", str(error))
        else:
            folder.discard()
        raise
    except EdgepruneError as error:
        _keep(config, folder, watch, "failed", str(error))
        raise
    except Exception as error:
        # A bug, here or in the user's model: the details are for whoever mends it, the user gets one line.
        _keep(config, folder, watch, "failed", traceback.format_exc())
        first = shorten((str(error).strip() or "no message").splitlines()[0], 200)
        raise UnexpectedError(
            f"unexpected {type(error).__name__} while in stage {watch.current}: {first}",
            f"the traceback is in {folder / 'run.log'}: mend the model's code, or report it",
        ) from error


def _stages(config: RunConfig, folder: RunFolder, watch: _Logged, spec: DeviceSpec) -> RunResult:
    started = time.monotonic()
    settings = MeasureSettings(runtime=config.runtime or "onnxruntime", threads=config.threads or 1)
    with open_session(spec) as session:
        watch.stage("prepare")
        prepared = prepare(
            config,
            folder,
            watch,
            settings.runtime,
            lambda network, images: rehearse(config, network, images, folder, session, settings, watch),
        )
        watch.stage("search")
        searched = run_search(config, prepared, folder, session, settings, watch)
        watch.stage("fine-tune")
        tuned = fine_tune(
            config,
            prepared,
            searched,
            lambda network, structure: criterion_of(config, prepared, network, structure, watch),
            TunedNetworks(folder, prepared.network, prepared.structure.shape),
            watch,
        )
        watch.stage("export")
        network, plan = tuned.fit.network, tuned.plan
        save_network(config, prepared, folder, network, plan)
        exported, lost = export_all(config, prepared, folder, network, plan, watch, FORMAT[settings.runtime])
        watch.stage("validate")
        final = as_at_the_end(settings, spec.unit, config.processes, searched.budget.max_latency, FINAL_S)
        accuracy, validated = validate(prepared, config.metric, tuned.before, network, exported, session, final, watch)
    files = [*validated, *lost]
    result = assemble(config, prepared, searched, tuned, accuracy, files, spec, time.monotonic() - started)
    folder.write_json("result.json", result)
    for item in result["artifacts"]:
        for drawback in item.get("drawbacks", ()):
            watch.say(f"{item['path']}: {drawback['text']}")
    watch.say(f"{result['status']} after {result['seconds']:.0f} s")
    return RunResult(folder.path, result)


def check_unit(budget: Budget, spec: DeviceSpec) -> None:
    """Raises UsageError for an absolute bound in a unit that the device does not measure in."""
    bound = budget.max_latency
    counts = spec.unit == "instructions"
    if bound is not None and not bound.relative and counts != (bound.unit == "instructions"):
        what = "instructions, which are not converted to time" if counts else "time, not instructions"
        hint = "write 12Minsn (million instructions) or 0.6x" if counts else "write 5ms or 0.6x"
        raise UsageError(f"--max-latency: {spec.name} measures {what}", hint)


def _known(config: RunConfig) -> RunFolder:
    if config.name is None:
        raise UsageError("nothing to resume: no name given", "type --resume NAME")
    return RunFolder.existing(config.runs_dir, config.name)


def _check_resumable(folder: RunFolder, config: RunConfig) -> bool:
    """Whether more is asked of a run than it was begun with: more epochs of fine-tuning, or more finalists.

    Raises UsageError where it was made with other settings than these, or has more than is asked.
    """
    earlier, tuned = stored_config(folder), check_tuned(folder)
    TrialStore.check(folder / "trials.sqlite")
    more = False
    for field in fields(RunConfig):
        # The folder may have been made under a worked-out name, or moved.
        if field.name in ("name", "runs_dir"):
            continue
        old, new = getattr(earlier, field.name), getattr(config, field.name)
        if field.name == "finetune_epochs" and earlier.finetune_minutes is None:
            # Where they were worked out, what was tuned tells how many.
            old = tuned if old is None and new is not None else old
            if old is None and new is not None:
                more = True
                continue
        if old == new:
            continue
        option = "--" + field.name.replace("_", "-")
        if field.name not in RAISABLE or new is None:
            raise UsageError(
                f"run '{config.name}' was made with {option} {old}, not {new}",
                "start a new run, or leave the option out",
            )
        if new < old:
            raise UsageError(
                f"run '{config.name}' has {option} {old:g}, and {new} are fewer: what was done is not undone",
                f"type {option} {old:g} or more, or start a new run",
            )
        if field.name == "finalists" and earlier.finetune_minutes is not None:
            raise UsageError(
                f"run '{config.name}' has --finetune-minutes, which its {old} finalists have shared",
                "leave --finalists out, or start a new run",
            )
        more = True
    return more


def _finished(folder: RunFolder) -> RunResult | None:
    """The result of a run that got to its end: there is nothing to continue."""
    result = finished(folder)
    return None if result is None else RunResult(folder.path, result)


def _keep(config: RunConfig, folder: RunFolder, watch: _Logged, status: Status, why: str) -> None:
    """Say in result.json how the run ended; a full disk must not hide the error that is on its way."""
    try:
        folder.write_json("result.json", {**header(config, status, watch.current), "error": why})
        folder.log(f"{status}: {why}")
    except EdgepruneError:
        pass
