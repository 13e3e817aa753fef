"""The one file that runs on a device; its docstring is the protocol. Nothing of ours is imported there."""

from pathlib import Path

#: The file that is sent to a device.
PROBE = Path(__file__).with_name("probe.py")
