"""Published methods to compare with: CGES, L0 and AutoPrune, each trained until the NCR asked for is reached."""

from __future__ import annotations

from edgeprune.papers.methods.autoprune import autoprune
from edgeprune.papers.methods.cges import cges
from edgeprune.papers.methods.compressed import Compressed, Method, Recipe
from edgeprune.papers.methods.l0 import l0

__all__ = ["METHODS", "Compressed", "Method", "Recipe", "autoprune", "cges", "l0"]

#: Every method by the name it has in tables.
METHODS: dict[str, Method] = {"cges": cges, "l0": l0, "autoprune": autoprune}
