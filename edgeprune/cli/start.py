"""Where the program begins: Ctrl-C is answered in one line from here on, before anything that takes long is loaded."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
#: The signals that came in to end the program, as they came.
_stopped_by: list[int] = []


def main() -> None:
    """Load the command line and run it; see `edgeprune.cli.main.main` for the exit codes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # With nohup the end of the terminal is to be ignored, and it stays so; with & in a script, Ctrl-C.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        from edgeprune.cli.main import main as run  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.stderr.flush()
        # What is half loaded may not be able to end in an orderly way.
        os._exit(INTERRUPTED)
    run()


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    _stopped_by.append(number)
    raise KeyboardInterrupt


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt again where a signal's was swallowed, by a library's or the user's `except:`.

    Python drops one in a destructor or a callback too. While a KeyboardInterrupt is handled, nothing is raised: what
    it interrupted is being put in order.
    """
    if _stopped_by and not isinstance(sys.exception(), KeyboardInterrupt):
        raise KeyboardInterrupt
