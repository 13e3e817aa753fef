"""What the emulated boards say of themselves: the files below /proc and /sys from which runtimes choose their kernels.

The processor qemu emulates and these files belong together: without them ONNX Runtime crashes when it is imported, and
with those of another core it takes other kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

BoardName = Literal["rpi3", "rpi4"]

_CORES = 4
_CPU = Path("sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Board:
    """A Raspberry Pi as Linux describes it."""

    model: str
    #: qemu's name of the core; its part number and revision in MIDR_EL1 and /proc/cpuinfo.
    cpu: str
    part: int
    revision: int
    memory_kib: int
    max_khz: int
    l1_instructions_kib: int
    l2_kib: int

    def write(self, root: Path) -> None:
        """Write the board's files below `root`."""
        for name, text in (self._processor() | self._cores()).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def _processor(self) -> dict[str | Path, str]:
        core = (
            "processor\t: {}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
            f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {self.part:#x}\nCPU revision\t: {self.revision}\n\n"
        )
        return {
            "proc/cpuinfo": "".join(core.format(i) for i in range(_CORES)) + f"Model\t\t: {self.model}\n",
            "proc/meminfo": f"MemTotal: {self.memory_kib} kB\nMemFree: {self.memory_kib * 3 // 4} kB\n"
            f"MemAvailable: {self.memory_kib * 4 // 5} kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
            "proc/device-tree/model": f"{self.model}\0",
        }

    def _cores(self) -> dict[str | Path, str]:
        every = f"0-{_CORES - 1}"
        files: dict[str | Path, str] = {_CPU / name: f"{every}\n" for name in ("possible", "present", "online")}
        files[_CPU / "kernel_max"] = f"{_CORES - 1}\n"
        for index in range(_CORES):
            core = _CPU / f"cpu{index}"
            values = {
                "cpufreq/cpuinfo_max_freq": self.max_khz,
                "cpufreq/scaling_cur_freq": self.max_khz,
                "cpufreq/scaling_governor": "performance",
                "topology/core_id": index,
                "topology/physical_package_id": 0,
                "topology/cluster_id": 0,
                "topology/core_siblings": "f",
                "topology/core_siblings_list": every,
                "topology/package_cpus_list": every,
                "topology/cluster_cpus_list": every,
                "topology/thread_siblings_list": index,
                "topology/core_cpus_list": index,
                "regs/identification/midr_el1": f"{0x41 << 24 | 0xF << 16 | self.part << 4 | self.revision:#018x}",
            }
            caches = (
                (1, "Data", 32, index),
                (1, "Instruction", self.l1_instructions_kib, index),
                (2, "Unified", self.l2_kib, every),
            )
            for number, (level, kind, kib, shared) in enumerate(caches):
                cache = f"cache/index{number}"
                values |= {f"{cache}/level": level, f"{cache}/type": kind, f"{cache}/size": f"{kib}K"}
                values |= {f"{cache}/shared_cpu_list": shared, f"{cache}/coherency_line_size": 64}
            files |= {core / name: f"{value}\n" for name, value in values.items()}
        return files


BOARDS: Mapping[BoardName, Board] = MappingProxyType(
    {
        "rpi3": Board("Raspberry Pi 3 Model B Rev 1.2", "cortex-a53", 0xD03, 4, 926184, 1200000, 32, 512),
        "rpi4": Board("Raspberry Pi 4 Model B Rev 1.4", "cortex-a72", 0xD08, 3, 3882400, 1500000, 48, 1024),
    }
)
