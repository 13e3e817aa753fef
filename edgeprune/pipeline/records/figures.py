"""Kinds of figures that records hold. Times are seconds, sizes bytes, unless a field says else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=0)]
#: What shares are taken of.
Whole = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
#: A figure that is a count in some units.
Number = int | float
#: Figures by the names of their metrics: shares, or errors in the unit of the targets.
Scores = Mapping[str, float]
#: The ends of a 95 % confidence interval.
Ends = tuple[float, float]
