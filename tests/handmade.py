"""What structures that tests make by hand need besides."""

from __future__ import annotations

import numpy as np

from edgeprune.pruning.axes.labels import Labelled
from edgeprune.pruning.channels import Graph

#: Of structures that are ranked, refitted and asked, but not cut.
NO_GRAPH = Graph(Labelled({}, {}, {}, np.empty(0, np.int64), (), False, frozenset(), (), frozenset()), {})
