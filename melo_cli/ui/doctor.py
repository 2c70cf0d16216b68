"""What `melo doctor` finds, as lines to paste into a report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melo_cli.ui.elements import Fields, View
from melo_cli.units import human_bytes

if TYPE_CHECKING:
    from melo_cli.doctor import Device, Folder, FoundProject, Library, Step


@dataclass(frozen=True)
class Checkup:
    """All that was looked at.

    Attributes:
        steps: of the self-test; None where it was left out.
    """

    system: dict[str, str]
    libraries: Sequence[Library]
    extras: Sequence[Library]
    devices: Sequence[Device]
    places: Sequence[Folder]
    project: FoundProject
    steps: Sequence[Step] | None

    @property
    def faults(self) -> list[str]:
        """What does not work, by name."""
        named: list[Library | Folder | Step] = [*self.libraries, *self.places, *(self.steps or ())]
        broken = [each.name for each in named if each.fault is not None]
        return [*broken, *(["project"] if self.project.fault is not None else [])]


def checkup_view(found: Checkup) -> View:
    """`melo doctor`, with the user's home folder as `~`."""
    document = {**asdict(found), "faults": found.faults, "ok": not found.faults}
    return View([Fields(_fields(found))], {name: _without_home(value) for name, value in document.items()})


def _fields(found: Checkup) -> list[tuple[str, str]]:
    pairs = [
        *found.system.items(),
        *((each.name, _library(each)) for each in found.libraries),
        *((each.name, each.version or "not installed (optional)") for each in found.extras),
        *(("device", _device(each)) for each in found.devices),
        *((each.name, _folder(each)) for each in found.places),
        ("project", _project(found.project)),
        *(("self-test", _step(each)) for each in found.steps or ()),
    ]
    if found.steps is None:
        pairs.append(("self-test", "left out"))
    verdict = f"FAILED: {', '.join(found.faults)}" if found.faults else "all is well"
    return [(name, without_home(text)) for name, text in [*pairs, ("verdict", verdict)]]


def without_home(text: str) -> str:
    """A text in which the user's home folder is `~`: a report need not say who wrote it."""
    home = str(Path.home())
    return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text) if len(home) > 1 else text


def _without_home(value: Any) -> Any:
    if isinstance(value, str):
        return without_home(value)
    if isinstance(value, dict):
        return {name: _without_home(each) for name, each in value.items()}
    return [_without_home(each) for each in value] if isinstance(value, list | tuple) else value


def _library(found: Library) -> str:
    known = found.version or "not installed"
    return f"{known}, FAILED: cannot be imported ({found.fault})" if found.fault else known


def _device(found: Device) -> str:
    parts = [found.name]
    if found.threads is not None:
        parts.append(f"torch uses {found.threads}")
    if found.total is not None:
        parts.append(f"{human_bytes(found.total)} of memory")
    if found.free is not None:
        parts.append(f"{human_bytes(found.free)} free")
    return ", ".join(parts)


def _folder(found: Folder) -> str:
    parts = [found.path or "unknown"]
    if found.held is not None:
        parts.append(human_bytes(found.held))
    if found.free is not None:
        parts.append(f"{human_bytes(found.free)} free")
    return ", ".join([*parts, f"FAILED: {found.fault}" if found.fault else "can be written"])


def _project(found: FoundProject) -> str:
    known = [f"{found.name} ({found.path})" if found.name else ""]
    known += [f"format {found.format}, snapshot {found.snapshot}" if found.format is not None else ""]
    known += [f"base {found.base}" if found.base else "", f"FAILED: {found.fault}" if found.fault else ""]
    return ", ".join(part for part in known if part) or "none here"


def _step(found: Step) -> str:
    result = f"FAILED: {found.fault}" if found.fault else f"pass, {found.seconds:.1f} s"
    return f"{found.name}: {result}"
