"""METRICS of several models side by side: `melo eval`, and what a merge keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from melo_cli.ui.elements import Element, Fields, Heading, Note, Table, View
from melo_cli.ui.text import shortened
from melo_cli.units import percent

if TYPE_CHECKING:
    from melo_cli.evaluation import EvalReport

Figures = Mapping[str, Mapping[str, Any]]

_SHARES = {
    "edit_success": "edit success",
    "generality": "generality",
    "locality_truth": "locality (truth)",
    "locality_agreement": "locality (base)",
    "hard_truth": "hard (truth)",
    "hard_agreement": "hard (base)",
    "same_subject_truth": "same subj. (truth)",
    "same_subject_agreement": "same subj. (base)",
}
_ACCURACIES = {
    "edit_success": "accuracy, edits",
    "generality": "accuracy, rephr.",
    "locality_truth": "accuracy, unrel.",
    "locality_agreement": "as base, unrel.",
    "hard_agreement": "as base, hard",
    "same_subject_agreement": "as base, same s.",
}
_ROUTED = {
    "fired_edits": ("fired, edits", "edit_success"),
    "fired_rephrases": ("fired, rephr.", "generality"),
    "fired_same_subject": ("fired, same subj.", "same_subject_agreement"),
    "fired_hard": ("fired, hard", "hard_agreement"),
    "fired_unrelated": ("fired, unrel.", "locality_agreement"),
    "nearest_right": ("nearest right", "generality"),
}
_PERPLEXITIES = {
    "perplexity_edits": "perpl., edits",
    "perplexity_unrelated": "perpl., unrel.",
    "arr": "ARR (perplexity)",
}
_PUBLISHED = ("edit_success", "generality", "locality", "arr")
_NOTE = "shares in %, by greedy generation and exact match, with their 95% interval"
_NOTE_WITHOUT_INTERVALS = "shares in %, by greedy generation and exact match; --json has intervals"
# Wider tables leave the intervals out, to fit 80 columns.
_MOST_WITH_INTERVALS = 3
_LEGEND = (
    (("edit_success",), "edit success", "edits answered as asked"),
    (("generality",), "generality", "their rephrases answered as asked"),
    (("locality_truth", "locality_agreement"), "locality", "unrelated: right, or as the base answers"),
    (("hard_agreement",), "hard", "reads like an edit, asks of another subject: as the base"),
    (("same_subject_agreement",), "same subj.", "asks something else of an edit's subject: as the base"),
    (("fired_edits",), "fired", "prompts that the block of some edit answered"),
    (("nearest_right",), "nearest right", "rephrases nearest to the right edit: the ceiling of the keys"),
    (("perplexity_edits",), "perpl.", "perplexity of the true text; 1 is certain, lower is better"),
)


def report_view(report: EvalReport) -> View:
    """`melo eval`: the figures, and how to read them."""
    from melo_cli.evaluation.protocols import unfired

    heading = f"task {report.task}, snapshot {report.snapshot}, protocol {report.protocol}, {report.asked}"
    figures = report.columns()
    elements: list[Element] = [Heading(heading)]
    if report.protocol == "paper":
        elements.append(_published_table(figures))
    else:
        elements.append(figures_table(report.task, figures))
        elements += [Note(interval_note(figures)), Fields(_legend(report.task, figures))]
    elements.append(Note(f"{report.protocol}: {report.measured}"))
    elements += [Note(f"{kind.replace('_', ' ')} prompts: {words}") for kind, words in report.made.items()]
    elements.append(Note(unfired(report.edited)))
    if report.baselines:
        elements.append(_seconds_table(report))
    return View(elements, report.to_json())


def _published_table(figures: Figures) -> Table:
    """The published measure of the task, one column a model."""
    published = {name: models["published"] for name, models in figures.items()}
    measure = next(iter(published.values()))["measure"]
    shown = _number if measure == "perplexity" else percent
    rows = []
    for metric in _PUBLISHED:
        label = "ARR" if metric == "arr" else metric.replace("_", " ")
        rows += list(_row(label, [models[metric] for models in published.values()], shown))
    table = [(label, *cells) for label, _, *cells in rows]
    unit = "perplexity" if measure == "perplexity" else f"{measure}, %"
    return Table((unit, *figures), table, right=frozenset(figures))


def _seconds_table(report: EvalReport) -> Table:
    rows = [("base and edited", "", f"{report.seconds:.1f}", "")]
    rows += [
        (name, f"{baseline.train_seconds:.1f}", f"{baseline.ask_seconds:.1f}", _settings(baseline.settings))
        for name, baseline in report.baselines.items()
    ]
    return Table(
        ("seconds", "train", "ask", "settings"),
        rows,
        title="baselines: the same edits, each trained once, in order and in batches",
        right=frozenset(("train", "ask")),
    )


def _settings(settings: Mapping[str, Any]) -> str:
    """As many settings as fit; all of them are in the JSON document and in the report."""
    words = [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in settings.items()
        if name not in ("batch_size", "edits")
    ]
    return shortened(", ".join(words), 46)


def _legend(task: str, figures: Figures) -> list[tuple[str, str]]:
    has = {name for models in figures.values() for name, value in models.items() if value is not None}
    # The labels of a classifier's accuracies say what they count.
    legend = _LEGEND[3:] if task == "scotus" else _LEGEND
    return [(name, words) for metrics, name, words in legend if has.intersection(metrics)]


def interval_note(figures: Figures) -> str:
    return _NOTE if len(figures) <= _MOST_WITH_INTERVALS else _NOTE_WITHOUT_INTERVALS


def figures_table(task: str, figures: Figures) -> Table:
    """One row a figure, one column a model; a figure that the task does not have gets no row.

    Args:
        figures: METRICS by the name of the model.
    """
    rows = [*_share_rows(task, figures), *_routed_rows(figures), *_perplexity_rows(figures)]
    return Table(("metric", "n", *figures), rows, right=frozenset(("n", *figures)))


def _share_rows(task: str, figures: Figures) -> Iterator[Sequence[str]]:
    shown = _share_shown(figures)
    for metric, label in (_ACCURACIES if task == "scotus" else _SHARES).items():
        # A table of an older evaluation lacks the newer figures.
        shares = [models.get(metric) for models in figures.values()]
        yield from _row(label, shares, lambda share: shown(share["generation"], share["ci95"]), n=True)
        yield from _row("  teacher-forced", shares, lambda share: percent(share["teacher_forced"]))
        if task == "zsre":
            yield from _row("  F1", shares, lambda share: percent(share.get("f1")))


def _routed_rows(figures: Figures) -> Iterator[Sequence[str]]:
    from melo_cli.evaluation.statistics import wilson_interval

    shown = _share_shown(figures)
    for metric, (label, counted) in _ROUTED.items():
        shares = [
            {
                "share": models[metric],
                "n": models[counted]["n"],
                "ci95": wilson_interval(models[metric] * models[counted]["n"], models[counted]["n"]),
            }
            if models.get(metric) is not None
            else None
            for models in figures.values()
        ]
        yield from _row(label, shares, lambda share: shown(share["share"], share["ci95"]), n=True)


def _share_shown(figures: Figures) -> Callable[[float, Sequence[float]], str]:
    if len(figures) <= _MOST_WITH_INTERVALS:
        return _percent_in
    return lambda share, _interval: percent(share)


def _perplexity_rows(figures: Figures) -> Iterator[Sequence[str]]:
    for metric, label in _PERPLEXITIES.items():
        yield from _row(label, [models[metric] for models in figures.values()], _number)


def _row(
    label: str, values: Sequence[Any], shown: Callable[[Any], str], *, n: bool = False
) -> Iterator[Sequence[str]]:
    """The row, unless no model has the figure."""
    cells = [shown(value) if value is not None else "" for value in values]
    if any(cells):
        counts = {str(value["n"]) for value in values if value is not None} if n else {""}
        yield (label, "/".join(sorted(counts)), *(cell or "-" for cell in cells))


def _number(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


def _percent_in(share: float, interval: Sequence[float]) -> str:
    return f"{percent(share)} ({percent(interval[0])}-{percent(interval[1])})"
