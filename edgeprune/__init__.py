"""edgeprune: prune a trained PyTorch network for an edge device, export it, and prove it on that device.

```python
import edgeprune
result = edgeprune.run(edgeprune.RunConfig(data="digits", expect_ncr=4))
print(result.result["compressed"]["ncr"], result.folder)
network = edgeprune.load(result.folder)      # the pruned torch.nn.Module
```
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.core.parts import parts_there
from edgeprune.core.version import VERSION

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.core.progress import Progress
    from edgeprune.core.session import Session
    from edgeprune.pipeline.config import RunConfig
    from edgeprune.pipeline.front import FrontResult
    from edgeprune.pipeline.result import RunResult

# onnxruntime would report to its maker, from a thread that runs while we measure. It is read when that is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["RunConfig", "__version__", "front", "load", "read_metadata", "run", "watching"]

__version__ = VERSION


def __getattr__(name: str) -> Any:
    # Loaded when it is asked for: the command line must be able to answer Ctrl-C first.
    if name == "RunConfig":
        from edgeprune.pipeline.config import RunConfig

        return RunConfig
    raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")


def run(
    config: RunConfig, progress: Progress | None = None, *, resume: bool = False, session: Session | None = None
) -> RunResult:
    """Compress a network and prove it on the device: see `edgeprune.pipeline.run.run`."""
    # Importing torch takes seconds, which `edgeprune --help` should not.
    with parts_there():
        from edgeprune.pipeline.run import run as run_job

    return run_job(config, progress, resume=resume, session=session)


def front(
    config: RunConfig, progress: Progress | None = None, *, resume: bool = False, session: Session | None = None
) -> FrontResult:
    """Compress a network for each of several bounds, from one search: see `edgeprune.pipeline.run.run_front`."""
    with parts_there():
        from edgeprune.pipeline.run import run_front

    return run_front(config, progress, resume=resume, session=session)


def watching() -> Progress:
    """What shows stages, lines and bars while a run goes on, on stderr or in a notebook: `run(config, watching())`."""
    from edgeprune.cli.screen import watching as screen

    return screen(quiet=False)


def load(run_folder: Path | str, model: str | nn.Module | None = None) -> nn.Module:
    """The pruned network of a run, rebuilt: see `edgeprune.pipeline.export.load_network`."""
    with parts_there():
        from edgeprune.pipeline.export import load_network

    return load_network(Path(run_folder), model)


def read_metadata(path: Path | str) -> dict[str, Any]:
    """What a model file of ours says of itself, {} for another's: see `edgeprune.artifacts.read_metadata`."""
    from edgeprune.artifacts import read_metadata as read

    return read(Path(path))
