"""Model files that are there: what they say of themselves and are made of, and their answers on this machine.

Nothing here needs torch or a converter. `READERS` has a row for each format, as `edgeprune.exporters.EXPORTERS` has.
"""

from __future__ import annotations

from edgeprune.artifacts.formats import READERS, describe, read_metadata, run_model

__all__ = ["READERS", "describe", "read_metadata", "run_model"]
