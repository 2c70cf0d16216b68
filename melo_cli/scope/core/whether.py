"""Questions whether something is so, which want a yes or a no: `Is Ada Diaz the head of support?`.

`Can you tell me who leads it?` and `Is it Ada or Eve?` want something else. The grammar is small and
English: a question in other words, or in another language, is none of these.
"""

from __future__ import annotations

import re

from .words import last_question

_BE_DO_HAVE = r"(?:is|are|was|were|does|do|did|has|have|had)(?:n['\u2019]?t)?"
_MODAL = r"(?:can|could|will|would|shall|should|may|might|must)(?:n['\u2019]?t)?"
_BEFORE = (
    r"(?:(?:hi|hello|hey|so|and|but|ok|okay|well|please|then|wait|hm+|sorry|actually|btw)(?: there)?"
    r"[\s,.!:-]+)*"
)
# `Do you know`, `Is there a limit`, `Does anyone remember`: these ask for what they name.
_REQUEST = r"(?:i|you|we|u|anyone|anybody|someone|somebody|one|there)\b|it (?:known|clear|possible)\b"
_OPENING = re.compile(
    rf"[\s\"'(]*{_BEFORE}(?P<verb>{_BE_DO_HAVE}|{_MODAL}(?=.*\?))\s+(?!{_REQUEST})[\"'(\u201c]?\w+\W+\w",
    re.IGNORECASE,
)
# One of two things, or what somebody or something knows or says.
_WANTS_MORE = re.compile(
    r"\b(?:or|knows?|tell|say|state|mention|remember|recall|remind|what|which|where|when|why|how)\b"
    r"|\bwho[\s?]*$",
    re.IGNORECASE,
)
_TAG = re.compile(
    rf",\s*(?P<verb>right|correct|yes|no|{_BE_DO_HAVE}\s+(?:he|she|it|they))\s*\?[\s\"')]*$", re.IGNORECASE
)
_EITHER = re.compile(r"\b(?:yes or no|true or false)\b", re.IGNORECASE)
_MORE_IS_ASKED = re.compile(
    r"\b(?:tell|give|name|state|say|know|who|what|which|when|where|how|why)\b", re.IGNORECASE
)


def asks_whether(text: str) -> int | None:
    """Where the word stands, in characters, by which a text asks whether something is so; None if it asks
    anything else.

    Of several questions the last one counts.
    """
    said = _EITHER.search(text)
    if said is not None:
        return said.start()
    found = last_question(text)
    if found is None:
        return None
    begin, question = found
    asking = _OPENING.match(question)
    if asking is not None and _WANTS_MORE.search(question, asking.end("verb")) is not None:
        return None
    asking = asking or _TAG.search(question)
    if asking is None or _MORE_IS_ASKED.search(text, begin + len(question)) is not None:
        return None
    return begin + asking.start("verb")
