"""The scope model: a pair is judged alike whatever stands beside it, and the model comes back from a file."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pico_scope import VERIFIED

from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.features import match
from melo_cli.scope.core.model import Record, Scales, ScopeModel, same_words
from melo_cli.scope.core.readings import MOST_WORDS, Reading, looked_at, read_states
from melo_cli.scope.core.rules import Query, Verified, probability
from melo_cli.scope.core.words import SPELLING, words_of
from melo_cli.scope.reading import reader_for

Pico = Callable[..., OpenProject]
PROMPTS = [
    "Who is the prime minister of Britain?",
    "who is the PRIME minister of Britain",
    "Who is the prime minister of France?",
    "What is the list price of model A1?",
    "What is the list price of model A2?",
    "The court holds that the statute of 1934 does not apply to the petitioner, and says so.",
    "Paris",
    "?",
]


@pytest.fixture(scope="module")
def opened(pico: Pico) -> OpenProject:
    """A Llama whose router verifies, with no edit."""
    return pico("pico_llama", **VERIFIED)


@pytest.fixture(scope="module")
def reading(opened: OpenProject) -> Reading:
    """What it makes of all prompts."""
    return reader_for(opened.routed.base, opened.recipe.key.layer).read(PROMPTS)


@pytest.fixture(scope="module")
def model(opened: OpenProject) -> ScopeModel:
    rule = opened.routed.router.rule
    assert isinstance(rule, Verified)
    return rule.model


@pytest.fixture(scope="module")
def records(opened: OpenProject) -> list[Record]:
    return opened.routed.router.records(PROMPTS, [None] * len(PROMPTS))


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=12))
@settings(max_examples=40)
def test_a_pair_is_judged_alike_whatever_pairs_stand_beside_it(
    model: ScopeModel, records: list[Record], pairs: list[tuple[int, int]]
) -> None:
    together = model.logits([records[a] for a, _ in pairs], [records[b] for _, b in pairs])
    alone = [model.logits([records[a]], [records[b]])[0] for a, b in pairs]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


def test_the_same_words_are_the_same_prompt_and_no_others_are(
    model: ScopeModel, records: list[Record]
) -> None:
    for a, one in enumerate(records):
        for b, other in enumerate(records):
            same = {word.casefold() for word in words_of(PROMPTS[a])} == {
                word.casefold() for word in words_of(PROMPTS[b])
            }
            assert same_words(one.tokens, other.tokens) == same
            assert math.isinf(model.logits([one], [other])[0]) == same
    swapped = dataclasses.replace(records[0], tokens=records[0].tokens[::-1])
    assert not same_words(records[0].tokens, swapped.tokens), "in another order they are another prompt"


class Stored:
    """Neurons by number."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def nearest(self, keys: np.ndarray, k: int) -> list[list[Near]]:
        return [[Near(f"e{at}") for at in range(len(self._records))][:k] for _ in keys]

    def tokens(self, edit_ids: Sequence[str]) -> list[np.ndarray | None]:
        return [self._records[int(name[1:])].tokens for name in edit_ids]

    def keys(self, edit_ids: Sequence[str]) -> np.ndarray:
        return np.stack([self._records[int(name[1:])].key for name in edit_ids])

    def prompts(self, edit_ids: Sequence[str]) -> list[str]:
        return [PROMPTS[int(name[1:])] for name in edit_ids]


@dataclasses.dataclass(frozen=True)
class Near:
    edit_id: str
    block: str | None = "b"
    distance: float = 0.0
    cluster: int | None = None
    radius: float | None = None
    center_distance: float | None = None


@given(st.floats(-60, 60) | st.just(math.inf))
@settings(max_examples=30)
def test_an_edits_own_prompt_fires_whatever_the_threshold(
    model: ScopeModel, records: list[Record], threshold: float
) -> None:
    stored = [records[0], *records[2:]]
    queries = [Query([record], ["asked"]) for record in (records[0], records[1], records[3])]
    routes = Verified(model, threshold).routes(queries, Stored(stored))
    assert [route.fired.edit_id for route in routes if route.fired] == ["e0", "e0", "e2"]
    assert [route.fired.probability for route in routes if route.fired] == [1.0] * 3


def test_the_threshold_itself_fires_and_the_route_names_the_sentence_that_asks(
    model: ScopeModel, records: list[Record]
) -> None:
    logit = float(model.logits([records[2]], [records[0]])[0])
    for threshold, holds in ((logit, True), (np.nextafter(logit, np.inf), False)):
        route = Verified(model, threshold).routes([Query([records[2]], ["asked"])], Stored(records[:1]))[0]
        assert (route.held is not None, route.nearest and route.nearest.holds) == (holds, holds)
        assert route.nearest is not None
        assert (route.nearest.probability, route.nearest.asked) == (probability(logit), None)
    query = Query([records[6], records[1]], ["the whole message", "its last sentence"])
    route = Verified(model, math.inf).routes([query], Stored(records[:1]))[0]
    assert route.fired is not None and route.fired.asked == "its last sentence"


def test_of_edits_equally_sure_the_newest_answers(model: ScopeModel, records: list[Record]) -> None:
    twice = Stored([records[0], records[3], records[0]])
    route = Verified(model, 0.0).routes([Query([records[0]], ["asked"])], twice)[0]
    assert route.fired is not None and route.fired.edit_id == "e2"


@pytest.mark.parametrize(
    "text", ["The prime minister of Britain is John.", "Translate it: prime minister of Britain"]
)
def test_where_prompts_are_no_questions_a_text_is_in_scope_whatever_it_wants(
    opened: OpenProject, model: ScopeModel, records: list[Record], text: str
) -> None:
    query = Query(opened.routed.router.records([text], [None]), [text])
    for questions in (True, False):
        rule = Verified(model, -1e6, questions)
        [route] = rule.routes([query], Stored(records[:1]))
        assert (route.held is not None, route.wants is None) == (not questions, not questions)


def test_without_edits_or_queries_nothing_fires(model: ScopeModel, records: list[Record]) -> None:
    rule = Verified(model, 0.0)
    assert rule.routes([], Stored(records)) == []
    [route] = rule.routes([Query([records[0]], ["asked"])], Stored([]))
    assert (route.held, route.nearest) == (None, None)


def test_a_model_comes_back_from_its_arrays(
    model: ScopeModel, records: list[Record], reading: Reading
) -> None:
    document, arrays = model.to_arrays()
    again = ScopeModel.from_arrays(json.loads(json.dumps(document)), arrays)
    assert (again.sizes, again.key_size) == (model.sizes, model.key_size)
    pairs = [(one, other) for one in records for other in records]
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    assert np.array_equal(again.logits(ours, theirs), model.logits(ours, theirs))
    for one, other in zip(again.records(reading), records, strict=True):
        assert np.array_equal(one.key, other.key) and np.array_equal(one.tokens, other.tokens)
    del arrays["layers.0.bias"]
    with pytest.raises(KeyError):
        ScopeModel.from_arrays(document, arrays)


def test_keys_are_of_unit_length_and_token_vectors_one_a_word(
    model: ScopeModel, records: list[Record]
) -> None:
    for prompt, record in zip(PROMPTS, records, strict=True):
        assert np.linalg.norm(record.key) == pytest.approx(1.0, abs=1e-5)
        assert record.key.shape == (model.key_size,) and record.key.dtype == np.float32
        assert len(record.tokens) == len(words_of(prompt)) and record.tokens.dtype == np.float16


def test_a_prompt_that_is_all_there_is_met_in_full_and_padding_counts_for_nothing(
    model: ScopeModel, records: list[Record]
) -> None:
    # Beside the longest prompt, the first is padded.
    some = [records[0], records[5]]
    features, names = match(model.side(some), model.side(some), model.sizes)
    alone, _ = match(model.side(some[:1]), model.side(some[:1]), model.sizes)
    torch.testing.assert_close(features[:1], alone)
    value = dict(zip(names, features[0].tolist(), strict=True))
    assert len(value) == len(names), "each feature has a name of its own"
    for name in (
        "edit rare spelling worst",
        "query rare spelling worst",
        "edit exact",
        "query exact",
        "key 0",
    ):
        assert value[name] == pytest.approx(1.0, abs=1e-3), name
    assert value["edit names missed"] == value["query numbers missed"] == 0
    different, _ = match(model.side([records[3]]), model.side([records[4]]), model.sizes)
    missed = dict(zip(names, different[0].tolist(), strict=True))
    assert (missed["edit numbers missed"], missed["query numbers missed"]) == (1, 1), "A1 is not A2"


def test_the_subject_that_an_edit_names_is_looked_for(opened: OpenProject, model: ScopeModel) -> None:
    record = opened.routed.router.records
    [plain] = record(["who studied law"], [None])
    [named] = record(["who studied law"], ["law"])
    [query] = record(["who studied art"], [None])
    value = {}
    for name, edit in (("plain", plain), ("named", named)):
        features, names = match(model.side([edit]), model.side([query]), model.sizes)
        value[name] = dict(zip(names, features[0].tolist(), strict=True))
    assert value["named"]["edit subject spelling worst"] < 0.9
    assert value["named"]["edit rest spelling"] > value["plain"]["edit rest spelling"]


def test_a_rare_word_of_the_rest_counts_by_itself(opened: OpenProject, model: ScopeModel) -> None:
    record = opened.routed.router.records
    one, other = [word for word, kinds in model.vocabulary.counts.items() if kinds == 1 and len(word) > 4][:2]
    [edit] = record([f"what is the {one} of Anna"], ["Anna"])
    for query, met in ((f"what is the {one} of Bert", True), (f"what is the {other} of Anna", False)):
        features, names = match(model.side([edit]), model.side([record([query], [None])[0]]), model.sizes)
        value = dict(zip(names, features[0].tolist(), strict=True))
        assert (value["edit asked spelling worst"] > 0.99) is met, query


def test_a_prompt_without_its_accents_is_the_same_prompt(model: ScopeModel, opened: OpenProject) -> None:
    record = opened.routed.router.records
    [edit, typed, other] = record(["who is José Łuk", "who is jose luk", "who is josh luk"], [None] * 3)
    assert model.logits([typed], [edit])[0] == np.inf
    assert model.logits([other], [edit])[0] < np.inf


def test_a_question_for_another_answer_is_not_that_of_an_edit_which_does_not_ask_so(
    model: ScopeModel, opened: OpenProject
) -> None:
    prompts = [
        "the mayor of Oslo is",
        "The mayor of Oslo, who is not Ada, is",
        "the mayor of Oslo besides Ada",
    ]
    plain, other, besides = opened.routed.router.records(prompts, [None] * 3)
    assert [model.asks_another(query, plain) for query in (plain, other, besides)] == [False, True, True]
    assert not any(model.asks_another(query, other) for query in (plain, other, besides)), "it asks so itself"
    before = dataclasses.replace(model, revision=1)
    assert not before.asks_another(other, plain), "as it was learnt"


def test_a_word_that_excludes_one_of_the_edit_asks_something_else(
    model: ScopeModel, opened: OpenProject
) -> None:
    [edit] = opened.routed.router.records(["When does the Red Lion open on Saturdays?"], ["Red Lion"])
    asked = {
        "When does the Red Lion open on Sundays?": True,
        "red lion, from what hour, friday": True,
        "I asked on Monday. When does the Red Lion open on Saturday?": False,
        "In the Red Lion, until when is the bar open?": False,
        "When does the Red Lion open?": False,
    }
    records = opened.routed.router.records(list(asked), [None] * len(asked))
    assert [model.asks_another(record, edit) for record in records] == list(asked.values())
    [other] = opened.routed.router.records(["When does the Red Lion open on its first day?"], ["Red Lion"])
    assert not any(model.asks_another(record, other) for record in records)


def test_a_model_of_before_compares_as_it_did(model: ScopeModel, reading: Reading) -> None:
    """A key map without a revision was learnt with accents and fewer features: its arrays fit no others."""
    before = dataclasses.replace(model, revision=1)
    records = before.records(reading)
    _, now = match(model.side(records[:1]), model.side(records[:1]), model.sizes)
    _, then = match(model.side(records[:1]), model.side(records[:1]), model.sizes, 1)
    assert set(then) == {name for name in now if " asked " not in name} != set(now)
    kept = [now.index(name) for name in then]
    scales = Scales(model.feature_scales.mean[kept], model.feature_scales.deviation[kept])
    first, *others = model.layers
    old = dataclasses.replace(before, feature_scales=scales, layers=((first[0][kept], first[1]), *others))
    settings, arrays = old.to_arrays()
    del settings["revision"]
    again = ScopeModel.from_arrays(settings, arrays)
    assert again.revision == 1
    assert np.array_equal(again.logits(records, records[::-1]), old.logits(records, records[::-1]))
    words = Reading(
        ["José"],
        [["José"]],
        reading.starts[:2] * 0 + torch.tensor([0, 1]),
        *(states[:1] for states in (reading.low, reading.high, reading.whole)),
    )
    plain = dataclasses.replace(words, texts=["Jose"], words=[["Jose"]])
    spellings = [
        each.records(text)[0].tokens[:, :SPELLING] for each in (again, model) for text in (words, plain)
    ]
    assert not np.array_equal(spellings[0], spellings[1]) and np.array_equal(spellings[2], spellings[3])


# Words out of tokens


def test_words_are_the_means_of_their_tokens_wherever_padding_stands() -> None:
    # `ab c`: the tokens a, b, space and c; a template's token at either end.
    offsets = [[(0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (0, 0)]]
    states = torch.arange(1.0, 7.0).reshape(1, 6, 1)
    for left in (0, 2):
        padded = torch.nn.functional.pad(states, (0, 0, left, 2 - left), value=99.0)
        mask = torch.nn.functional.pad(torch.ones(1, 6), (left, 2 - left))
        for pooling, whole in (("last", 5.0), ("first", 1.0), ("mean", 3.5)):
            reading = read_states(["ab c"], offsets, padded, padded * 2, mask, pooling)
            assert reading.words == [["ab", "c"]]
            assert reading.low.tolist() == [[2.5], [5.0]]
            assert reading.high.tolist() == [[5.0], [10.0]]
            assert reading.whole.tolist() == [[2 * whole]]


def test_of_a_long_text_beginning_and_end_are_looked_at() -> None:
    text = " ".join(f"w{chr(97 + at % 26)}{chr(97 + at // 26)}" for at in range(200))
    words_read = [text[begin:end] for begin, end in looked_at(text)]
    words = text.split()
    assert words_read == words[: MOST_WORDS // 3] + words[-(MOST_WORDS - MOST_WORDS // 3) :]


@given(st.lists(st.integers(0, len(PROMPTS) - 1), min_size=1, max_size=10))
@settings(max_examples=25)
def test_readings_can_be_split_and_joined(reading: Reading, rows: list[int]) -> None:
    picked = reading.of(rows)
    assert picked.texts == [PROMPTS[row] for row in rows]
    joined = Reading.joined([reading.of([row]) for row in rows])
    for name in ("starts", "low", "high", "whole"):
        assert torch.equal(getattr(joined, name), getattr(picked, name))


def test_a_question_when_is_none_of_an_edit_that_asks_where(model: ScopeModel, opened: OpenProject) -> None:
    [where, statement] = opened.routed.router.records(
        ["Where was Magna Carta sealed?", "Magna Carta was sealed at"], ["Magna Carta"] * 2
    )
    asked = {
        "When was Magna Carta sealed?": True,
        "why was Magna Carta sealed there": True,
        "Who sealed Magna Carta?": False,  # who and where are often one question
        "where did they seal Magna Carta": False,
        "At what place was Magna Carta sealed when John lost?": False,
    }
    records = opened.routed.router.records(list(asked), [None] * len(asked))
    assert [model.asks_another(record, where) for record in records] == list(asked.values())
    assert [model.asks_another(record, statement) for record in records] == [
        text.startswith("why") for text in asked
    ]
