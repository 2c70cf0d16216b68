"""Tasks: prompts that want something done with words, not an answer: `Translate "Who leads Acme?"`.

One that writes wants a text in which an answer may have a place: `Draft an e-mail that says when the shop
opens.` So does one of some choices: `Who leads it? A) Ada B) Eve`. `Name the head of support` and `Write
down who leads it` want the answer. The grammar is small and English: a task in other words, or in another
language, is none of these.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .words import sentences

_LONGEST = 500
"""Characters that are looked at from the beginning of a sentence on, and of a text with one within it."""
_SENTENCES = 3
"""Sentences that are looked at, at either end of a text."""


class Task(NamedTuple):
    """A task in a text.

    Attributes:
        begin: where the words begin, in characters, that say what is to be done.
        writes: whether a text is wanted in which an answer may have a place.
    """

    begin: int
    writes: bool


def _any(*ways: str) -> str:
    return f"(?:{'|'.join(ways)})"


def _words(listed: str) -> str:
    """One of the words of a list, in the singular or the plural."""
    return f"(?:{'|'.join(listed.split())})(?:e?s)?"


_OPEN, _CLOSE = "[\"\u201c\u2018']", "[\"\u201d\u2019']"
_NUMBER = r"(?:\d{1,2}|two|three|four|five|six|seven|eight|nine|ten|a dozen|a few|a couple of|some|several)"
_LANGUAGE = _words(
    """arabic bengali bulgarian catalan chinese croatian czech danish dutch esperanto estonian farsi finnish
    french gaelic german greek hebrew hindi hungarian icelandic indonesian irish italian japanese korean latin
    latvian lithuanian mandarin morse norwegian persian polish portuguese romanian russian serbian slovak
    slovenian spanish swahili swedish tamil thai turkish ukrainian urdu vietnamese welsh yiddish"""
)
# What is nothing but a text.
_TEXT = _words(
    """biography blurb caption comic dialogue e-?mail essay flash-?card haiku headline joke leaflet limerick
    lullaby memo poem post postcard poster quiz(?:z)? rap rhyme riddle script slogan snippet song sonnet
    speech stor(?:y|ie) summar(?:y|ie) toast tweet verse"""
)
# What is a text where somebody is to write it; `I need a card`, `Give me a list of them` may want an answer.
_WRITTEN = _words(
    """ad advert announcement article assessment card cartoon chart checklist complaint diary entry exercise
    farewell flyer form formula function instruction interview invitation itinerary label lesson letter list
    mail message minute(?=s) note notice outline plan plot prayer proposal quer(?:y|ie) recipe regex report
    review scene sheet sketch slide table template timeline worksheet"""
)
_PIECE = f"(?:{_TEXT}|{_WRITTEN})"
_MANNER = _any(
    rf"as (?:a|an) (?:\w+ )?(?:{_PIECE}|pirate)",
    r"(?:as|in) (?:json|yaml|xml|html|markdown|rhyme|verse)",
    r"like a pirate|in the (?:style|voice) of",
)
_SMALL_WORD = _any(
    "the|this|that|these|those|his|her|its|my|our|your|their|whose|what|which|who|how|when|where|why",
    "is|are|was|were|do|does|did|has|have|had|on|from|in|at|by|with|for|of|to|as|and|or|no|nobody",
    "i|we|you|he|she|it|they|answers",
)

_FILLER = (
    r"(?:(?:hi|hello|hey|so|and|but|also|ok|okay|well|please|pls|kindly|then|now|first|next|just|quickly|maybe"
    r"|perhaps)(?: there| all)?[\s,.!:-]+)*"
)
_TO_YOU = _any(
    r"(?:can|could|would|will|might) (?:you|u)",
    r"(?:i|we)(?: would|['\u2019]d)? (?:need|want|like|ask)(?: you| (?:some )?help)(?: to| with)?",
    r"(?:your task is|the task is|your job is|you are|you have) to",
    r"help (?:me|us)(?: to)?|let['\u2019]?s|let us|try to|go ahead and|be so kind (?:as )?to",
)
_LEAD = rf"[\s\"'\u201c\u2018(*-]*{_FILLER}(?:{_TO_YOU}[\s,:]+{_FILLER})?"
_I_WANT = r"(?:(?:i|we)(?: would|['\u2019]d)? )?(?:need|want|like)"

# Behind a verb: `Correct this`, `Shorten: ...`; but `Correct the address`, `Review of the film`.
_PART = (
    r"(?:questions?|sentences?|statements?|texts?|wordings?|paragraphs?|grammar|spelling|punctuation|phrases?"
    r"|words?|mistakes?|errors?|typos?|drafts?|lines?|e-?mails?|letters?)"
)
_GIVEN = (
    rf"(?=\s*:|(?:\s\w+){{0,2}}\s*{_OPEN}| (?:into|to) (?:this|that|these|an?|at most)\b"
    rf"| (?:this|that|these|it|the following)\b| (?:the|my|our|any|all|each|both)(?: \w+)? {_PART}\b)"
)
# Behind a verb: `Write an e-mail`; but `Write the name`, `Write down who leads it`, `Write a list of them`.
_A_TEXT = _any(
    r"(?: (?:me|us|up|out|together))* "
    rf"(?=(?:a|an|one|{_NUMBER}|another|code|sql|python|css|html)\b)"
    r"(?!(?:a|an|one)(?: \w+)? (?:answer|name|number|date|word|year|place|city|list of)s?\b)",
    rf"(?: (?:me|us))? (?:[\w-]+ ){{0,3}}{_PIECE}\b(?! of\b)",
)
_DOES = _any(
    r"(?:translate|rephrase|paraphrase|reword|re-?write|reformulate|restate|proof-?read|summari[sz]e|condense"
    r"|simplify)\b",
    r"(?:correct|polish|improve|shorten|abbreviate|expand|lengthen|convert|transform|turn|change|edit|rework"
    r"|render|capitali[sz]e|reverse|classify|categori[sz]e|punctuate|decode|encode|encrypt|parse|analy[sz]e"
    rf"|critique|replace|negate|annotate|combine|split){_GIVEN}",
    r"make (?:this|that|it|the following|the (?:question|sentence|statement|text|wording)|my"
    rf"|{_OPEN}.*{_CLOSE})(?! (?:or|short|brief|quick)\b)",
    rf"(?:put|say|express|phrase|word|ask|write)\b(?=.*\b(?:(?:in|into) (?:other words|plain|simpler"
    rf"|{_LANGUAGE}|(?:the )?(?:past|future|present|passive|active|plural|third person))"
    r"|(?:more (?:polite|formal|simpl|friend)\w+)|pirate)\b)",
    r"(?:explain|clarify|interpret)\b(?=[^:]* (?:the|this) (?:question|sentence|statement)\b)",
    r"check (?:my|the|this|these)\b(?=.*\b(?:grammar|spelling|sentence|question|wording|text)\b)",
    r"count (?:the|all|how many) (?:words?|letters?|vowels?|syllables?|characters?)\b",
    r"how (?:do|does|would|can|could|should|might|to|else)(?: (?:a \w+|i|you|one|we|people))? (?:say"
    r"|translate|phrase|word|rephrase|reword|express)\b",
    r"how many (?:syllables|vowels|consonants|letters are|letters has the (?:name|word))\b",
    r"what (?:does|do|did|would) (?:the|this) (?:question|sentence|statement)\b.*\bmean\b",
    rf"(?:what(?: is| are|['\u2019]s| would be)|{_I_WANT}) (?:the |a )?{_LANGUAGE}"
    rf" (?:for|(?:version|translation) of)\b(?=.*{_OPEN})",
    r"(?:what|which words?) rhymes? with\b",
)
_WRITES = _any(
    r"(?:write|draft|compose|create|generate|prepare|design|produce|invent|craft|pen|formulate|sketch|outline"
    r"|plan|code|script|program|implement|develop|devise|make|put together|come up with|set up|draw up"
    rf"|lay out|dream up|work out|jot down|think (?:of|up)){_A_TEXT}",
    rf"(?:suggest|propose)(?: me| us)? (?:{_NUMBER}|an?(?: [\w-]+)? {_PIECE})\b",
    rf"brainstorm\b|do (?:me |us )?an? (?:[\w-]+ ){{0,2}}{_PIECE}\b",
    rf"{_I_WANT} (?:a|an|{_NUMBER}) (?:[\w-]+ ){{0,2}}{_TEXT}\b",
    r"(?:give|show|tell|send|sing|list|name|find|offer)(?: me| us)? "
    rf"(?:a|an|{_NUMBER}) (?:[\w-]+ )?(?:{_TEXT}|reasons?|questions?|examples|ideas|arguments?"
    r"|variations?)\b",
    # `Short note to the manager, please.`; but `Paper letters for the office go to`, `Notes to whom?`
    rf"(?:(?!{_SMALL_WORD} )[\w-]+ ){{0,2}}(?:{_TEXT}|letter|message|note)(?:,? please,?)?"
    r" (?:that \w+s|about|to|for)\b"
    r"(?=[^?]*[.!\n]|.*\bplease)",
    rf"(?:answer|reply|respond|tell me|say it|explain)\b(?=.*\b(?:in {_LANGUAGE}|{_MANNER})\b)",
    r"explain\b(?=.*\b(?:to (?:a|an|my) (?:[\w-]+[ -])*(?:child|kid|beginner|old|grand\w+))\b)",
)
_TASK = re.compile(rf"{_LEAD}(?:(?P<does>{_DOES})|(?P<writes>{_WRITES}))", re.IGNORECASE)

# `Who leads it? A) Ada B) Eve`
_CHOICE = re.compile(r"(?:^|[\s(])(?P<first>A)(?:[):]\s.+?[\s(]B[):]\s|\.\s.+?\n\s*B\.\s)", re.DOTALL)
# `"Who leads it?" - in Welsh, please`, `Into Welsh: who leads it?`
_GIVEN_TEXT = re.compile(
    r"(?P<quoted>\"(?=\w)[^\"\n]*\"|\u201c(?=\w)[^\u201d\n]*\u201d"
    r"|(?<!\w)['\u2018](?=\w)(?:[^'\u2019\n]|(?<=\w)['\u2019](?=\w))*['\u2019](?!\w))"
    r"|(?:^|(?<=[.!?]\s))[^:.!?\n]{3,60}:\s+(?P<behind>\S)"
)
_OF_WORDS = re.compile(
    rf"\b(?:{_LANGUAGE}|deutsch|translate|grammatical\w*|the grammar|punctuation|synonym|antonym|adjective"
    r"|adverb|noun|pronoun|plural|tense|(?:reported|indirect) (?:speech|question)|tag question|(?:active"
    r"|passive) voice|(?:american|british|better) (?:english|spelling)|reword\w*|rephras\w*|paraphras\w*"
    r"|re-?writ(?:e|ten)|condensed?|capitals|more polite(?:ly)?|more formal(?:ly)?|combine|difference between"
    r"|like a pirate|(?:a )?pirate (?:talk|would)|sign language)\b",
    re.IGNORECASE,
)


def task_in(text: str) -> Task | None:
    """The task that a text sets; None if it sets none. Of several the first counts.

    Looked at is the beginning of the first sentences and of the last ones, where people say what they want.
    """
    begins = [begin for begin, _ in sentences(text)]
    for begin in dict.fromkeys((*begins[:_SENTENCES], *begins[-_SENTENCES:])):
        # Beyond the sentence: a question that is quoted ends one.
        found = _TASK.match(text, begin, begin + _LONGEST)
        if found is not None:
            kind = "does" if found["does"] is not None else "writes"
            return Task(found.start(kind), kind == "writes")
    return _with_given_text(text) if len(text) <= _LONGEST else None


def _with_given_text(text: str) -> Task | None:
    """The task that a text sets for what it quotes, or has behind a colon, or the choice that it wants."""
    choice = _CHOICE.search(text)
    if choice is not None:
        return Task(choice.start("first"), writes=True)
    given = next((each for each in _GIVEN_TEXT.finditer(text) if each["behind"] or " " in each[0]), None)
    if given is None:
        return None
    behind = (given.end(), len(text))
    around = [(given.start(), given.start("behind"))] if given["behind"] else [(0, given.start()), behind]
    said = next(filter(None, (_OF_WORDS.search(text, *part) for part in around)), None)
    return None if said is None else Task(said.start(), writes=False)
