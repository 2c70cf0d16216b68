"""Splitting English prose into sentences."""

from __future__ import annotations

import re

_CLOSING, _OPENING = "\"')\\]\u201d\u2019", "\"'(\\[\u201c\u2018"
_END = re.compile(rf"[.!?]+[{_CLOSING}]*(?=\s)")
_NEXT_WORD = re.compile(rf"[{_OPENING}]*(\w*)")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEVER_LAST = _words(
    "mr mrs ms dr prof st mt gen col maj capt cpt lt sgt adm cmdr rev hon sen rep gov pres supt messrs mme "
    "mlle fr vs cf viz née nee e.g i.e jan feb mar apr jun jul aug sep sept oct nov dec"
)
"""Abbreviations that something always follows."""

_BEFORE_NUMBER = _words("no nos vol vols fig figs pp ca approx fl")
"""Abbreviations before a number; otherwise ordinary words or the end of a sentence."""

_MAYBE_LAST = _words("jr sr inc ltd co corp bros esq etc al ed eds univ dept ave blvd rd ft ph.d m.d")
"""Abbreviations that may end a sentence, as initials (J.) and acronyms (U.S.) may."""

_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")

_STARTERS = _words(
    "a after all although among an and as at because before both but by despite during each following for "
    "from he her his however i if in it its later many most on one other she since some that the their "
    "then there these they this those though through to together under until upon we when where while with "
    "you"
)
"""Words that begin a sentence far more often than they follow an abbreviation inside one."""


def split_sentences(text: str) -> list[str]:
    """The sentences of an English text, white space around them removed, in order.

    A sentence ends with `.`, `!` or `?` (and closing quotes or brackets) before white space, unless

    - the next word begins in lower case;
    - an abbreviation that never ends a sentence stands before the stop (Mr., St., Jan.), or one that goes
      with a number (No., pp., ca.), and a number follows;
    - an initial, an acronym or an abbreviation that may end one stands there (J., U.S., Jr., Inc.), and the
      next word is no usual beginning of a sentence (He, The, In, After ...).

    The published code uses NLTK's Punkt model here; this needs no download and agrees on ordinary
    biographies, but may differ where an abbreviation is in neither list.
    """
    sentences = []
    start = 0
    for stop in _END.finditer(text):
        if _ends_sentence(text[start : stop.end()], text[stop.end() :].lstrip()):
            sentences.append(text[start : stop.end()].strip())
            start = stop.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _ends_sentence(before: str, after: str) -> bool:
    following = _NEXT_WORD.match(after)
    next_word = following[1] if following else ""
    if next_word[:1].islower():
        return False
    last = before.split()[-1]
    if not last.endswith("."):
        return True
    word = re.sub(rf"^[{_OPENING}]+", "", last).rstrip(".").lower()
    word = re.split(r"[-\u2013\u2014]", word)[-1]  # Missouri-St. Louis
    if word in _NEVER_LAST:
        return False
    if word in _BEFORE_NUMBER:
        return not next_word[:1].isdigit()
    if word in _MAYBE_LAST or _INITIALS.fullmatch(word):
        return next_word.lower() in _STARTERS
    return True
