"""Where a model runs: opening a device, moving files there, talking to the probe. Knows nothing of what is measured."""

from edgeprune.devices.channel import ChannelError
from edgeprune.devices.names.boards import KNOWN_BOARDS
from edgeprune.devices.names.registry import find_device, open_session

__all__ = ["KNOWN_BOARDS", "ChannelError", "find_device", "open_session"]
