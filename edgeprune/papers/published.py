"""What the paper printed, in its tables and in its text on the ablation.

Wang et al., Automatic Compression of Neural Network with Deep Reinforcement Learning Based on Proximal Gradient Method,
Mathematics 2023, 11, 338.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: Mean, and standard deviation where one is printed.
Figure = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Published:
    """One printed row; None is what the paper leaves out."""

    #: Points of accuracy lost against the unpruned network, whose accuracy is not printed.
    error: Figure | None
    layers: str | None
    ncr: Figure
    #: Per cent; a ratio of neurons, about 1/NCR, not of multiply-accumulates.
    flops: float | None
    #: On the authors' machine.
    seconds: Figure | None = None
    #: Zero weights of the agent, per cent.
    sparsity: Figure | None = None


#: Data set -> method -> row.
PUBLISHED: Mapping[str, Mapping[str, Published]] = MappingProxyType(
    {
        "mnist": {
            "cges": Published((0.36, None), "221-97-94", (2.87, None), 35),
            "l0": Published((0.23, None), "266-88-33", (3.06, None), 33),
            "autoprune": Published((0.22, None), "244-85-37", (3.23, None), 31),
            "amc": Published((0.30, 0.12), "225-88-45", (3.30, 0.20), 30, (1835, 15.7), (0, None)),
            "acnn": Published((0.20, 0.16), "219-81-43", (3.46, 0.14), 28, (455, 2.9), (96, 0.7)),
            # The ablation's table is garbled in print: this NCR is read from the text around it.
            "acnn-noprox": Published(None, None, (3.25, 0.07), None),
        },
        "fashion-mnist": {
            "cges": Published((13.50, None), "702-15-7", (1.64, None), 60),
            "l0": Published((6.25, None), "295-80-25", (2.96, None), 34),
            "autoprune": Published((4.33, None), "285-85-19", (3.04, None), 32),
            "amc": Published((2.40, 0.10), "141-81-42", (4.48, 0.05), 23, (4210, 11.4), (0, None)),
            "acnn": Published((2.22, 0.08), "185-35-20", (4.92, 0.04), 20, (544, 4.2), (97, 0.5)),
            "acnn-noprox": Published((2.75, 0.62), None, (3.62, 0.22), None),
        },
        "cifar10": {
            "cges": Published((28.70, None), "3035-142-3", (1.61, None), 62),
            "l0": Published((26.04, None), "1036-260-290", (3.23, None), 31),
            "autoprune": Published((24.04, None), "900-240-282", (3.60, None), 28),
            "amc": Published((7.63, 0.65), "890-317-235", (3.55, 0.25), 27, (4157, 11.3), (0, None)),
            "acnn": Published((7.10, 0.26), "857-256-245", (3.77, 0.21), 25, (756, 5.9), (97, 0.6)),
            "acnn-noprox": Published((7.71, 0.35), None, (3.60, 0.06), None),
        },
    }
)


def published_row(data: str, method: str) -> Published | None:
    """The printed row of a method on a data set, if there is one."""
    return PUBLISHED.get(data, {}).get(method)
