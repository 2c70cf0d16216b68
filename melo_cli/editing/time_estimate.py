"""How long a run will take, from two timed steps of its first group."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from melo_cli.editing.resource_estimate import Needs
from melo_cli.recipe import TrainingSection
from melo_cli.units import about_bytes, about_duration

_TIMED = 2
_SHARE_OF_STEPS = 0.5
"""Of `max_steps`, what a group is taken to need under `stop_at`: a third to all were seen."""
FEW = 10
"""Fewer edits than these are made before anybody has read how long they take."""


@dataclass(frozen=True)
class Forecast:
    """The forecast of a run.

    Attributes:
        seconds: for all edits, the loading of the model and the learning of scope left out.
        group: edits that are trained and committed together.
        group_seconds: for each group.
        needs: of memory and disk; None where they are not known.
    """

    edits: int
    seconds: float
    group: int
    group_seconds: float
    needs: Needs | None

    def __str__(self) -> str:
        """In one line."""
        each = f"a group of {self.group}" if self.group > 1 else "an edit"
        pace = f"{about_duration(self.group_seconds)} {each}"
        time_taken = f"about {about_duration(self.seconds)} for {self.edits:,} edits ({pace})"
        if self.needs is None:
            return time_taken
        room = f"{about_bytes(self.needs.disk)} on disk, {about_bytes(self.needs.peak)} of memory"
        return f"{time_taken}, {room}"


class StepTimer:
    """Times the steps of a run's first group, and makes a forecast of them once there are enough.

    The first step is left out: it comes with what is done once a group, and once a run.

    Args:
        edits: of the whole run.
        needs: what is known of memory and disk.
        made: called once, with the forecast.
    """

    def __init__(
        self,
        edits: int,
        training: TrainingSection,
        needs: Needs | None,
        made: Callable[[Forecast], None],
    ) -> None:
        self._edits, self._training = edits, training
        self._needs, self._made = needs, made
        self._started = time.monotonic()
        self._first = 0.0
        self._steps = 0

    def start_group(self) -> None:
        """A group begins; of one in which nothing is trained no step is heard."""
        if not self._steps:
            self._started = time.monotonic()

    def on_step(self) -> None:
        """A step is done."""
        self._steps += 1
        if self._steps == 1:
            self._first = time.monotonic()
        if self._steps == 1 + _TIMED:
            self._made(self._forecast((time.monotonic() - self._first) / _TIMED))

    def _forecast(self, step: float) -> Forecast:
        training = self._training
        size = min(training.batch_size * training.blocks_in_flight, self._edits)
        steps = training.max_steps * (_SHARE_OF_STEPS if training.stop_at is not None else 1.0)
        once_a_group = max(self._first - self._started - step, 0.0)
        group = once_a_group + steps * step
        return Forecast(self._edits, math.ceil(self._edits / size) * group, size, group, self._needs)
