"""Words that exclude each other: `the head of sales` and `the head of support` are two questions.

In such a pair one word differs and all others are alike, as in many a rephrase; no small model tells which is
which. So the words are listed here, in English: what holds of one of a line does not hold of the others. A
line is one set, and goes on where the next begins with `|`. The words between two `|` are a part: they mean
the same or nearly so. A word with another use ("second", "support") does harm only where both prompts have
words of its set, and not the same; those that do so often ("right", "open", "may") are left out.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from .words import SPELLING, folded, spelling

_SETS = """
monday mondays mon | tuesday tuesdays tue | wednesday wednesdays wed | thursday thursdays thu
| friday fridays fri | saturday saturdays | sunday sundays
weekday weekdays | weekend weekends
january | february | march | april | june | july | august | september | october | november | december
spring | summer | autumn fall | winter
morning mornings | afternoon afternoons | evening evenings night nights
daily | weekly | monthly | quarterly | yearly annual annually
first | second | third | fourth | fifth | sixth | seventh | eighth | ninth | tenth | eleventh | twelfth
| last final
minimum min minimal lowest smallest fewest lower | maximum max maximal highest largest biggest upper
| average
small smaller | medium | large larger big bigger
red | blue | green | yellow | orange | black | white | brown | purple violet | pink | grey gray | amber
north northern | south southern | east eastern | west western
northbound | southbound | eastbound | westbound
front | rear
inner inside | outer outside
indoor indoors | outdoor outdoors
internal | external
incoming inbound | outgoing outbound
arrival arrivals arrive arrives arriving arrived | departure departures depart departs departing departed
start starts starting started begin begins beginning began
| end ends ending ended finish finishes finishing finished terminate terminates terminus
import imports imported | export exports exported
upload uploads uploaded uploading | download downloads downloaded downloading
input inputs | output outputs
deposit deposits deposited depositing
| withdrawal withdrawals withdraw withdraws withdrawing withdrawn withdrew
credit | debit
gross | net
sunrise | sunset
latitude | longitude
length | width | height | depth | weight weigh weighs
breakfast | lunch lunches | dinner dinners supper
adult adults | child children kid kids | student students | senior seniors pensioner pensioners
| baby babies infant infants toddler toddlers | teenager teenagers
men man male males | women woman female females | boy boys | girl girls
mother mothers mom mum | father fathers dad | brother brothers | sister sisters
| grandmother grandma | grandfather grandpa | uncle uncles | aunt aunts
son sons | daughter daughters
nephew nephews | niece nieces
born birth birthplace birthday | died die dies death dead
founded founding founder established | dissolved dissolution disbanded abolished
owner owners owns owned | founder founders founded
composer composers composed composes | director directors directed directs
| producer producers produced produces | editor editors edited edits
| author authors writer writers wrote written writes | translator translators translated
| illustrator illustrators illustrated
support | sales | marketing | finance accounting | procurement purchasing | payroll | legal | logistics
| engineering
production prod | staging | development dev | testing test qa
windows | macos mac | linux | android | ios iphone
gold | silver | bronze | platinum
beginner beginners | intermediate | advanced
undergraduate undergraduates | postgraduate postgraduates
written | oral
public | private
temporary | permanent
manual | automatic
primary | secondary
online | offline
hot warm | cold
buyer buyers | seller sellers
landlord landlords | tenant tenants
car cars | lorry lorries truck trucks | motorcycle motorcycles motorbike motorbikes | bus buses
| bicycle bicycles
dog dogs | cat cats
coffee | tea
flour | butter | sugar | milk | salt | egg eggs | cream
microphone mic | speaker speakers
basic | pro professional | premium | enterprise | starter | business
euro euros | dollar dollars | pound pounds | yen | franc francs | rupee rupees | yuan
cash | cheque cheques | paypal
hardcover hardback | paperback | ebook | audiobook
petrol gasoline | diesel | electric | hybrid
domestic | international foreign abroad overseas
battery batteries | motor engine | screen display | keyboard | charger | camera | brake brakes
| tyre tyres tire tires
knee knees | ankle ankles | elbow elbows | shoulder shoulders | wrist wrists | hip hips
german | french | spanish | italian | english | dutch | japanese | chinese | russian | portuguese | arabic
| turkish
"""
REASONS = frozenset(
    (
        *("why", "reason", "reasons", "cause", "causes", "caused", "because", "purpose", "purposes"),
        *("grounds", "motive", "motives", "due", "led", "leads", "mean", "means", "meaning", "indicate"),
        *("indicates", "sign", "named", "called", "after", "for", "from", "use", "used"),
    )
)
"""Words of an edit's prompt whose answer may say why something is so."""
_SAME = 0.99  # least cosine of two spellings in half precision that are one word

Part = tuple[int, int]


@functools.cache
def word_sets() -> list[list[tuple[str, ...]]]:
    """The parts of each set."""
    lines = _SETS.strip().replace("\n|", " |").splitlines()
    return [[tuple(part.split()) for part in line.split("|")] for line in lines]


@functools.cache
def _parts() -> dict[str, tuple[Part, ...]]:
    """Each word with the sets and parts that it is in, by their numbers."""
    found: dict[str, list[Part]] = {}
    for number, parts in enumerate(word_sets()):
        for place, words in enumerate(parts):
            for word in words:
                found.setdefault(word, []).append((number, place))
    return {word: tuple(parts) for word, parts in found.items()}


@functools.cache
def _spellings() -> tuple[list[str], NDArray[np.float32]]:
    """The words of all sets, `REASONS` among them, and their spellings `[words, SPELLING]`."""
    words = sorted(REASONS.union(_parts()))
    return words, np.stack([spelling(word, SPELLING) for word in words])


def listed(spellings: NDArray[np.float32]) -> list[str]:
    """The words among those of some spellings `[n, SPELLING]` that are in a set or in `REASONS`."""
    words, known = _spellings()
    return [words[at] for at in np.flatnonzero((spellings @ known.T > _SAME).any(0))]


def contrast(asked: list[str], edited: list[str]) -> tuple[str, str] | None:
    """Two words that exclude each other, if what is asked has one and the edit's prompt another.

    None where they have one word of the set in common, or one of its part: somebody who asks on a Monday
    for Saturday names both.

    Args:
        asked: the words of a query.
        edited: the words of an edit's prompt.

    Returns:
        The word of the query and that of the edit.
    """
    here, there = _by_set(asked), _by_set(edited)
    for number, parts in there.items():
        others = here.get(number, {})
        if others and not set(parts) & set(others):
            return next(iter(others.values())), next(iter(parts.values()))
    return None


def _by_set(words: list[str]) -> dict[int, dict[int, str]]:
    found: dict[int, dict[int, str]] = {}
    for word in words:
        for number, place in _parts().get(folded(word), ()):
            found.setdefault(number, {}).setdefault(place, word)
    return found
