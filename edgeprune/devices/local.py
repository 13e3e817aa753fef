"""This machine as a device: a work folder and a subprocess."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.core.files import sha256_file
from edgeprune.core.session import Answer, DeviceSpec
from edgeprune.core.temporary import TemporaryFolder
from edgeprune.devices.channel import ChannelError, ProcessChannel
from edgeprune.devices.common import STEADY, plain_name


class LocalSession:
    """A `Session` (see `edgeprune.core.session`) on this machine; also a context manager."""

    def __init__(self, spec: DeviceSpec) -> None:
        """Make the work folder. Raises DeviceError where `spec.python` does not exist or the folder cannot be made."""
        self._spec = spec
        self._python = _find_python(spec.python)
        try:
            self._folder = TemporaryFolder()
        except OSError as error:
            raise DeviceError(
                f"no work folder in {tempfile.gettempdir()}: {error.strerror}", "set TMPDIR to a folder you may write"
            ) from error
        self._work = self._folder.path
        # Read once: facts do not change while a session is open.
        self._free_bytes = shutil.disk_usage(self._work).free
        self._channels: list[ProcessChannel] = []

    @property
    def spec(self) -> DeviceSpec:
        """What was opened."""
        return self._spec

    def facts(self) -> Mapping[str, Any]:
        """What the machine is; the probe's `hello` adds the processor, the runtime and the libraries."""
        return {
            "device": self._spec.name,
            "kind": self._spec.kind,
            "emulated": self._spec.emulated,
            "machine": platform.machine(),
            "free_bytes": self._free_bytes,
            "system": platform.system(),
        }

    def push(self, path: Path) -> str:
        """Copy into the work folder under the name of the content. Raises DeviceError."""
        try:
            digest = sha256_file(path)
            target = self._work / f"{digest}{path.suffix}"
            if target.exists():
                return str(target)
            # A copy and no hard link: the file may be rewritten in place while it is measured.
            temporary = target.with_name(f".{target.name}.tmp")
            shutil.copyfile(path, temporary)
            if sha256_file(temporary) != digest:
                raise DeviceError(f"{path} changed while it was copied")
            temporary.replace(target)
        except OSError as error:
            raise DeviceError(
                f"cannot copy {path} to {self._work}: {error.strerror}", "free some space there, or set TMPDIR"
            ) from error
        return str(target)

    def pull(self, remote: str, path: Path) -> None:
        """Copy a file of the work folder to `path`. Raises DeviceError."""
        try:
            shutil.copyfile(remote, path)
        except OSError as error:
            raise DeviceError(f"cannot fetch {remote}: {error.strerror}") from error

    def scratch(self, name: str) -> str:
        """A path in the work folder where the probe may write. Raises ValueError unless `name` is a plain file name."""
        return str(self._work / plain_name(name))

    def remove(self, remote: str) -> None:
        """Remove a file; a missing one is no error."""
        try:
            Path(remote).unlink(missing_ok=True)
        except OSError as error:
            raise DeviceError(f"cannot remove {remote}: {error.strerror}") from error

    def start(self, probe: Path) -> ProcessChannel:
        """Start the probe file with the device's Python, in the work folder. Raises DeviceError."""
        command, environment = self._launch(self.push(probe))
        channel = ProcessChannel(command, env=environment, cwd=self._work)
        self._channels = [*(each for each in self._channels if not each.closed), channel]
        return channel

    def sh(self, script: str, words: Sequence[str], deadline: Deadline) -> Answer:
        """See `ShellSession.sh`."""
        with subprocess.Popen(
            ["sh", "-c", script, "sh", *words],
            cwd=self._work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us and not it
        ) as process:
            try:
                said, _ = process.communicate(timeout=deadline.left())
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise ChannelError("timeout", "a command did not end in time") from None
        code = process.returncode
        return Answer(code if code >= 0 else 128 - code, said.decode(errors="replace"))

    def clean(self) -> int:
        """Nothing outlives a session here."""
        return 0

    def close(self) -> None:
        """End the probes and remove the work folder; never raises."""
        for channel in self._channels:
            channel.close()
        self._folder.remove()

    def __enter__(self) -> LocalSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _launch(self, probe: str) -> tuple[list[str], dict[str, str]]:
        """The command that starts the pushed probe, and its environment.

        The environment is ours without what steers Python, so that the same Python starts the same way from every
        shell. Not `python -I`: it would ignore the fixed hash seed, and runtimes installed with `pip --user`.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return [self._python, "-u", probe], {**kept, **STEADY}


def _find_python(name: str) -> str:
    if not name:
        return sys.executable
    found = shutil.which(name)
    if found is None:
        raise DeviceError(
            f"the device's Python {name!r} is not there or cannot be run",
            "give the path of a Python that has the runtime installed, for example /usr/bin/python3",
            retryable=False,
        )
    return found
