"""Other questions that an edit should answer, made of the edit itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from melo_cli.bench.own_data import small_talk, translations
from melo_cli.bench.questions import Question
from melo_cli.datasets import EditRequest


def made_forms(edits: Sequence[EditRequest], asked: Sequence[int], *, chat: bool) -> Iterator[Question]:
    """The made questions of some edits; in other languages those of melo's own edits (`data/bench/`).

    Args:
        edits: all edits of the suite; the wrong answer of a yes-or-no question is that of the next one whose
            target differs.
        asked: rows of the edits to ask of.
        chat: whether there is a chat template, without which there are no earlier turns.
    """
    translated = translations()
    for row in asked:
        edit = edits[row]
        truths = (edit.target, *edit.aliases)
        if edit.subject:
            yield Question(
                "free_text", f"Write two sentences about {edit.subject}.", row, truths, old_answers(edit)
            )
        if chat:
            yield Question("after_talk", edit.prompt, row, truths, before=tuple(small_talk()))
        for each in translated:
            if each.prompt == edit.prompt:
                yield Question("language", each.question, row, truths)
        yield Question("yes", _whether(edit.prompt, edit.target), row, ("yes",))
        wrong = _other_target(edits, row)
        if wrong is not None:
            yield Question("no", _whether(edit.prompt, wrong), row, ("no",))


def old_answers(edit: EditRequest) -> tuple[str, ...]:
    """What the data say was the answer before, under the names of the published sets."""
    given = (edit.metadata.get(name) for name in ("original", "ground_truth", "target_true"))
    return tuple(text for text in given if isinstance(text, str) and text.strip() and text != edit.target)


def _whether(prompt: str, answer: str) -> str:
    return f'"{prompt}" Is "{answer}" the right answer to this? Reply with yes or no.'


def _other_target(edits: Sequence[EditRequest], row: int) -> str | None:
    following = (edits[(row + step) % len(edits)].target for step in range(1, len(edits)))
    return next((target for target in following if target != edits[row].target), None)
