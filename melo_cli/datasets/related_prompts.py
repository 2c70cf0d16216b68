"""Rephrases and locality prompts, under every field name that published data sets use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from melo_cli.datasets.answers import true_answer
from melo_cli.datasets.reading_notes import ReadingNotes
from melo_cli.datasets.rows import Row, kind_of, structure

REPHRASES = (
    "rephrases",
    "rephrase",
    "rephrase_prompt",
    "rephrase_prompts",
    "paraphrases",
    "paraphrase",
    "paraphrase_prompt",
    "paraphrase_prompts",
    "ood_rephrase",
)
"""Ours; those of KnowEdit, EasyEdit, CounterFact and WISE; and both words in either number."""

_PAIRED = {
    "locality_prompt": ("locality_target", "locality_ground_truth", "locality_answer", "locality_ans"),
    "loc": ("loc_ans",),
}
"""Fields of unrelated prompts, with those that may hold their answers."""

LOCALITY = frozenset(
    {"locality", "neighborhood_prompts", *_PAIRED, *(name for names in _PAIRED.values() for name in names)}
)

_ANSWERS = ("target", "ground_truth", "answer")


def rephrases(row: Row, names: Sequence[str] = REPHRASES) -> list[str]:
    """The rephrases in all fields so named, each once; empty ones stay, to be counted.

    Raises:
        DatasetError: a field holds neither a text nor a list of texts.
    """
    kept: dict[str, None] = {}
    blank = []
    for name in names:
        value = structure(row.fields.get(name))
        texts = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise row.error(f"{name} is {kind_of(value)}", "it must be a text or a list of texts")
        blank += [text for text in texts if not text.strip()]
        kept |= dict.fromkeys(row.as_text(text, name) for text in texts if text.strip())
    return [*kept, *blank]


def locality(row: Row, notes: ReadingNotes) -> Iterator[tuple[str, str | None]]:
    """The unrelated prompts of a row with their true answers, in any of the forms.

    Raises:
        DatasetError: a field is of the wrong kind, or a prompt is missing or empty.
    """
    value = structure(row.fields.get("locality"))
    if isinstance(value, Mapping) and "prompt" not in value:
        yield from _by_kind(row, value, notes)
    else:
        yield from _listed(row, value, "locality", None, notes)
    for name, answers in _PAIRED.items():
        yield from _paired(row, name, answers, notes)
    # In CounterFact the neighbours are those subjects that have the edited fact's true object.
    truth = true_answer(row, row.fields.get("target_true"), "target_true")
    neighbours = structure(row.fields.get("neighborhood_prompts"))
    yield from _listed(row, neighbours, "neighborhood_prompts", truth, notes)


def _by_kind(row: Row, kinds: Mapping[str, Any], notes: ReadingNotes) -> Iterator[tuple[str, str | None]]:
    """KnowEdit's: lists of pairs by what they test (Relation_Specificity, Forgetfulness)."""
    for kind, pairs in kinds.items():
        name = f"locality.{kind}"
        pairs = [pairs] if isinstance(pairs, Mapping) else pairs
        if not isinstance(pairs, list) or not all(isinstance(pair, Mapping) for pair in pairs):
            raise row.error(f"{name} is {kind_of(pairs)}", "it must be a list of {prompt, ground_truth}")
        yield from _listed(row, pairs, name, None, notes)


def _listed(
    row: Row, value: Any, name: str, truth: str | None, notes: ReadingNotes
) -> Iterator[tuple[str, str | None]]:
    """Prompts, or pairs of prompt and answer; `truth` answers those that stand alone."""
    items = [value] if isinstance(value, str | Mapping) else value or []
    if not isinstance(items, list):
        raise row.error(f"{name} is {kind_of(value)}", "it must be a list of texts or {prompt, target}")
    for i, item in enumerate(items):
        where = f"{name}[{i}]"
        if isinstance(item, Mapping):
            prompt = _first(item.get("prompt"))
            answer = next((item[key] for key in _ANSWERS if key in item), None)
            yield row.as_text(prompt, f"{where}.prompt"), _answer(row, answer, f"{where}.target", notes)
        else:
            yield row.as_text(item, where), truth


def _paired(
    row: Row, name: str, answers: Sequence[str], notes: ReadingNotes
) -> Iterator[tuple[str, str | None]]:
    """A prompt in one field and its answer in another, or as many of both in lists."""
    given = next((answer for answer in answers if row.fields.get(answer)), answers[0])
    prompts, truths = structure(row.fields.get(name)), structure(row.fields.get(given))
    if isinstance(prompts, list):
        if truths is None:
            truths = [None] * len(prompts)
        truths = truths if isinstance(truths, list) else [truths]
        if len(truths) != len(prompts):
            raise row.error(f"has {len(prompts)} {name} and {len(truths)} {given}")
        for i, (prompt, truth) in enumerate(zip(prompts, truths, strict=True)):
            yield row.as_text(prompt, f"{name}[{i}]"), _answer(row, truth, given, notes)
    elif prompts or truths:
        yield row.as_text(prompts, name), _answer(row, row.fields.get(given), given, notes)


def _answer(row: Row, value: Any, name: str, notes: ReadingNotes) -> str | None:
    """A true answer; an empty one is a fault of the data that is counted, a missing one is none."""
    answer = true_answer(row, value, name)
    notes.empty_answers += answer is None and value is not None
    return answer


def _first(value: Any) -> Any:
    """The first text, if a pair gives several."""
    return value[0] if isinstance(value, list) and value else value
