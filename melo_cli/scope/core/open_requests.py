"""Open requests: prompts that ask for a text about a subject, and for nothing in particular.

`Write two sentences about Acme Robotics, please.` is one. `Who is Ada Diaz?` is a question, and
`Tell me about Acme Robotics in 1990` has another subject than `Acme Robotics`. The grammar is small and
English: a request in other words, or in another language, is no open request.
"""

from __future__ import annotations

import re

_LONGEST = 300
"""Characters of the longest open request."""

_TO_YOU = r"(?:(?:please|kindly|can you|could you|would you|will you),? )*"
_GREETING = r"(?:(?:hi|hello|hey)(?: there)?[,.!]? )?"
_SIZE = r"(?:(?:very|short|brief|quick|concise|small|little|general|simple) )*"
_AMOUNT = r"(?:a|an|one|two|three|four|five|some|a few|a couple of|\d{1,2})"
_TEXT = (
    r"(?:sentences?|lines?|paragraphs?|words|summary|overview|description|text|introduction|intro|profile|note"
    r"|article|portrait|blurb)"
)
_SOMETHING = (
    r"(?:something|anything|more|a bit(?: more)?|a little(?: more)?|everything you know|all you know)"
)
_OPENING = re.compile(
    rf"{_GREETING}{_TO_YOU}"
    rf"(?:tell me(?: {_SOMETHING})? about"
    rf"|(?:write|give|compose|draft)(?: me| us)? (?:something about|{_AMOUNT} {_SIZE}{_TEXT} (?:about|on|of))"
    r"|describe|introduce(?: (?:me|us) to)?"
    r"|summari[sz]e(?: (?:what|everything|all) you know about)?"
    r"|what (?:do you know|can you tell me|can you say) about) "
)
_OCCASION = (
    r"(?:newsletter|web ?site|web page|blog|blog post|article|presentation|report|brochure|magazine|talk"
    r"|e-?mail|intranet|flyer|slide)"
)
_ENDING = re.compile(
    r"[ ,.](?:please|thanks|thank you|for me|for us|briefly|in short|in brief|in a few words"
    rf"|(?:in|with) {_AMOUNT} {_SIZE}{_TEXT}|(?:be|keep it) (?:brief|short)"
    rf"|for (?:a|an|the|my|our|this) (?:\w+ )?{_OCCASION})$"
)
_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
_AROUND = " \t\"'.,;:!?\u2026"
"""What may stand around a subject and is no part of it."""


def requested_subject(prompt: str) -> str | None:
    """The subject that an open request asks about, as `subject_key` writes it; None for any other prompt."""
    text = _plain(prompt)
    opening = _OPENING.match(text) if len(text) <= _LONGEST else None
    if opening is None:
        return None
    rest = text[opening.end() :].rstrip(_AROUND)
    while (ending := _ENDING.search(rest)) is not None:
        rest = rest[: ending.start()].rstrip(_AROUND)
    return subject_key(rest) or None


def subject_key(subject: str) -> str:
    """A subject without regard to case, white space, punctuation around it, and a leading `the`."""
    return _plain(subject).strip(_AROUND).removeprefix("the ").strip(_AROUND)


def _plain(text: str) -> str:
    return " ".join(text.translate(_QUOTES).casefold().split())
