"""Names of the searches, apart from them: they load torch, which `--help` should not."""

from __future__ import annotations

from typing import Literal

MethodName = Literal["edgeprune", "acnn", "amc", "greedy", "random", "uniform"]
#: Methods with an agent that takes other settings than its own; AMC's are its paper's.
AGENTS: tuple[MethodName, ...] = ("edgeprune", "acnn")
