"""Where it was measured, and how the run is repeated."""

from __future__ import annotations

import json
import shlex
from typing import Any

from edgeprune.core.units import format_bytes, format_cost
from edgeprune.report.page.finished import FrontRun, Network
from edgeprune.report.page.views import Table
from edgeprune.report.table import Result, device_title, file_title, judged

_NOTES = {
    "instructions": "An emulated processor, not a board: figures are counted guest instructions, which are not time.",
    "simulated s": "A simulated device: its figures are made up by a formula or a recording, and measure nothing.",
}
_NAMES = {"memory_bytes": "memory", "free_bytes": "free on the disk"}


def device_note(result: Result) -> str:
    """What must be known of figures that are no measurement of a real device; empty for one that is."""
    device = result["device"]
    note = _NOTES.get(device["unit"], "")
    if not note and device["emulated"]:
        note = "An emulated processor, reached like a board: its times are not those of a board."
    return note


def device_card(result: Result) -> Table:
    """What the device says of itself, how it was measured, and its states meanwhile."""
    device, file = result["device"], judged(result)
    rows: list[tuple[str, str]] = [("device", device_title(device)), ("reached as", device["kind"])]
    for name, value in device["facts"].items():
        if name in ("device", "kind", "emulated") or value in (None, ""):
            continue
        shown = format_bytes(value) if name.endswith("_bytes") else _told(value)
        rows.append((_NAMES.get(name, name.replace("_", " ")), shown))
    settings, speed = file["settings"], file["speedup"]
    left_out = f", {speed['left_out']} left out as an outlier" if speed["left_out"] else ""
    rows.append(("threads", str(settings["threads"])))
    rows.append((f"{file_title(file)} measured in", f"{speed['processes']} fresh processes{left_out}"))
    rows.append(("heap read by", file["memory_method"]))
    rows += _states(file["states"])
    for item in (each for each in result["artifacts"] if each["validated"]):
        advice = f": {item['advice']}" if item["advice"] else ""
        again = f" ({item['rejected']} disturbed processes measured again)" if item["rejected"] else ""
        rows.append((f"verdict, {file_title(item)}", f"{item['verdict'] or 'not judged'}{advice}{again}"))
    if why := file["operators_why"]:
        rows.append(("times per operator", why))
    # A device may tell its threads itself.
    return Table("Device", ("", ""), tuple(dict(rows).items()), words=(1,))


def backend_table(result: Result) -> Table | None:
    """What runtime and threads were chosen from, the fastest first; None where nothing was to choose."""
    timed = sorted(result["backends"], key=lambda each: (each["latency"] is None, each["latency"]))
    if not timed:
        return None
    rows = []
    for each in timed:
        latency, ends = each["why"], ""
        if each["latency"] is not None:
            latency = format_cost(each["latency"], each["unit"])
            ends = " to ".join(format_cost(end, each["unit"]) for end in each["interval"])
        rows.append((each["runtime"], str(each["threads"] or ""), each["precision"], latency, ends))
    head = ("runtime", "threads", "precision", "latency, unpruned", "95 % interval")
    return Table("Runtimes and threads that were tried", head, tuple(rows))


def _states(states: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """From the least to the most that was read before and after each process."""
    rows = []
    for name, key, scale, unit in (
        ("temperature", "temperature_c", 1.0, " °C"),
        ("clock", "frequency_hz", 1e6, " MHz"),
        ("load of the last minute", "load1", 1.0, ""),
    ):
        read = [state[key] / scale for state in states if isinstance(state.get(key), int | float)]
        if read:
            least, most = f"{min(read):.4g}", f"{max(read):.4g}"
            rows.append((name, f"{least}{unit}" if least == most else f"{least} to {most}{unit}"))
    return rows


def commands(run: Network | FrontRun) -> tuple[tuple[str, str], ...]:
    """What to type: as it was begun, with everything as it was settled, and what comes after."""
    folder = run.folder
    again = (
        ("As it was begun", run.command),
        ("With everything as it was settled", f"edgeprune run --config {shlex.quote(str(folder / 'result.json'))}"),
    )
    if isinstance(run, FrontRun):
        return again
    return (*again, ("The file for an application", f"edgeprune bundle {shlex.quote(str(folder))} --out DIR"))


def hashes(result: Result) -> Table:
    """What tells that something is the same."""
    baseline, data = result["baseline"], result["data"]
    rows = [
        ("edgeprune", result["edgeprune"]),
        ("seed", _told(result["config"].get("seed"))),
        (f"data {data['name']}", data["fingerprint"]),
        ("unpruned weights", baseline.get("sha256") or baseline.get("key") or baseline.get("file", "")),
    ]
    for item in (each for each in result["artifacts"] if each["exported"]):
        rows.append((item["path"], item["sha256"]))
        rows.append((item["baseline_path"], item["baseline_sha256"]))
    return Table("Seed and hashes (SHA-256 of files)", ("", ""), tuple(dict(rows).items()), words=(1,))


def setting_table(result: Result) -> Table:
    """Every option as it was decided, and why so."""
    rows = tuple((f"--{n.replace('_', '-')}", _told(s["value"]), s["why"]) for n, s in result["settled"].items())
    return Table("Every option as it was decided", ("option", "value", "why"), rows, words=(1, 2))


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
