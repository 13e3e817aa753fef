"""Mutated files over all readers: nothing but our own errors, on one line, within ten seconds and two gigabytes.

    python benchmarks/fuzz.py [--files 20000] [--seed 0] [--workers 1] [--only NAME]

Each file is a whole one with small damage, read in a worker process. A worker that takes longer than ten seconds, needs
two gigabytes more than it began with, or dies, is told like an error that is not ours. Prints a line per reader, and
each such file's number, with which it can be made again; ends with 1 where there is one.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from fuzzing.mutations import mutate
from fuzzing.readers import Reader, readers

from edgeprune.core.errors import EdgepruneError

LONGEST_S, MOST_BYTES = 10, 2 << 30
LONGEST_MESSAGE = 1500


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="edgeprune-fuzz-") as folder:
        work = Path(folder)
        (work / "whole").mkdir()
        known = [each for each in readers(work / "whole") if given.only in each.name]
        for reader in known:
            path = _write(reader, reader.whole, work / "check")
            reader.read(path)
        outcomes = _run(known, given.files, given.seed, given.workers, work)
    return _report(known, outcomes)


def _run(known: list[Reader], files: int, seed: int, workers: int, work: Path) -> list[tuple[Any, ...]]:
    """(number, outcome, detail, seconds, bytes) of each file."""
    context = multiprocessing.get_context("fork")
    outcomes: list[tuple[Any, ...]] = []
    left = [iter(range(worker, files, workers)) for worker in range(workers)]
    running: dict[Connection, tuple[int, Any]] = {}

    def start(worker: int) -> None:
        ours, theirs = context.Pipe(duplex=False)
        numbers = list(left[worker])
        process = context.Process(target=_work, args=(known, numbers, seed, work / f"{worker}", theirs))
        process.start()
        theirs.close()
        running[ours] = (worker, process)
        begun[ours] = None
        rest[ours] = numbers

    begun: dict[Connection, int | None] = {}
    rest: dict[Connection, list[int]] = {}
    for worker in range(workers):
        start(worker)
    while running:
        for connection in multiprocessing.connection.wait(list(running)):
            try:
                kind, number, *what = connection.recv()  # type: ignore[union-attr]
            except EOFError:
                worker, process = running.pop(connection)  # type: ignore[arg-type]
                process.join()
                died = begun[connection]  # type: ignore[index]
                if died is not None:
                    outcomes.append(
                        (died, "other", f"the process ended with {process.exitcode}: hung or crashed", 0.0, 0)
                    )
                    numbers = rest[connection]  # type: ignore[index]
                    left[worker] = iter(numbers[numbers.index(died) + 1 :])
                    start(worker)
                continue
            begun[connection] = number if kind == "begin" else None  # type: ignore[index]
            if kind == "end":
                outcomes.append((number, *what))
    return outcomes


def _work(known: list[Reader], numbers: list[int], seed: int, folder: Path, out: Connection) -> None:
    """Read the files of these numbers, each told before and after."""
    warnings.simplefilter("ignore")
    used = _address_space()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, resource.RLIM_INFINITY))
    for number in numbers:
        reader = known[number % len(known)]
        path = _write(reader, mutate(reader.file, reader.whole, Random(f"{seed} {number}")), folder)
        out.send(("begin", number))
        faulthandler.dump_traceback_later(LONGEST_S, exit=True)
        started = time.perf_counter()
        outcome, detail = "accepted", ""
        try:
            reader.read(path)
        except EdgepruneError as error:
            outcome, detail = "refused", str(error)
            if "\n" in detail or len(detail) > LONGEST_MESSAGE or not error.hint:
                outcome, detail = (
                    "other",
                    f"a message that is long, of several lines, or says nothing to do: {detail:.300}",
                )
        except BaseException as error:  # noqa: BLE001 - a panic of a parser in Rust is no Exception
            last = traceback.extract_tb(error.__traceback__)[-1]
            outcome, detail = "other", f"{type(error).__name__}: {error!s:.200} ({last.filename}:{last.lineno})"
        seconds = time.perf_counter() - started
        faulthandler.cancel_dump_traceback_later()
        # What a damaged file made of its own text need not survive a pipe.
        detail = detail.encode("ascii", "backslashreplace").decode()
        out.send(("end", number, outcome, detail, seconds, len(path.read_bytes()) if path.is_file() else 0))
    out.close()


def _write(reader: Reader, data: bytes, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in ((reader.file, data), *reader.beside):
        path = folder / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "x" / reader.file


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _report(known: list[Reader], outcomes: list[tuple[Any, ...]]) -> int:
    by_reader: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for outcome in outcomes:
        by_reader[known[outcome[0] % len(known)].name].append(outcome)
    print(f"{'reader':24} {'files':>6} {'refused':>8} {'accepted':>9} {'others':>7} {'slowest':>8} {'largest':>9}")
    for name, each in [*by_reader.items(), ("all", outcomes)]:
        counts = Counter(outcome for _, outcome, *_ in each)
        slowest, largest = max(one[3] for one in each), max(one[4] for one in each)
        print(
            f"{name:24} {len(each):6} {counts['refused']:8} {counts['accepted']:9} {counts['other']:7} "
            f"{slowest:6.2f} s {largest:7} B"
        )
    others = sorted(outcome for outcome in outcomes if outcome[1] == "other")
    for number, _, detail, *_ in itertools.islice(others, 40):
        print(f"file {number} ({known[number % len(known)].name}): {detail}")
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
