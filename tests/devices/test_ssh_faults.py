"""A search over a bad link: a hundred faults over fifty candidates, and none of it to be seen in the results."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path

import pytest
from boards.board import ARM_PROGRAMS, HOST_PROGRAMS, Board
from boards.relay import Fault, Relay, relaying
from fakes.tiny_models import write_mlp
from needs import needs

from edgeprune.core.files import sha256_file
from edgeprune.core.measurement import Measurement, MeasureSettings
from edgeprune.devices.ssh.session import SshSession
from edgeprune.profilers.loop import LoopProfiler
from edgeprune.profilers.retry import Patience

QUICK = MeasureSettings("onnxruntime", warmup_runs=2, warmup_s=0.05, rounds=3, round_s=0.003, min_runs=3)
TIMEOUT_S, PATIENCE_S = 30.0, 60.0
#: What `LoopProfiler` promises of one measurement, and the seconds in which a channel asks for its link.
LONGEST_S = 2 * TIMEOUT_S + PATIENCE_S + 5.0


def faults(seed: int, count: int) -> list[Fault]:
    """Cut, refused and stalled: in handshakes, in uploads, and while the board computes."""
    chance = random.Random(seed)
    kinds = [
        lambda: Fault("reset", chance.randrange(120_000)),
        lambda: Fault("reset", chance.randrange(3_000)),
        lambda: Fault("stall", chance.randrange(120_000), seconds=chance.uniform(0.1, 0.3)),
        lambda: Fault("stall", chance.randrange(20_000), seconds=chance.uniform(0.1, 0.3)),
        lambda: Fault("reset", chance.randrange(20_000), silence=True),
        lambda: Fault("refuse", chance.randrange(10_000), seconds=chance.uniform(0.1, 0.3)),
        lambda: Fault("stall", chance.randrange(120_000), seconds=chance.uniform(0.1, 0.3)),
        lambda: Fault("stall", chance.randrange(20_000), silence=True, seconds=chance.uniform(0.1, 0.3)),
    ]
    return [kinds[index % len(kinds)]() for index in range(count)]


def search(board: Board, relay: Relay, folder: Path, candidates: int, planned: list[Fault]) -> None:
    """Measure so many candidates while the faults happen; every one of them must come about, and be itself."""
    baseline = write_mlp(folder / "baseline.onnx", (64, 400, 100, 10))
    files = [write_mlp(folder / f"{index}.onnx", (64, 200 + index, 100, 10), seed=index) for index in range(candidates)]
    spec = board.spec(relay)
    share = -(-len(planned) // candidates)
    with (
        SshSession(spec, patience_s=20) as session,
        LoopProfiler(session, QUICK, baseline, patience=Patience(TIMEOUT_S, PATIENCE_S)) as profiler,
    ):
        models = board.path(session.facts()["models"])
        for index, file in enumerate(files):
            relay.faults.extend(planned[index * share : (index + 1) * share])
            start = time.monotonic()
            result = profiler.measure(file)
            assert time.monotonic() - start < LONGEST_S
            assert isinstance(result, Measurement), f"candidate {index}: {result}"
            assert result.sha256 == sha256_file(file)
            assert not wrong(models)
    assert len(relay.fired) >= len(planned) - share, "the last faults did not come to pass"
    relay.faults.clear()
    SshSession(spec, patience_s=20).close()
    assert not wrong(models)
    assert not [each for each in models.iterdir() if each.name.startswith(".")]


def wrong(models: Path) -> list[str]:
    """Files whose content is not what their name says."""
    found = []
    for each in models.iterdir():
        if not each.name.startswith("."):
            digest = hashlib.sha256(each.read_bytes()).hexdigest()
            found += [each.name] if digest != each.name[:64] else []
    return found


@needs(*HOST_PROGRAMS)
@pytest.mark.soak
def test_a_hundred_faults_over_fifty_candidates(host_board: Board, relay: Relay, tmp_path: Path) -> None:
    search(host_board, relay, tmp_path, 50, faults(seed=1, count=103))
    assert len(relay.fired) >= 100


@pytest.mark.soak
@needs(*ARM_PROGRAMS)
@pytest.mark.parametrize("kind", ["reset", "stall"])
def test_an_emulated_board_over_a_bad_link(arm_board: Board, tmp_path: Path, kind: str) -> None:
    with relaying(arm_board.port) as link:
        planned = [each for each in faults(seed=2, count=14) if each.kind == kind][:2]
        search(arm_board, link, tmp_path, 2, planned)
