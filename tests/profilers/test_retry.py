from __future__ import annotations

import pytest

from edgeprune.core.clock import Deadline
from edgeprune.devices.channel import ChannelError
from edgeprune.profilers.retry import Patience, persist


class Device:
    """Fails with each kind of `script` in turn, then works."""

    def __init__(self, *script: str) -> None:
        self.script = list(script)
        self.slept: list[float] = []
        self.heard: list[str] = []

    def work(self, deadline: Deadline) -> str:
        assert deadline.left() > 0
        if self.script:
            raise ChannelError(self.script.pop(0), "trouble")  # type: ignore[arg-type]
        return "done"

    def run(self, patience_s: float = 60.0) -> str:
        return persist(
            self.work,
            Patience(5.0, patience_s),
            again=lambda error: self.heard.append(error.kind),
            sleep=self.slept.append,
        )


def test_work_that_succeeds_is_done_once() -> None:
    device = Device()
    assert device.run() == "done"
    assert device.heard == []


@pytest.mark.parametrize("kind", ["crashed", "killed", "timeout", "garbled"])
def test_a_failure_of_its_own_is_tried_twice(kind: str) -> None:
    assert Device(kind).run() == "done"
    with pytest.raises(ChannelError) as caught:
        Device(kind, kind).run()
    assert caught.value.kind == kind


@pytest.mark.parametrize("kind", ["refused", "full"])
def test_what_will_not_change_is_not_tried_again(kind: str) -> None:
    device = Device(kind)
    with pytest.raises(ChannelError):
        device.run()
    assert device.heard == []


@pytest.mark.parametrize("kind", ["lost", "busy"])
def test_a_device_that_is_away_is_waited_for(kind: str) -> None:
    device = Device(*[kind] * 20)
    assert device.run() == "done"
    assert device.heard == [kind] * 20
    assert device.slept[0] < device.slept[3] <= max(device.slept) == device.slept[-1] == 5.0


def test_losses_do_not_use_up_the_tries_of_a_crash() -> None:
    assert Device("lost", "crashed", "lost", "lost").run() == "done"


def test_patience_ends() -> None:
    device = Device(*["lost"] * 5)
    with pytest.raises(ChannelError):
        device.run(patience_s=0.0)
    assert device.slept == []
