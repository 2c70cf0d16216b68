"""Other questions about an edit's subject, made of other edits."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from melo_cli.paraphrase.subject_swaps import Questions, Statement, normalized, swap_subject

# Edits whose question is tried about a subject: it may ask what an edit of that subject asks, or be taken.
_TRIES = 20


def questions_of_others(edits: Sequence[Statement], taken: Iterable[str], *, seed: int) -> list[str | None]:
    """For each edit the question of an edit of another subject, asked about its own.

    No edit of that subject asks the same; a result is never a prompt or rephrase of an edit, nor one of
    `taken` (case and white space aside), and none comes twice. The same edits and seed give the same ones.

    Args:
        edits: the edits.
        taken: texts that must not come up.
        seed: seed of the draw.

    Returns:
        One entry an edit, in order; None where it has no subject, or no other edit has a question that fits.
    """
    used = {normalized(text) for edit in edits for text in (edit.prompt, *edit.rephrases)}
    used |= {normalized(text) for text in taken}
    about: dict[str, list[Statement]] = {}
    for edit in edits:
        if edit.subject and edit.subject.strip():
            about.setdefault(normalized(edit.subject), []).append(edit)
    with_subject = [edit for some in about.values() for edit in some]
    questions = Questions(edits)
    drawn = random.Random(f"same subject:{seed}")
    texts: list[str | None] = []
    for edit in edits:
        own = about.get(normalized(edit.subject or ""), [])
        tried = drawn.sample(with_subject, min(_TRIES, len(with_subject))) if own else []
        asked = (
            swap_subject(other.prompt, str(other.subject), str(edit.subject))
            for other in tried
            if other not in own and not any(questions.alike(other, each) for each in own)
        )
        text = next((text for text in asked if text is not None and normalized(text) not in used), None)
        if text is not None:
            used.add(normalized(text))
        texts.append(text)
    return texts
