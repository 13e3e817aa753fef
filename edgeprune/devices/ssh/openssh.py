"""OpenSSH's client: how it is called, and what it means when it gives up. See docs/decisions/0005-openssh-client.md."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import UsageError
from edgeprune.devices.channel import OUT_OF_MEMORY, ChannelError, ProcessChannel, last_line

#: Names another configuration file for ssh (`ssh -F`) in place of ~/.ssh/config.
CONFIG_VARIABLE = "EDGEPRUNE_SSH_CONFIG"
#: Exit code of ssh itself, whatever went wrong; of a shell whose command was killed.
SSH_FAILED, KILLED = 255, 128 + 9
CONNECT_S = 10
_MAX_LINE_BYTES = 1 << 16

_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})@)?"
    r"(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]{0,252})|\[(?P<ipv6>[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,32})?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII,
)
_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    f"ConnectTimeout={CONNECT_S}",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "ControlPersist=no",
    "LogLevel=ERROR",
)
#: What no path on a board may hold: in single quotes all other characters mean themselves to every login shell.
_UNQUOTABLE = re.compile(r"['\\!\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect. Nothing in it can be taken for an option or be read by a shell."""

    host: str
    user: str = ""
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """`ssh://[user@]host[:port]` as an address. Raises UsageError."""
        found = _ADDRESS.fullmatch(text)
        port = int(found["port"]) if found and found["port"] else None
        if found is None or (port is not None and not 0 < port < 65536):
            shown = re.sub("(?<=:)[^@]*(?=@)", "...", text)  # whoever writes a password there need not see it in a log
            raise UsageError(
                f"{shown[:100]!a} is no address of a board", "write ssh://[user@]host[:port], for example ssh://pi@rpi4"
            )
        return cls(found["host"] or found["ipv6"], found["user"] or "", port)

    @property
    def destination(self) -> list[str]:
        """The arguments that name it to ssh."""
        user = ["-l", self.user] if self.user else []
        port = [] if self.port is None else ["-p", str(self.port)]
        return [*user, *port, "--", self.host]

    @property
    def typed(self) -> str:
        """The command that connects by hand."""
        config = os.environ.get(CONFIG_VARIABLE)
        return " ".join(["ssh", *(["-F", config] if config else []), *(w for w in self.destination if w != "--")])

    @property
    def known_as(self) -> str:
        """Its name in known_hosts, as `ssh-keygen -R` wants it."""
        return self.host if self.port in (None, 22) else f"'[{self.host}]:{self.port}'"


def ssh_command(address: Address, socket: Path, remote: str, *, master: bool = False) -> list[str]:
    """The argument list that runs `remote` through the control socket, or that opens it as its master."""
    config = os.environ.get(CONFIG_VARIABLE)
    options = [*(["-F", config] if config else []), *(word for option in _OPTIONS for word in ("-o", option))]
    # Without its master, ssh would connect anew, unwatched: the proxy that fails keeps it from that.
    role = ["-M"] if master else ["-o", "ControlMaster=no", "-o", "ProxyCommand=false"]
    return ["ssh", "-T", *role, "-S", str(socket), *options, *address.destination, remote]


def ssh_environment() -> dict[str, str]:
    """Ours, with ssh's messages in the language that `explain` reads."""
    return {**os.environ, "LC_ALL": "C"}


def quote(word: str) -> str:
    """`word` as one word to any login shell; `~/` in front stays the home folder. Raises UsageError."""
    if _UNQUOTABLE.search(word):
        raise UsageError(
            f"{word[:100]!a} cannot be used on a board",
            "a path there may hold no quotes, backslashes or control characters",
        )
    if word.startswith("~/"):
        return f'"$HOME"/{shlex.quote(word[2:])}'
    return shlex.quote(word)


def remote_command(words: Sequence[str]) -> str:
    """An argument list as the text that a login shell runs. Raises UsageError where a word cannot be quoted."""
    return "exec " + " ".join(quote(word) for word in words)


def explain(name: str, address: Address, said: str) -> ChannelError:
    """What ssh's exit code 255 means, from what it said on stderr."""
    by_hand = f"connect once by hand: {address.typed}"
    if "IDENTIFICATION HAS CHANGED" in said:
        return ChannelError(
            "lost",
            f"the host key of {name} ({address.host}) has changed: this may be another machine that poses as the board",
            f"only if the board was installed anew, type ssh-keygen -R {address.known_as} and {by_hand}",
            retryable=False,
        )
    if "strict checking" in said or "Host key verification failed" in said:
        return ChannelError(
            "lost",
            f"the host key of {name} ({address.host}) is not known on this machine",
            f"{by_hand}, compare its fingerprint with the board's and accept it",
            retryable=False,
        )
    last = last_line(said)
    if "Permission denied" in said or "Too many authentication failures" in said:
        return ChannelError(
            "lost",
            f"{name} does not let us in: {last}",
            f"put your public key there (ssh-copy-id), until '{address.typed} true' asks for no password",
            retryable=False,
        )
    if "Bad configuration option" in said or "Bad owner or permissions" in said or "Can't open user config" in said:
        return ChannelError("lost", f"ssh cannot read its configuration: {last}", retryable=False)
    if "Could not resolve" in said:
        return ChannelError("lost", f"no machine is called {address.host}: {last}", "give the board's name or address")
    why = last or "the connection ended"
    return ChannelError(
        "lost", f"{name} cannot be reached: {why}", f"is it on and in the network? try: {address.typed}"
    )


class SshChannel(ProcessChannel):
    """A channel that is an ssh process: its end is explained as ssh's, or as that of the command there."""

    def __init__(self, name: str, address: Address, command: Sequence[str], marker: str) -> None:
        """Start `command`, made by `ssh_command`, on the board called `name`. Raises DeviceError."""
        super().__init__(command, env=ssh_environment(), marker=marker)
        self._name = name
        self._address = address

    def _ended(self, code: int) -> ChannelError:
        if code == SSH_FAILED:
            # Once the marker came we were let in, and what was said may be the board's words and not ssh's.
            return explain(self._name, self._address, self._said() if self._marker else "")
        if code in (126, 127):
            return ChannelError(
                "refused",
                f"the Python of {self._name} cannot be run{self._last_words()}",
                "install python3 on the board, or name its Python with --python",
            )
        if code == KILLED:
            return ChannelError("killed", f"the probe on {self._name} was killed{self._last_words()}", OUT_OF_MEMORY)
        return super()._ended(code)


def stream(command: Sequence[str], deadline: Deadline, hear: Callable[[str], None]) -> int:
    """Run a command made by `ssh_command`, `hear` each of its lines; its exit code.

    Raises ChannelError("timeout") when the deadline passed; the command here is ended then.
    """
    rest = b""
    with subprocess.Popen(
        command,
        env=ssh_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            for chunk in _chunks(process.stdout, deadline):  # type: ignore[arg-type] # a pipe was asked for
                *lines, rest = (rest + chunk).split(b"\n")
                rest = rest[-_MAX_LINE_BYTES:]
                for line in lines:
                    hear(last_line(line.decode(errors="replace")))
            if rest:
                hear(last_line(rest.decode(errors="replace")))
            return process.wait(deadline.left())
        except subprocess.TimeoutExpired:
            raise ChannelError("timeout", f"{command[0]} did not end in time") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)


def _chunks(pipe: IO[bytes], deadline: Deadline) -> Iterator[bytes]:
    """What comes through a pipe until it ends. Raises TimeoutExpired when the deadline passed."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while deadline.left() > 0:
            if selector.select(deadline.left()):
                chunk = os.read(pipe.fileno(), 1 << 16)
                if not chunk:
                    return
                yield chunk
    raise subprocess.TimeoutExpired("ssh", 0.0)
