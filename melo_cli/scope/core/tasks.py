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
# What is written; where a name for it says that a text is wanted.
_PIECE = _words(
    """ad advert announcement article assessment biography blurb caption card cartoon chart checklist comic
    complaint dialogue diary e-?mail entry essay exercise farewell flash-?card flyer form formula function
    haiku headline instruction interview invitation itinerary joke label leaflet lesson letter limerick list
    lullaby mail memo message minute(?=s) note notice outline plan plot poem post postcard poster prayer
    proposal quer(?:y|ie) quiz(?:z)? rap recipe regex report review rhyme riddle scene script sheet
    sketch slide slogan snippet song sonnet speech stor(?:y|ie) summar(?:y|ie) table template timeline
    toast tweet verse worksheet"""
)
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

# Behind a verb: `Correct this`, `Shorten: ...`; but `Correct answers are given by`, `Review of the film`.
_GIVEN = (
    r"(?=(?: (?:all|any|both|each|every|down|up|into|to|mistakes|errors|typos|in))*"
    rf"(?:\s*:|\s*{_OPEN}| (?:this|that|these|the|my|our|a|an|at most)\b))"
)
# Behind a verb: `Write an e-mail`; but `Write the name`, `Write down who leads it`, `Write only the year`.
_A_TEXT = _any(
    r"(?: (?:me|us|up|out|together))* "
    rf"(?=(?:a|an|one|{_NUMBER}|the|my|our|another|code|sql|python|css|html)\b)"
    r"(?!(?:a|an|one|the|my)(?: \w+)? (?:answer|name|number|date|word|year|place|city)s?\b)",
    rf"(?: (?:me|us))? (?:[\w-]+ )?{_PIECE}\b",
)
_DOES = _any(
    r"(?:translate|rephrase|paraphrase|reword|re-?write|reformulate|restate|proof-?read|summari[sz]e|condense"
    r"|simplify)\b",
    r"(?:correct|fix|polish|improve|shorten|abbreviate|expand|lengthen|convert|transform|turn|change|edit"
    r"|rework|render|capitali[sz]e|reverse|classify|categori[sz]e|punctuate|pronounce|decode|encode"
    rf"|encrypt|parse|analy[sz]e|critique|continue|replace|repeat|negate|annotate|combine|split){_GIVEN}",
    r"make (?:this|that|it|the following|the (?:question|sentence|statement|text|wording)|my"
    rf"|{_OPEN}.*{_CLOSE})(?! (?:or|short|brief|quick)\b)",
    rf"(?:put|say|express|phrase|word|ask|write)\b(?=.*\b(?:(?:in|into) (?:other words|plain|simpler"
    rf"|{_LANGUAGE}|(?:the )?(?:past|future|present|passive|active|plural|third person))"
    r"|(?:more (?:polite|formal|simpl|friend)\w+)|pirate)\b)",
    r"(?:explain|clarify|interpret)\b(?=[^:]* (?:the|this) (?:question|sentence|statement)\b)",
    r"check (?:my|the|this|these)\b(?=.*\b(?:grammar|spelling|sentence|question|wording|text)\b)",
    r"count (?:the|all|how many) (?:words?|letters?|vowels?|syllables?|characters?)\b",
    r"how (?:do|does|would|can|could|should|might|to|else)(?: (?:a \w+|i|you|one|we|people))? (?:say"
    r"|translate|spell|pronounce|phrase|word|rephrase|reword|express)\b",
    r"how (?:is|are)\b.*\b(?:spelled|spelt|pronounced)\b",
    r"how many (?:syllables|vowels|consonants|letters are|letters has the (?:name|word))\b",
    r"what (?:does|do|did|would) (?:the|this) (?:question|sentence|statement)\b.*\bmean\b",
    rf"(?:what(?: is| are|['\u2019]s| would be)|{_I_WANT}) (?:the |a )?{_LANGUAGE}"
    rf" (?:for|(?:version|translation) of)\b(?=.*{_OPEN})",
    r"(?:what|which words?) rhymes? with\b",
)
_WRITES = _any(
    r"(?:write|draft|compose|create|generate|prepare|design|produce|invent|craft|pen|formulate|sketch|outline"
    r"|plan|build|code|script|program|implement|suggest|propose|develop|devise|make|put together|come up with"
    rf"|set up|draw up|lay out|dream up|work out|jot down|think (?:of|up)){_A_TEXT}",
    r"brainstorm\b|do (?:me|us)? ?(?:a|an)\b",
    rf"{_I_WANT} (?:a|an|{_NUMBER}) (?:[\w-]+ ){{0,2}}{_PIECE}\b",
    r"(?:give|show|tell|send|sing|list|name|find|offer)(?: me| us)? "
    rf"(?:a|an|{_NUMBER}) (?:[\w-]+ )?(?:{_PIECE}|reasons?|questions?|examples?|ideas|ways|arguments?|tips"
    r"|variations?|versions?)\b",
    # `Short note to the manager, please.`; but `Paper letters for the office go to`, `Notes to whom?`
    rf"(?:(?!{_SMALL_WORD} )[\w-]+ ){{0,2}}{_PIECE}(?:,? please,?)? (?:that \w+s|about|to|for)\b"
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
