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
    """All that was checked.

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


def checkup_view(checkup: Checkup) -> View:
    """`melo doctor`, with the user's home folder as `~`."""
    document = {**asdict(checkup), "faults": checkup.faults, "ok": not checkup.faults}
    return View([Fields(_fields(checkup))], {name: _without_home(value) for name, value in document.items()})


def _fields(checkup: Checkup) -> list[tuple[str, str]]:
    pairs = [
        *checkup.system.items(),
        *((each.name, _library(each)) for each in checkup.libraries),
        *((each.name, each.version or "not installed (optional)") for each in checkup.extras),
        *(("device", _device(each)) for each in checkup.devices),
        *((each.name, _folder(each)) for each in checkup.places),
        ("project", _project(checkup.project)),
        *(("self-test", _step(each)) for each in checkup.steps or ()),
    ]
    if checkup.steps is None:
        pairs.append(("self-test", "left out"))
    verdict = f"FAILED: {', '.join(checkup.faults)}" if checkup.faults else "all is well"
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


def _library(library: Library) -> str:
    known = library.version or "not installed"
    return f"{known}, FAILED: cannot be imported ({library.fault})" if library.fault else known


def _device(device: Device) -> str:
    parts = [device.name]
    if device.threads is not None:
        parts.append(f"torch uses {device.threads}")
    if device.total is not None:
        parts.append(f"{human_bytes(device.total)} of memory")
    if device.free is not None:
        parts.append(f"{human_bytes(device.free)} free")
    return ", ".join(parts)


def _folder(folder: Folder) -> str:
    parts = [folder.path or "unknown"]
    if folder.held is not None:
        parts.append(human_bytes(folder.held))
    if folder.free is not None:
        parts.append(f"{human_bytes(folder.free)} free")
    return ", ".join([*parts, f"FAILED: {folder.fault}" if folder.fault else "can be written"])


def _project(project: FoundProject) -> str:
    known = [f"{project.name} ({project.path})" if project.name else ""]
    known += [f"format {project.format}, snapshot {project.snapshot}" if project.format is not None else ""]
    known += [
        f"base {project.base}" if project.base else "",
        f"FAILED: {project.fault}" if project.fault else "",
    ]
    return ", ".join(part for part in known if part) or "none here"


def _step(step: Step) -> str:
    result = f"FAILED: {step.fault}" if step.fault else f"pass, {step.seconds:.1f} s"
    return f"{step.name}: {result}"
