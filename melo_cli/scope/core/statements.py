"""Statements: what says something and asks for nothing: `The guest password does not work.`

`The guest password is` is a question, since an answer completes it, and so is `I forgot the guest password.`
The grammar is small and English: a statement in other words, or in another language, is none of these.
"""

from __future__ import annotations

import re

from .words import sentences

_LONGEST = 500
"""Characters of the longest text that is taken for a statement."""


def _words(listed: str) -> str:
    return f"(?:{'|'.join(listed.split())})"


# With one of these words a text asks for something, in whatever form.
_ASKING = _words(
    """who whom whose what which where when why how whether if tell say give gimme name state need
    needs know knows want wants looking look wonder wondering find list show remind remember recall
    forgot forget forgotten ask asking please pls plz kindly help quote specify identify provide
    confirm clarify explain describe indicate enter answer complete finish fill search searching
    information info unsure sure unclear idea clue curious interested question determine require
    requested hear after seek seeking missing blank let"""
)
_ASKS = re.compile(
    rf"\b(?:{_ASKING}|(?<!for )(?<!to )(?<!with )(?<!of )(?<!at )(?:me|us)|'d like|would like|can't|cannot)\b"
    r"|[?\uff1f_]|\.\.\.|\u2026|[:=]\s*$",
    re.IGNORECASE,
)
_SAID_BEFORE = (
    r"(?:(?:hi|hello|hey|so|and|but|also|ok|okay|well|now|yes|yeah|no|nope|thanks|thank you|sorry|great|cool"
    r"|sadly|honestly|unfortunately|actually|apparently|btw|fyi|right|hm+)(?: there| all)?[\s,.!:-]+)*"
)
# `Fetch the number of moons that it has.`
_COMMAND = _words(
    """bring calculate call check choose compute count deliver dig direct display drop fetch get go
    hand hit locate mention note output pick point print pull put read recite repeat report retrieve
    return reveal run select send share single spell supply take throw translate type use work write"""
)
_BE_DO_HAVE = _words("is are was were am does do did has have had will would can could should must may might")
_VERB = _words(
    """asked became began belongs? bought broke brought called came carries carried changed? charged?
    chose closed closes comes costs? crashed danced decided died drank drives? dropped enjoyed expired
    expires failed fails feels felt flew flows? founded froze gets gives goes got grew hates? helped
    holds hopes? invented kept keeps laughed leads led left likes? liked lives? lived looks? loses lost
    loves? loved makes? made means meant met missed moved moves needed opened opens owns paid pays
    proves pushed ran reads replaced runs said sat saw says seems sells sent signed sold sounds speaks
    spent spoke sponsors stands started starts stays stayed stopped stops swallowed takes? talked
    thinks? thought threw told took tried turned uses used visited waited walked went wins won worked
    works? wrote guess believe"""
)
# `It's`, `we've`; but not `Acme's`
_SHORT_VERB = (
    r"(?:(?:(?<=\bit['\u2019])|(?<=\bhe['\u2019])|(?<=\bshe['\u2019])|(?<=\bthat['\u2019])|(?<=\bthere['\u2019]))s"
    r"|(?<=['\u2019])(?:re|m|ve|ll))"
)
_NOT = rf"{_words('is are was were does do did has have had')}(?:n['\u2019]?t| not)\b"
_HANGING = _words(
    """about above after at before below by for from in into is of on than that the through to until
    was with without"""
)
_STATEMENT = re.compile(
    rf"[\s\"'(]*{_SAID_BEFORE}(?!{_COMMAND}\s)(?:"
    # `The canteen opens at noon.`
    rf"[^.!]+?(?P<verb>(?<=\s)(?:{_BE_DO_HAVE}(?:n['\u2019]?t)?|{_VERB})|{_SHORT_VERB})\b"
    r"(?=.+[.!][\"')\]\u201d\u2019]*$)"
    # `the guest password does not work`, whose end no answer completes
    rf"|.+?\s(?P<negated>{_NOT})(?!.*\s{_HANGING}\s*$)(?=\s+\w))",
    re.IGNORECASE,
)
_GREETING = re.compile(rf"\W*{_SAID_BEFORE}\w*\W*", re.IGNORECASE)


def said_in(text: str) -> int | None:
    """Where the verb stands, in characters, of the last sentence of a text that only says something; None if
    it asks for anything."""
    if len(text) > _LONGEST or _ASKS.search(text) is not None:
        return None
    verb = None
    for begin, sentence in sentences(text):
        found = _STATEMENT.match(sentence)
        if found is not None:
            verb = begin + found.start("verb" if found["verb"] is not None else "negated")
        elif _GREETING.fullmatch(sentence) is None:  # `Opening hours of Acme. It is urgent.`
            return None
    return verb
