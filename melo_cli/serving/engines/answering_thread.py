"""The thread that writes answers: a step of all of them at a time, new ones between two steps."""

from __future__ import annotations

import threading
from collections import deque

import torch

from melo_cli.models.base_model import ModelKind
from melo_cli.runtime.loading import OpenProject
from melo_cli.serving.engines.batch import Batch
from melo_cli.serving.engines.decoder_batch import DecoderBatch
from melo_cli.serving.engines.encoder_decoder_batch import EncoderDecoderBatch
from melo_cli.serving.engines.sequences import RunningSequence

_JOINING_TOKENS = 1024
"""Tokens of prompts that are read at once: the answers that are being written wait meanwhile."""


class AnsweringThread:
    """Writes answers with one model.

    Args:
        opened: a project whose model no other thread uses.
        rows: most answers that are written together; others wait.
        threads: threads that torch writes with.
    """

    def __init__(self, opened: OpenProject, rows: int, threads: int) -> None:
        routed = opened.routed
        kind = EncoderDecoderBatch if routed.base.kind is ModelKind.SEQ2SEQ else DecoderBatch
        self._batch: Batch = kind(routed.base, routed.tuner, routed.blocks.budget_bytes)
        self._rows = rows
        self._threads = threads
        self._waiting: deque[RunningSequence] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="melo-answers", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write no more, and wait for the step in hand."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether it writes."""
        return self._thread.is_alive()

    def submit(self, sequence: RunningSequence) -> None:
        """Have an answer written."""
        with self._changed:
            self._waiting.append(sequence)
            self._changed.notify()

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        while not self._stopped:
            arrivals = self._arrivals()
            try:
                self._batch.drop_cancelled()
                if arrivals:
                    self._batch.join(arrivals)
                if self._batch.sequences:
                    self._batch.step()
            except Exception as error:  # noqa: BLE001  the requests at hand fail with it, the others go on
                joined = set(map(id, self._batch.sequences))
                for sequence in arrivals:
                    if id(sequence) not in joined:
                        sequence.emit(error)
                self._batch.fail(error)

    def _arrivals(self) -> list[RunningSequence]:
        """Those that join now; waits for one where nothing is being written."""
        with self._changed:
            while not self._waiting and not self._batch.sequences and not self._stopped:
                self._changed.wait()
            if not self._batch.is_open:
                return []
            free = self._rows - len(self._batch.sequences)
            arrivals: list[RunningSequence] = []
            tokens = 0
            while self._waiting and len(arrivals) < free and tokens < _JOINING_TOKENS:
                sequence = self._waiting.popleft()
                if not sequence.cancelled:
                    arrivals.append(sequence)
                    tokens += len(sequence.prompt)
            return arrivals
