"""What the page calls things, and how it writes numbers and texts."""

from __future__ import annotations

from collections.abc import Callable

from melo_cli import units
from melo_cli.evaluation.decision_measures import Measure
from melo_cli.evaluation.results import Result

# Metric, what the page calls it, what it says, and the kind of probe whose colour it has.
SHARES = (
    ("edit_success", "Edits hold", "edited prompts answered as asked", "edit"),
    ("generality", "Rephrases follow", "the same questions in other words, answered as asked", "rephrase"),
    ("locality_agreement", "Unrelated unchanged", "unrelated prompts answered as before", "unrelated"),
    ("hard_agreement", "Hard negatives unchanged", "look-alike prompts answered as before", "hard"),
    (
        "same_subject_agreement",
        "Same subject unchanged",
        "other questions about edited subjects answered as before",
        "same_subject",
    ),
    ("locality_truth", "Unrelated right", "unrelated prompts answered correctly", "unrelated"),
    ("hard_truth", "Hard negatives right", "look-alike prompts answered correctly", "hard"),
    (
        "same_subject_truth",
        "Same subject right",
        "other questions about edited subjects answered correctly",
        "same_subject",
    ),
)
ROUTED = (
    ("fired_edits", "Edits reached", "edited prompts that an edit's block answered"),
    ("fired_rephrases", "Rephrases reached", "rephrases that an edit's block answered"),
    ("nearest_right", "Ceiling for rephrases", "rephrases whose nearest edit is the right one"),
    ("fired_unrelated", "Unrelated reached by mistake", "unrelated prompts that an edit's block answered"),
    ("fired_hard", "Hard negatives reached by mistake", "look-alikes that an edit's block answered"),
    (
        "fired_same_subject",
        "Same subject reached by mistake",
        "other questions about edited subjects that an edit's block answered",
    ),
)
PERPLEXITIES = (
    ("perplexity_edits", "Perplexity of the new text", "how surprised the model is by it; 1 is not at all"),
    ("perplexity_unrelated", "Perplexity of unrelated text", "should stay as it was"),
    ("arr", "Perplexity of accurate text (ARR)", "text that the model had right; should not rise"),
)
PUBLISHED = (
    ("edit_success", "Edits", "edit"),
    ("generality", "Rephrases", "rephrase"),
    ("locality", "Unrelated", "unrelated"),
    ("arr", "Accurate text (ARR)", "unrelated"),
)
KINDS = {
    "edit": "edits",
    "rephrase": "rephrases",
    "same_subject": "same subj.",
    "hard": "hard neg.",
    "unrelated": "unrelated",
}


def percent(share: float | None) -> str:
    """In percent with one decimal; 100% and 0% stand for all and none alone. Empty for no share."""
    return f"{units.percent(share)}%" if share is not None else ""


def number(value: float | None) -> str:
    """Four digits, or whole thousands. Empty for no number."""
    if value is None:
        return ""
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


def shortened(text: str, most: int) -> str:
    """Of a long text the beginning and the end, some `most` characters."""
    return text if len(text) <= most else f"{text[: most * 2 // 3]} … {text[-most // 3 :]}"


def nearness_words(measure: Measure) -> Callable[[Result], str]:
    """Says how near a prompt is to the nearest edit; nothing where there is none."""

    def words(row: Result) -> str:
        value = measure.of(row)
        if value is None:
            return ""
        return f"{value:.0%} sure" if measure.rising else f"{value:.2f} radii"

    return words


def sentence(words: str) -> str:
    """Words with a capital and a full stop, or nothing."""
    return f"{words[0].upper()}{words[1:]}." if words else ""
