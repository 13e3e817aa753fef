"""A bundle onto a device, beside the release that runs there: whole and verified, or not at all; and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgeprune.core.errors import DeviceError, StorageError, UsageError
from edgeprune.core.files import sha256_file, write_bytes
from edgeprune.core.plain import to_json
from edgeprune.core.reading import Source
from edgeprune.core.runtimes import Precision
from edgeprune.core.schema import DEPLOY_SCHEMA, check_schema
from edgeprune.core.session import ShellSession
from edgeprune.core.temporary import temporary_folder
from edgeprune.core.units import format_bytes
from edgeprune.deploy.bundle import SUMS, opened, read_bundle
from edgeprune.deploy.card import ModelCard
from edgeprune.deploy.place import Listing, Place, number

#: File of a release beside those of its bundle.
RECORD = "deploy.json"
#: Releases that are kept.
KEPT = 3
_OTHER_VERSION = "use that version of edgeprune"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a release is: `deploy.json` in its folder."""

    schema: int = DEPLOY_SCHEMA
    #: When it was deployed, UTC, by the clock of the machine it came from.
    deployed: str
    #: SHA-256 of the bundle's SHA256SUMS, and so of all its files.
    bundle: str
    #: The release that ran before; null of the first.
    before: str | None
    file: str
    precision: Precision
    bytes: int


@dataclass(frozen=True, slots=True)
class Deployed:
    """What is on a device; `releases` by name, oldest first, None where a note is damaged."""

    #: DIR, as the device names it.
    here: str
    #: The one that runs; "" where none does.
    current: str
    releases: dict[str, Release | None]

    @property
    def before(self) -> str:
        """The release that ran before the current one; "" where none is left."""
        now = self.releases.get(self.current)
        if now is not None:
            return now.before if now.before in self.releases else ""
        names = list(self.releases)
        return names[names.index(self.current) - 1] if self.current in names[1:] else ""

    def kept(self) -> list[str]:
        """The current release and those that ran before it, then the newest: the last three."""
        names: list[str] = []
        each: str | None = self.current
        while each in self.releases and each not in names and len(names) < KEPT:
            names.append(each)
            release = self.releases[each]
            each = release.before if release is not None else None
        newest = [name for name in reversed(self.releases) if name not in names]
        return [*names, *newest][:KEPT]


@dataclass(frozen=True, slots=True)
class Switched:
    """How a deployment ended: which release runs, and which did before ("": none)."""

    here: str
    name: str
    before: str
    #: False: that bundle ran there already, and nothing was done.
    done: bool
    card: ModelCard


#: Runs the model that lies in a folder on the device (the second) on the sample of a bundle here: how far it is off.
Verify = Callable[[Path, str], float]


def deploy(bundle: Path, session: ShellSession, to: str, verify: Verify, say: Callable[[str], None]) -> Switched:
    """Put a bundle into `to` on a device, beside what runs there; it runs when it is whole there and answers right.

    Whatever is cut, and whenever, the release that ran goes on. Raises UsageError where `to` may not be ours,
    StorageError for a damaged bundle, DeviceError where the device fails or the model answers something else there.
    """
    with opened(bundle) as folder:
        card = read_bundle(folder)
        digest = sha256_file(folder / SUMS)
        place = Place(session, to)
        say(f"lock {place.folder}")
        with place.locked():
            there = _read(place)
            now = there.releases.get(there.current)
            if now is not None and now.bundle == digest and place.sound(there.current, now.bytes) == digest:
                return Switched(there.here, there.current, there.before, False, card)
            before = there.current if there.current in there.releases else None
            release = Release(
                deployed=datetime.now(UTC).isoformat("T", "seconds").replace("+00:00", "Z"),
                bundle=digest,
                before=before,
                file=card.file,
                precision=card.precision,
                bytes=card.bytes,
            )
            name = _name(there, release)
            remote = _upload(place, name, folder, release, say)
            say(f"run {card.file} there on the sample")
            off = verify(folder, remote)
            say(f"its answer is off by {off:.2g}, at most {card.sample.tolerance:.2g}")
            say(f"switch to {name}")
            place.commit(name)
            after = _read(place)
            if gone := [each for each in after.releases if each not in after.kept()]:
                say(f"remove {', '.join(gone)}")
                place.prune(gone)
            return Switched(place.here, name, before or "", True, card)


def rollback(session: ShellSession, to: str, say: Callable[[str], None]) -> tuple[str, str]:
    """The release that ran before runs again, once its files are seen to be whole: its name, and the one left.

    Raises UsageError where there is none, DeviceError where it is damaged or the device fails.
    """
    place = Place(session, to)
    there = listed(place)
    _before(there, place)
    with place.locked():
        there = _read(place)
        name, left = _before(there, place), there.current
        say(f"check the files of {name}")
        release = there.releases[name]
        if release is None or place.sound(name, release.bytes) != release.bundle:
            raise DeviceError(
                f"{name} is damaged: a file is missing or changed; {left} runs on", "deploy a bundle", retryable=False
            )
        say(f"switch to {name}")
        place.point(name)
    return name, left


def listed(place: Place) -> Deployed:
    """What was deployed there. Raises UsageError where nothing was."""
    found = place.listing()
    if found is None:
        raise UsageError(f"nothing was deployed to {place.folder}", "give the folder that --to named")
    return _parsed(found)


def _before(there: Deployed, place: Place) -> str:
    if not there.before:
        raise UsageError(
            f"{place.folder} has no release before {there.current or 'the current one'}",
            "see what there is with --list",
        )
    return there.before


def _upload(place: Place, name: str, folder: Path, release: Release, say: Callable[[str], None]) -> str:
    """The files of a bundle, and the note; the folder where they are."""
    with temporary_folder() as work:
        write_bytes(work / RECORD, json.dumps(to_json(release)).encode())
        names = sorted(line.partition("  ")[2] for line in (folder / SUMS).read_text(encoding="utf-8").splitlines())
        remote = ""
        for file in (*(folder / each for each in names), folder / SUMS, work / RECORD):
            say(f"upload {file.name}, {format_bytes(file.stat().st_size)}")
            remote = place.put(name, file)
    return remote


def _name(there: Deployed, release: Release) -> str:
    """A counter first: names keep their order whatever the clocks say."""
    when = release.deployed.replace("-", "").replace(":", "")
    return f"{max(map(number, there.releases), default=0) + 1:04d}-{when}-{release.bundle[:8]}"


def _read(place: Place) -> Deployed:
    found = place.listing()
    return _parsed(found) if found else Deployed(place.here, "", {})


def _parsed(found: Listing) -> Deployed:
    releases = {name: _release(f"{found.here}/releases/{name}", text) for name, text in found.releases.items()}
    return Deployed(found.here, found.current, releases)


def _release(where: str, text: str) -> Release | None:
    source = Source(f"{where}/{RECORD}", StorageError, "")
    try:
        plain = source.parse_json(text, dict)
        check_schema(source.name, plain.get("schema"), DEPLOY_SCHEMA, _OTHER_VERSION)
        return source.shaped(plain, Release)
    except StorageError:
        return None
