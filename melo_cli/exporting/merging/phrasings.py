"""Other ways to put a prompt, made without a model: what a merge learns an edit's scope from.

The rephrases that come with an edit are kept for measuring and never learned from.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from melo_cli.variants import swap_subject

_FRAMES = (
    "Tell me: {}",
    "Question: {}",
    "Please answer. {}",
    "I would like to know: {}",
    "{} Answer briefly.",
    "Do you know this? {}",
)


def phrasings(prompt: str, subject: str | None, count: int, seed: int) -> list[str]:
    """Up to `count` distinct phrasings of a prompt: framed, with words left out or moved, in another case.

    The words of the subject all stay, in their order. The same arguments give the same phrasings.
    """
    drawn = random.Random(f"{seed} {prompt}")
    makers = [_framed, _without_a_word, _shuffled, _without_a_word, _plain, _shuffled]
    found: dict[str, None] = {}
    for attempt in range(4 * count):
        if len(found) == count:
            break
        made = makers[attempt % len(makers)](prompt, subject, drawn)
        if made.strip() and made != prompt:
            found[made] = None
    return list(found)


def about_others(prompt: str, subject: str | None, others: Sequence[str], count: int, seed: int) -> list[str]:
    """The prompt with other subjects in the place of its own; none where it does not name its subject."""
    candidates = [other for other in others if other != subject]
    if not subject:
        return []
    drawn = random.Random(f"{seed} {prompt}").sample(candidates, min(count, len(candidates)))
    swapped = (swap_subject(prompt, subject, other) for other in drawn)
    return [text for text in swapped if text is not None]


def _framed(prompt: str, subject: str | None, drawn: random.Random) -> str:
    return drawn.choice(_FRAMES).format(prompt)


def _plain(prompt: str, subject: str | None, drawn: random.Random) -> str:
    return prompt.rstrip("?.! ").lower() if drawn.random() < 0.5 else prompt.rstrip("?.! ")


def _without_a_word(prompt: str, subject: str | None, drawn: random.Random) -> str:
    parts = _parts(prompt, subject)
    free = [place for place, part in enumerate(parts) if part != subject]
    if len(free) < 2:
        return prompt
    gone = drawn.sample(free, drawn.choice((1, 2)) if len(free) > 3 else 1)
    return " ".join(part for place, part in enumerate(parts) if place not in gone)


def _shuffled(prompt: str, subject: str | None, drawn: random.Random) -> str:
    """Cut in two and put together the other way round, as `X of Y` becomes `Y's X`."""
    parts = _parts(prompt, subject)
    if len(parts) < 3:
        return prompt
    cut = drawn.randrange(1, len(parts))
    return " ".join(parts[cut:] + parts[:cut])


def _parts(prompt: str, subject: str | None) -> list[str]:
    """Words, with the subject in one piece."""
    if not subject or subject not in prompt:
        return prompt.split()
    before, _, after = prompt.partition(subject)
    return [*before.split(), subject, *after.split()]
