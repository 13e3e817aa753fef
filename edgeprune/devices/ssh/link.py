"""The connection of a session to its board: one ssh, the keeper at its other end, a new one where it was cut."""

from __future__ import annotations

import base64
import contextlib
import getpass
import itertools
import logging
import random
import secrets
import shutil
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.core.session import DeviceSpec
from edgeprune.core.temporary import SHORT, TemporaryFolder
from edgeprune.devices.channel import ChannelError, last_line
from edgeprune.devices.ssh.openssh import Address, SshChannel, quote, remote_command, ssh_command

_LOG = logging.getLogger(__name__)

_KEEPER = Path(__file__).with_name("keeper.py")
FOLDER = "~/.cache/edgeprune"
_REQUEST_S = 60.0
_OPEN_S = 15.0
#: How long the keeper may take to say that it is there; on a board that is busy measuring, and before a quick question.
_BEAT_S, _ALIVE_S = 15.0, 5.0
_TEXTS = ("folder", "models", "scratch", "python", "machine", "system", "release", "boot_id")


class SshLink:
    """Asks the keeper of one session; over a new connection where the old one was cut.

    A request is repeated, at growing intervals, until `patience_s` after it first found the link cut. What cannot pass
    by itself (a wrong host key, a refused login) is raised at once.
    """

    def __init__(self, spec: DeviceSpec, patience_s: float, heartbeat_s: float) -> None:
        """Connect and lock the board's folder. Raises as `SshSession` does."""
        self.address = Address.parse(spec.address)
        if shutil.which("ssh") is None:
            raise DeviceError(
                "the program ssh is not installed on this machine",
                "type: sudo apt-get install openssh-client",
                retryable=False,
            )
        self.python = spec.python or "python3"
        quote(self.python)
        #: Random letters that name this session's processes on the board.
        self.token = secrets.token_hex(8)
        #: What the board said of itself at the first connection.
        self.facts: Mapping[str, Any] = {}
        self._spec = spec
        self._patience_s = patience_s
        self._heartbeat_s = heartbeat_s
        self._keeper: SshChannel | None = None
        self._turn = threading.RLock()
        self._closed = threading.Event()
        self._sockets = _short_folder()
        self._control = self._sockets.path / "0"
        self._numbers = itertools.count()
        try:
            self._connect(Deadline.after(patience_s))
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._beat, name=f"heartbeat of {spec.name}", daemon=True).start()

    def ask(self, op: str, within_s: float = _REQUEST_S, **message: Any) -> dict[str, Any]:
        """The keeper's answer, which takes `within_s` seconds at most.

        Raises ChannelError: "lost" after the patience, or what the keeper refused and why.
        """
        patience: Deadline | None = None
        pauses = _pauses()
        while True:
            try:
                with self._turn:
                    if self._keeper is None:
                        self._connect(patience or Deadline.after(self._patience_s))
                        pauses = _pauses()  # they grow while the board cannot be reached, and not with every cut
                    return self._exchange({"op": op, **message}, within_s)
            except ChannelError as error:
                if error.kind != "lost" or not error.retryable:
                    raise
                patience = patience or Deadline.after(self._patience_s)
                if patience.left() <= 0:
                    raise
            time.sleep(min(next(pauses), patience.left()))

    def command(self, remote: str) -> list[str]:
        """The argument list that runs `remote` as another channel of the present connection."""
        return ssh_command(self.address, self._control, remote)

    def end_probe(self, mark: str) -> bool:
        """Kill the probe with this mark, if the link is alive; whether it is. Never connects anew."""
        # The heartbeat may be waiting on a stalled link.
        if not self._turn.acquire(timeout=_ALIVE_S):
            return False
        try:
            self._exchange({"op": "kill", "mark": mark}, _ALIVE_S)
        except ChannelError:
            return False
        finally:
            self._turn.release()
        return True

    def close(self) -> None:
        """Give the board's folder back and disconnect. Never raises."""
        self._closed.set()
        with self._turn:
            if self._keeper is not None:
                self._keeper.close()  # the keeper sees the end of stdin, ends the probes and unlocks the folder
                self._keeper = None
        self._sockets.remove()

    def _beat(self) -> None:
        """Tell the keeper that we live, several times within its patience."""
        while not self._closed.wait(self._heartbeat_s / 3):
            with self._turn, contextlib.suppress(ChannelError):
                if self._keeper is not None:
                    self._exchange({"op": "beat"}, _BEAT_S)

    def _connect(self, patience: Deadline) -> None:
        """A new connection with the folder locked. Raises ChannelError; "busy" only after `patience`."""
        if self._closed.is_set():
            raise DeviceError(f"the session on {self._spec.name} is closed", retryable=False)
        attempt = next(self._numbers)
        self._control = self._sockets.path / str(attempt)
        self._keeper = keeper = self._start_keeper(self._control)
        try:
            answer = self._open(attempt, patience)
            if not self.facts:
                self.facts = self._learn(answer)
        except BaseException:
            keeper.kill()
            self._keeper = None
            raise

    def _start_keeper(self, control: Path) -> SshChannel:
        mark = f"edgeprune-keeper-{self.token}"
        source = base64.b64encode(zlib.compress(_KEEPER.read_bytes(), 9)).decode()
        code = f'import base64,zlib;exec(zlib.decompress(base64.b64decode("{source}")))'
        # -I: Python looks beside a command first, so a ~/select.py would be taken for the standard library's.
        remote = remote_command([self.python, "-I", "-u", "-c", code, mark])
        command = ssh_command(self.address, control, remote, master=True)
        return SshChannel(self._spec.name, self.address, command, mark)

    def _open(self, attempt: int, patience: Deadline) -> dict[str, Any]:
        message = {
            "op": "open",
            "folder": self._spec.folder or FOLDER,
            "who": f"{getpass.getuser()} on {socket.gethostname()}",
            "attempt": attempt,
            "cache_bytes": self._spec.cache_bytes,
            "patience_s": self._heartbeat_s,
        }
        pauses = _pauses()
        told = False
        while True:
            try:
                return self._exchange(message, _OPEN_S)
            except ChannelError as error:
                if error.kind != "busy" or patience.left() <= 0:
                    raise
                if not told:
                    _LOG.info("%s; waiting for %.0f s", error.message, patience.left())
                told = True
            time.sleep(min(next(pauses), patience.left()))

    def _exchange(self, message: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Raises ChannelError: "lost" where there is no connection or it failed, another where the keeper refused."""
        if self._keeper is None:
            raise ChannelError("lost", f"the link to {self._spec.name} is cut")
        try:
            answer = self._keeper.request(message, Deadline.after(limit_s))
        except ChannelError as error:
            self._keeper = None  # its process is dead, and the connection with it
            if error.kind in ("lost", "refused"):
                raise
            why = f"no answer in {limit_s:.0f} s" if error.kind == "timeout" else error.message
            raise ChannelError(
                "lost", f"the link to {self._spec.name} failed: {why}", f"try: {self.address.typed}"
            ) from error
        if answer["ok"]:
            return answer
        raise self._refusal(answer, message)

    def _refusal(self, answer: Mapping[str, Any], message: Mapping[str, Any]) -> DeviceError:
        kind, name = answer.get("kind"), self._spec.name
        said = last_line(str(answer.get("error", "")))
        if kind == "missing":
            return DeviceError(f"no file {message.get('path')} on {name}", retryable=False)
        if kind == "full":
            return ChannelError("full", f"no room left on {name}: {said}", "free some space there")
        if kind == "busy":
            return ChannelError(
                "busy", f"{name}: {said}", "wait until that run is done, or give this one another folder"
            )
        if kind in ("refused", "garbled", "crashed", "timeout"):
            return ChannelError(kind, f"{name}: {said}")
        return ChannelError("garbled", f"{name} gave an answer of kind {kind!r:.40}: {said}")

    def _learn(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        texts = {key: str(answer.get(key, ""))[:4096] for key in _TEXTS}
        if not all(texts[key].startswith("/") for key in ("folder", "models", "scratch")):
            raise ChannelError("garbled", f"{self._spec.name} named no folder", retryable=False)
        for key in ("folder", "models", "scratch"):
            quote(texts[key])
        first = {"device": self._spec.name, "kind": self._spec.kind, "emulated": self._spec.emulated}
        return MappingProxyType(
            {**first, "address": self._spec.address, **texts, "free_bytes": count(answer, "free_bytes")}
        )


def count(answer: Mapping[str, Any], key: str) -> int:
    """A number of an answer that counts something. Raises ChannelError("garbled")."""
    value = answer.get(key)
    if not isinstance(value, int) or value < 0:
        raise ChannelError("garbled", f"the board's {key} is no count: {value!r:.40}")
    return value


def _pauses() -> Iterator[float]:
    """Growing seconds between two tries; not the same for all who wait for one board."""
    for power in itertools.count():
        yield min(0.2 * 2 ** min(power, 10), 5.0) * random.uniform(0.7, 1.0)


def _short_folder() -> TemporaryFolder:
    """A private folder whose name leaves room for a socket's: 107 bytes in all, with what ssh adds."""
    try:
        folder = TemporaryFolder(SHORT)
        if len(str(folder.path)) > 70:
            folder.remove()
            folder = TemporaryFolder(SHORT, "/tmp")
    except OSError as error:
        raise DeviceError(
            f"no folder for ssh's socket: {error.strerror}", "set TMPDIR to a folder you may write"
        ) from error
    return folder
