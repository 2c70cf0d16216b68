"""Makes facts about people, places and products that do not exist, each asked in four ways.

    python benchmarks/make_facts.py FACTS.jsonl [--facts 100000] [--seed 0]

Every row has `prompt`, `target`, `subject`, three `rephrases`, which nothing learns from, and a
`locality_prompt`: the same question about a subject that no fact is about. No prompt comes twice. The same
number and seed give the same rows, and fewer facts are the first of more.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_BEGINNINGS = _words(
    """
    Ba Bel Bri Cal Cor Da Del Dor El Fa Fen Gal Gri Har Il Jo Ka Kel Kor La Lor Ma Mel Mor Na Nel Or
    Pa Pel Qua Ra Ren Ros Sa Sel Sor Ta Tel Tor Ul Va Vel Vor Wa Wel Yor Za Zel Zor
    """
)
_MIDDLES = _words(
    """
    ba be bi da de di fa ga go ka ko la le li lo ma me mi mo na ne ni no ra re ri ro sa se si ta te
    ti va vi za
    """
)
_GIVEN_ENDS = _words(
    """
    bert dan das dine la lan las lia lin mar na ne nis ra ran ric rin sa son ta tha tin va vin
    """
)
_FAMILY_ENDS = _words(
    """
    berg bright cott dale den do dorf field ford gard ham hurst kova land ley lund mann moor nov
    quist sen sky son stad strom ton ward wick witz worth
    """
)
_PLACE_ENDS = _words(
    """
    borough bridge burg bury by caster cliff dale fell field ford gate grove haven holm hurst lake
    mere mouth port stead stow thorpe ton vale ville wick worth
    """
)
_PRODUCT_ENDS = _words(
    """
    dex don flow gen grid lex line lith lux mat max mix nex nova pad phone rex scan sol tek tron vex
    vox
    """
)
_TRADES = _words(
    """
    architect baker botanist carpenter cellist chemist dentist diver economist engineer farmer
    geologist glazier historian journalist judge librarian lawyer midwife nurse painter pilot
    plumber poet potter sculptor surgeon tailor teacher translator welder
    """
)
_COLOURS = _words(
    """
    amber black blue bronze coral cream crimson cyan emerald gold green grey indigo ivory lavender
    lime magenta maroon mint navy ochre olive orange peach pink purple red silver teal turquoise
    violet white yellow
    """
)


@dataclass(frozen=True)
class Relation:
    """Something that can be asked about a kind of subject.

    Attributes:
        ways: four ways to ask it, with `{}` for the subject; the first is the edit's prompt.
        answer: draws an answer.
    """

    ways: tuple[str, str, str, str]
    answer: Callable[[random.Random], str]


def _word(draw: random.Random, ends: Sequence[str]) -> str:
    middles = draw.choices(_MIDDLES, k=draw.randrange(3))
    return "".join((draw.choice(_BEGINNINGS), *middles, draw.choice(ends)))


def person(draw: random.Random) -> str:
    """The name of a person."""
    return f"{_word(draw, _GIVEN_ENDS)} {_word(draw, _FAMILY_ENDS)}"


def place(draw: random.Random) -> str:
    """The name of a place."""
    return _word(draw, _PLACE_ENDS)


def product(draw: random.Random) -> str:
    """The name of a product."""
    return f"{_word(draw, _PRODUCT_ENDS)} {draw.randrange(2, 99)}"


def _year(draw: random.Random) -> str:
    return str(draw.randrange(1700, 2024))


RELATIONS: dict[Callable[[random.Random], str], list[Relation]] = {
    person: [
        Relation(
            (
                "Where was {} born?",
                "What is the birthplace of {}?",
                "In which town did {} come into the world?",
                "{} was born in which place?",
            ),
            place,
        ),
        Relation(
            (
                "What is the profession of {}?",
                "What does {} do for a living?",
                "Which job does {} have?",
                "{} works as what?",
            ),
            lambda draw: draw.choice(_TRADES),
        ),
        Relation(
            (
                "Who is {} married to?",
                "What is the name of the spouse of {}?",
                "Whom did {} marry?",
                "Which person is the husband or wife of {}?",
            ),
            person,
        ),
        Relation(
            (
                "In which year was {} born?",
                "What is {}'s year of birth?",
                "When was {} born?",
                "{} was born in what year?",
            ),
            _year,
        ),
    ],
    place: [
        Relation(
            (
                "Who is the mayor of {}?",
                "What is the name of {}'s mayor?",
                "Which person heads the town hall of {}?",
                "{} has whom as its mayor?",
            ),
            person,
        ),
        Relation(
            (
                "In which year was {} founded?",
                "When was the town of {} established?",
                "What is the founding year of {}?",
                "{} goes back to what year?",
            ),
            _year,
        ),
        Relation(
            (
                "Which river flows through {}?",
                "What is the name of the river in {}?",
                "On which river does {} lie?",
                "{} stands on the banks of which river?",
            ),
            lambda draw: _word(draw, _GIVEN_ENDS),
        ),
    ],
    product: [
        Relation(
            (
                "Which company makes the {}?",
                "Who is the manufacturer of the {}?",
                "The {} is produced by which firm?",
                "What company is behind the {}?",
            ),
            lambda draw: f"{_word(draw, _PRODUCT_ENDS)} {draw.choice(('Works', 'Labs', 'Industries'))}",
        ),
        Relation(
            (
                "How much does the {} cost?",
                "What is the price of the {}?",
                "What do I have to pay for a {}?",
                "At which price is the {} sold?",
            ),
            lambda draw: f"{draw.randrange(5, 3000)} euros",
        ),
        Relation(
            (
                "What colour is the {}?",
                "In which colour does the {} come?",
                "Which colour does the {} have?",
                "The {} is of what colour?",
            ),
            lambda draw: draw.choice(_COLOURS),
        ),
    ],
}


def facts(count: int, seed: int) -> Iterator[dict[str, object]]:
    """Rows of facts; see the module's docstring."""
    draw = random.Random(seed)
    taken: set[str] = set()
    kinds = itertools.cycle(RELATIONS.items())
    made = 0
    while made < count:
        name, relations = next(kinds)
        subject = _new(name, draw, taken)
        for relation in relations[: count - made]:
            other = _new(name, draw, taken)
            prompt, *rephrases = (way.format(subject) for way in relation.ways)
            yield {
                "prompt": prompt,
                "target": relation.answer(draw),
                "subject": subject,
                "rephrases": rephrases,
                "locality_prompt": relation.ways[0].format(other),
            }
            made += 1


def _new(name: Callable[[random.Random], str], draw: random.Random, taken: set[str]) -> str:
    """A name that was not drawn before."""
    while (drawn := name(draw)) in taken:
        pass
    taken.add(drawn)
    return drawn


def main() -> None:
    """Write the facts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--facts", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with options.path.open("w", encoding="utf-8") as file:
        for row in facts(options.facts, options.seed):
            file.write(f"{json.dumps(row)}\n")


if __name__ == "__main__":
    main()
