"""`melo doctor`: what melo stands on here, and whether it works; for a report of a fault."""

from melo_cli.doctor.folders import Folder, FoundProject, found_project, places
from melo_cli.doctor.self_test_steps import Step, self_test
from melo_cli.doctor.software import Device, Library, devices, libraries, system

__all__ = [
    "Device",
    "Folder",
    "FoundProject",
    "Library",
    "Step",
    "devices",
    "found_project",
    "libraries",
    "places",
    "self_test",
    "system",
]
