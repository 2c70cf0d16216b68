"""Results probe by probe, and their Parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from melo_cli.errors import MeloError
from melo_cli.evaluation.probing import ProbeAnswers
from melo_cli.runtime.inference import TokenScores
from melo_cli.scope.core.rules import Candidate

KINDS = ("edit", "rephrase", "same_subject", "hard", "unrelated", "accurate")


@dataclass(frozen=True)
class Result:
    """One probe's row, in `--results` and in the report.

    Attributes:
        kind: one of `KINDS`.
        edit_id: the edit that the probe belongs to, if any.
        truth: the answer that counts as right, if known.
        base, edited: the two models' answers; empty for accurate text, which is scored alone.
        base_right, edited_right: exact matches with the truth; null where it is not known.
        agrees: whether both models answer alike. Where no edit's block answered and none was told, the same
            weights were asked the same in both, and this holds by construction; `unfired_agree` in METRICS
            counts where it was asked again.
        fired: whether an edit's block answered; `fired_edit` says which edit's.
        told: whether the base model answered with the facts of edits beside the prompt.
        fired_right: whether that edit wants the probe's truth answered; null where none fired.
        nearest_edit, nearest_right: the same of the nearest neuron, fired or not.
        distance: L2 from the key to that neuron.
        center_distance, radius: under the rule `radius`, L2 from the key to the center of the cluster that
            fired, else of the nearest neuron's, and that cluster's radius: it fires where the first is not
            above the second.
        probability, threshold: under the rule `verified`, that the prompt asks what the edit asks that came
            closest to answering, and from where on it does.
        made: whether the prompt was made out of edits; else the data give it.
        base_teacher_forced, edited_teacher_forced: share of target tokens that are the model's first choice.
        base_nats, edited_nats, tokens: negative log-likelihood of the target, and its text tokens.
    """

    kind: str
    edit_id: str | None
    prompt: str
    truth: str | None
    base: str
    edited: str
    base_right: bool | None
    edited_right: bool | None
    agrees: bool
    fired: bool | None
    fired_edit: str | None
    fired_right: bool | None
    nearest_edit: str | None
    nearest_right: bool | None
    distance: float | None
    center_distance: float | None
    radius: float | None
    base_teacher_forced: float | None
    edited_teacher_forced: float | None
    base_nats: float | None
    edited_nats: float | None
    tokens: int | None
    probability: float | None = None
    threshold: float | None = None
    made: bool = False
    told: bool = False

    @property
    def radii(self) -> float | None:
        """`center_distance` in units of `radius`: up to 1 the cluster fires."""
        if self.center_distance is None or self.radius is None:
            return None
        if self.radius == 0.0:
            return 0.0 if self.center_distance == 0.0 else float("inf")
        return self.center_distance / self.radius


_TYPES = {"str": pa.string(), "bool": pa.bool_(), "float": pa.float64(), "int": pa.int64()}
_SCHEMA = pa.schema(
    [(name, _TYPES[str(kind).removesuffix(" | None")]) for name, kind in Result.__annotations__.items()]
)


def results_of(kind: str, rows: Iterable[ProbeAnswers], threshold: float | None = None) -> list[Result]:
    """The rows of one kind of probe.

    Args:
        threshold: the probability from which on an edit answers, under the rule `verified`.
    """
    return [_result(kind, row, threshold) for row in rows]


def write_results(results: Sequence[Result], path: Path) -> None:
    """Write a Parquet file with one row a probe and the fields of `Result` as columns.

    Raises:
        MeloError: the file cannot be written.
    """
    table = pa.Table.from_pylist([asdict(result) for result in results], schema=_SCHEMA)
    try:
        pq.write_table(table, path)
    except OSError as error:
        raise MeloError(f"the results cannot be written ({error})", where=str(path)) from error


def _result(kind: str, row: ProbeAnswers, threshold: float | None) -> Result:
    known = row.probe.truth is not None and kind != "accurate"
    fired = row.route.fired if row.route is not None else None
    # The cluster that fired speaks for its probe; else the nearest neuron's.
    near: Candidate | None = fired or (row.route.nearest if row.route is not None else None)
    nearest = row.route.nearest if row.route is not None else None
    return Result(
        kind=kind,
        edit_id=row.probe.edit_id,
        prompt=row.probe.prompt,
        truth=row.probe.truth,
        base=row.base,
        edited=row.edited,
        base_right=row.right(row.base) if known else None,
        edited_right=row.right(row.edited) if known else None,
        agrees=row.agrees,
        fired=row.fired if row.route is not None else None,
        fired_edit=fired.edit_id if fired is not None else None,
        fired_right=row.right(row.fired_target) if known and row.fired_target is not None else None,
        nearest_edit=nearest.edit_id if nearest is not None else None,
        nearest_right=row.nearest_right if known and nearest is not None else None,
        distance=nearest.distance if nearest is not None else None,
        center_distance=near.center_distance if near is not None else None,
        radius=near.radius if near is not None else None,
        base_teacher_forced=_accuracy(row.base_scores),
        edited_teacher_forced=_accuracy(row.edited_scores),
        base_nats=_nats(row.base_scores),
        edited_nats=_nats(row.edited_scores),
        tokens=row.base_scores.tokens if row.base_scores is not None else None,
        probability=near.probability if near is not None else None,
        threshold=threshold,
        made=row.probe.made,
        told=row.told,
    )


def _accuracy(scores: TokenScores | None) -> float | None:
    return scores.accuracy if scores is not None else None


def _nats(scores: TokenScores | None) -> float | None:
    return -scores.log_likelihood if scores is not None else None
