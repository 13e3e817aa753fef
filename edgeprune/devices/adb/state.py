"""What a phone says of itself: how it is asked, and what its answer means."""

from __future__ import annotations

import re
from typing import Any

#: Numbers of Android's temperature types that are degrees: CPU, GPU, battery, skin, USB port, power amplifier, NPU. The
#: others are volts, amperes and percent of the battery.
_DEGREES = {0, 1, 2, 3, 4, 5, 9}

#: Read together, since each command costs a trip over the cable.
STATE = r"""echo "wall=$(date +%s.%N)"; echo "uptime=$(cat /proc/uptime)"; echo "load=$(cat /proc/loadavg)"
echo "boot=$(cat /proc/sys/kernel/random/boot_id)"
for c in /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
 [ -d $c ] && echo "cpu=$(cat $c/cpuinfo_max_freq) $(cat $c/scaling_max_freq) $(cat $c/scaling_governor)"; done
dumpsys battery; dumpsys thermalservice; true"""


def parse_state(text: str) -> dict[str, Any]:
    """What a phone says of itself, None where it says nothing: degrees Celsius, Hz, seconds.

    `temperature_c` is the hottest sensor's now (not the cached list's), else the battery's. `thermal_status` is
    Android's: 0 none, 1 light, 2 moderate, 3 severe and above. Frequencies and governor are the fastest core's: what it
    may run at now, which a hot phone lowers (what it runs at says nothing, as nothing runs now), and its highest.
    """
    battery = _first(r"^ *temperature: (-?\d{1,5})$", text)
    battery_c = None if battery is None else battery / 10
    now = text.partition("Current temperatures from HAL:")[2] or text
    sensors = re.findall(r"Temperature\{mValue=(\d{1,4}(?:\.\d{1,9})?), mType=(\d{1,3}),", now)
    degrees = [float(value) for value, kind in sensors if int(kind) in _DEGREES and 0 < float(value) < 200]
    cores = re.findall(r"^cpu=(\d{1,12}) (\d{1,12}) (\w{1,40})$", text, re.MULTILINE)
    fastest = max(cores, key=lambda core: int(core[0]), default=None)
    boot = re.search(r"^boot=([0-9a-f-]{36})$", text, re.MULTILINE)
    status = _first(r"^ *Thermal Status: (\d{1,2})$", text)
    return {
        "temperature_c": max(degrees, default=battery_c),
        "battery_c": battery_c,
        "thermal_status": None if status is None else int(status),
        "frequency_hz": int(fastest[1]) * 1000 if fastest else None,
        "frequency_max_hz": int(fastest[0]) * 1000 if fastest else None,
        "governor": fastest[2] if fastest else None,
        "load1": _first(r"^load=(\d{1,6}\.\d{1,6}) ", text),
        "boot_id": boot[1] if boot else None,
        "wall_s": _first(r"^wall=(\d{1,12}\.\d{1,9})$", text),
        "mono_s": _first(r"^uptime=(\d{1,12}\.\d{1,6}) ", text),
        "others_cpu_s": None,
        "own_cpu_s": None,
    }


def _first(pattern: str, text: str) -> float | None:
    found = re.search(pattern, text, re.MULTILINE)
    return float(found[1]) if found else None
