"""`melo doctor`: what melo stands on here, and whether it works; for a report of a fault."""

from melo_cli.doctor.places import FoundProject, Place, found_project, places
from melo_cli.doctor.software import Device, Library, devices, libraries, system
from melo_cli.doctor.trial import Step, self_test

__all__ = [
    "Device",
    "FoundProject",
    "Library",
    "Place",
    "Step",
    "devices",
    "found_project",
    "libraries",
    "places",
    "self_test",
    "system",
]
