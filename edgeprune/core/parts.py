"""What the base install leaves out: training, pruning and export need more, and who lacks it is told what to type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

from edgeprune.core.errors import UsageError

#: Modules of the extra `compress` (pyproject.toml) by the names that they are installed by.
COMPRESS = MappingProxyType(
    {
        "ai_edge_quantizer": "ai-edge-quantizer",
        "litert_torch": "litert-torch",
        "matplotlib": "matplotlib",
        "onnxscript": "onnxscript",
        "safetensors": "safetensors",
        "scipy": "scipy",
        "sklearn": "scikit-learn",
        "torch": "torch",
    }
)


@contextmanager
def parts_there() -> Iterator[None]:
    """Raises UsageError, with the command that installs it, where the block imports a module that was left out."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = COMPRESS.get((error.name or "").partition(".")[0])
        if name is None:
            raise
        raise UsageError(
            f"this needs {name}, which is not installed here: the base install measures, validates and deploys",
            "type pip install 'edgeprune[compress]' (in a clone: pip install -c constraints.txt -e '.[compress]')",
        ) from error
