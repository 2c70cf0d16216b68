"""Versions of what melo is made of, whether it can be imported, and the devices that torch sees."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from melo_cli.doctor.attempt import attempt
from melo_cli.machine import main_memory

_NEEDED = (
    *("torch", "transformers", "tokenizers", "peft", "safetensors", "huggingface-hub", "numpy", "pyarrow"),
    *("hnswlib", "pydantic", "typer", "rich"),
)
_EXTRAS = ("gguf", "accelerate", "datasets")


@dataclass(frozen=True)
class Library:
    """One package.

    Attributes:
        version: None where it is not installed.
        fault: what importing it raised; None where it did not.
    """

    name: str
    version: str | None
    fault: str | None = None


@dataclass(frozen=True)
class Device:
    """Something that a model can run on.

    Attributes:
        total, free: bytes of memory; None where they are unknown.
        threads: that torch uses; None for an accelerator, or without torch.
    """

    name: str
    total: int | None
    free: int | None
    threads: int | None = None


def system() -> dict[str, str]:
    """melo, Python and the system."""
    return {
        "melo": _version("melo-cli") or "not installed as a package",
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def libraries() -> tuple[list[Library], list[Library]]:
    """What melo needs, each imported, and what it can do without."""
    needed = []
    for name in _NEEDED:
        _, fault = attempt(lambda name=name: import_module(name.replace("-", "_")))  # type: ignore[misc]
        needed.append(Library(name, _version(name), fault))
    return needed, [Library(name, _version(name)) for name in _EXTRAS]


def devices() -> Sequence[Device]:
    """The CPU first, then what torch sees beside it; the CPU alone where torch cannot be imported."""
    memory = main_memory()
    torch, _ = attempt(lambda: import_module("torch"))
    threads = torch.get_num_threads() if torch is not None else None
    total, free = (memory.total, memory.free) if memory is not None else (None, None)
    cpu = Device(f"cpu, {_cores()} cores", total, free, threads)
    if torch is None:
        return [cpu]
    devices = [cpu]
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free_and_total, _ = attempt(lambda number=number: torch.cuda.mem_get_info(number))  # type: ignore[misc]
        free, total = free_and_total if free_and_total is not None else (None, None)
        devices.append(Device(f"cuda:{number}, {torch.cuda.get_device_name(number)}", total, free))
    if torch.backends.mps.is_available():
        devices.append(Device("mps, within the memory of the cpu", None, None))
    return devices


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
