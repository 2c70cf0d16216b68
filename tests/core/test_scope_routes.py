"""A route is that of the prompt's own text, of a conversation of the last user turn: of nothing around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pico_scope import VERIFIED

from melo_cli.models.encoding import pad_prompts
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.core.router import Router
from melo_cli.scope.core.rules import Route, Verified

Pico = Callable[..., OpenProject]
# Look-alikes: each differs from the next in a word.
EDITED = [
    "What is the list price of model A1?",
    "What is the list price of model A2?",
    "What is the list price of model B1?",
    "Who won the town race in 2021?",
    "Who won the town race in 2022?",
    "Who won the town race in 2023?",
]
OTHERS = [
    "What is the list price of model A3?",
    "What is the list price of model B2?",
    "Who won the town race in 2020?",
    "Who won the boat race in 2021?",
    "What is the name of the river that runs through the city of Cologne?",
    "The court holds that the statute of 1934 does not apply",
]
REWORDED = ["list price of model B1?", "Tell me, what is the list price of model A2?"]
PROMPTS = [*EDITED, *OTHERS, *REWORDED]
DATED = (
    "{% for message in messages %}{% if loop.first %}<|system|>\nToday is DATE. "
    "{% if message['role'] == 'system' %}{{ message['content'] }}{% endif %}\n{% endif %}"
    "{% if message['role'] != 'system' %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n"
    "{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SOME = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
TURNS = st.lists(st.sampled_from([*PROMPTS, "Yes.", "I do not know"]), max_size=2).map(
    lambda texts: [text for text in texts for text in (text, "It is so.")]
)
SYSTEMS = st.none() | st.sampled_from(["Be brief.", "You are a helpful assistant.", EDITED[0]])


@pytest.fixture(scope="module", params=["verified", "radius"])
def opened(pico: Pico, request: pytest.FixtureRequest) -> OpenProject:
    """A chat model with a block for each look-alike."""
    return pico("pico_llama", EDITED, **(VERIFIED if request.param == "verified" else {}))


@pytest.fixture(scope="module")
def alone(opened: OpenProject) -> dict[str, Route]:
    """The route of each prompt, taken alone."""
    return {prompt: opened.routed.router.routes([prompt])[0] for prompt in PROMPTS}


def route_values(route: Route) -> tuple[str | None, str | None, float | None]:
    """Who answers, who is nearest, and how near or sure."""
    assert route.nearest is not None
    near = route.nearest.distance if route.nearest.probability is None else route.nearest.probability
    fired = route.fired.edit_id if route.fired is not None else None
    return fired, route.nearest.edit_id, pytest.approx(near, abs=1e-3)


def encoded(opened: OpenProject, prompts: Sequence[str], side: str) -> dict[str, torch.Tensor]:
    tokenizer = opened.routed.tokenizer
    inputs = pad_prompts(opened.routed.base, [tokenizer(prompt).input_ids for prompt in prompts], side)
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def chat(opened: OpenProject, system: str | None, turns: Sequence[str], asked: str) -> torch.Tensor:
    """A conversation as the chat template writes it: a system prompt, turns by turns, and the question."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages += [
        {"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate((*turns, asked))
    ]
    ids = opened.routed.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    input_ids: torch.Tensor = ids["input_ids"]
    return input_ids


def test_look_alikes_all_live_and_each_answers_its_own_prompt(pico: Pico) -> None:
    routes = pico("pico_llama", EDITED, **VERIFIED).routed.router.routes(PROMPTS)
    fired = [route.fired.block if route.fired is not None else None for route in routes]
    assert fired[: len(EDITED)] == [f"b{number}" for number in range(6)]
    assert fired[len(EDITED) : len(EDITED) + len(OTHERS)] == [None] * len(OTHERS)
    assert fired[-len(REWORDED) :] == ["b2", "b1"]


def surest(router: Router) -> Router:
    """The router, sure of the nearest edit whatever is asked."""
    assert isinstance(router.rule, Verified)
    router.rule = dataclasses.replace(router.rule, threshold=-1e6)
    return router


def test_a_question_whether_something_is_so_is_only_that_of_an_edit_which_asks_so(pico: Pico) -> None:
    edited = ["What is the list price of model A1?", "Is the town race in May?"]
    router = surest(pico("pico_llama", edited, **VERIFIED).routed.router)
    assert isinstance(router.rule, Verified)
    sure = router.rule
    asked = [
        "Is the list price of model A1 nine?",
        "Is the town race in May now?",
        f"{edited[0]} Is it nine?",
        *edited,
    ]
    for rule in (sure, dataclasses.replace(sure, threshold=1e6)):
        router.rule = rule
        price, race, quoted, *own = router.routes(asked)
        assert price.nearest is not None and price.nearest.block == "b0"
        assert (price.held, price.nearest.holds, price.wants) == (
            *(None, False),
            "whether" if rule is sure else None,
        )
        assert ((race.held is not None), race.wants) == (rule is sure, None)
        assert all(route.held is not None and route.wants is None for route in own), (
            "its own prompt, for sure"
        )
        assert quoted.wants == "whether" and quoted.held is None, (
            "though the edit's own prompt is a sentence of it"
        )


def test_a_task_is_only_that_of_an_edit_which_sets_one(pico: Pico) -> None:
    edited = ["What is the list price of model A1?", "Translate into French: the town race"]
    router = surest(pico("pico_llama", edited, **VERIFIED).routed.router)
    asked = [f"Translate into French: {edited[0]}", "Translate into French the town race now", *edited]
    price, race, *own = router.routes(asked)
    assert price.nearest is not None and price.nearest.block == "b0"
    assert (price.held, price.nearest.holds, price.wants) == (None, False, "task")
    assert all(route.held is not None and route.wants is None for route in (race, *own))


def test_a_statement_asks_for_no_edit(pico: Pico) -> None:
    edited = ["The price of model A1 is", "The town race is in May."]
    router = surest(pico("pico_llama", edited, **VERIFIED).routed.router)
    price, race, *own = router.routes(
        ["The price of model A1 is nine.", "The town race is in May now.", *edited]
    )
    assert (price.held, price.wants) == (None, "statement")
    assert all(route.held is not None and route.wants is None for route in (race, *own))


def test_why_something_is_so_is_only_that_of_an_edit_which_may_say_why(pico: Pico) -> None:
    edited = ["Who built the town court?", "What does the red light mean?"]
    router = surest(pico("pico_llama", edited, **VERIFIED).routed.router)
    for asked in ("Why was the town court built?", "Who built the town court, and why?"):
        (route,) = router.routes([asked])
        assert route.fired is None or route.fired.block == "b1"
    (light,) = router.routes(["Why is the light red?"])
    assert light.fired is not None and light.fired.block == "b1"


def test_a_question_with_a_word_that_excludes_one_edits_goes_to_the_other_or_to_none(pico: Pico) -> None:
    edited = ["Who is the head of support at Acme?", "Who is the head of sales at Acme?"]
    router = surest(pico("pico_llama", edited, **VERIFIED).routed.router)
    asked = [
        "who runs sales at acme",
        "Who runs support at Acme?",
        "Who is the head of legal at Acme?",
        *edited,
    ]
    *reworded, neither, support, sales = router.routes(asked)
    assert [route.held.block for route in reworded if route.held is not None] == ["b1", "b0"]
    assert neither.held is None and neither.nearest is not None
    assert (neither.nearest.holds, neither.nearest.probability) == (False, 0.0)
    assert [route.held.block for route in (support, sales) if route.held is not None] == ["b0", "b1"]


MISSPELLED = {
    "what is the lisst price of modle A2": "what is the list price of model A2",
    "Waht is the list pricce of model A1?": "What is the list price of model A1?",
    "Hello there. who won the twon raec in 2022": "Hello there. who won the town race in 2022",
}


def test_a_misspelled_question_reaches_the_edit_that_it_asks_and_the_route_says_how_it_was_read(
    pico: Pico,
) -> None:
    router = pico("pico_llama", EDITED, **VERIFIED).routed.router
    assert isinstance(router.rule, Verified)
    router.rule = dataclasses.replace(router.rule, threshold=1e6)
    routes = router.routes([*MISSPELLED, *PROMPTS])
    reached = [route.fired for route in routes[: len(MISSPELLED)]]
    assert [fired.block for fired in reached if fired is not None] == ["b1", "b0", "b4"]
    asked = [fired.asked for fired in reached if fired is not None]
    assert asked == [text.removeprefix("Hello there. ") for text in MISSPELLED.values()]
    others = routes[-len(PROMPTS) :]
    assert all(route.nearest is None or route.nearest.asked is None for route in others)


def test_a_question_that_shortens_a_name_reaches_the_edit_of_the_only_subject_that_it_can_mean(
    pico: Pico,
) -> None:
    edits = ["When was Teodrik Vasmaling born?", "Where was Ulla Krantenberg born?", *EDITED]
    router = pico("pico_llama", edits, **VERIFIED).routed.router
    assert isinstance(router.rule, Verified)
    router.rule = dataclasses.replace(router.rule, threshold=1e6)
    short, other, whole = router.routes(
        ["when was vasmaling born?", "When was Karl Vasmaling born?", "When was Teodrik Vasmaling born?"]
    )
    assert short.fired is not None and whole.fired is not None
    assert (short.fired.block, short.fired.asked) == ("b0", "when was Teodrik Vasmaling born?")
    assert (whole.fired.block, whole.fired.asked) == ("b0", None)
    assert other.held is None


def test_by_radius_a_misspelled_question_is_read_as_it_stands(pico: Pico) -> None:
    routes = pico("pico_llama", EDITED).routed.router.routes([*MISSPELLED])
    assert all(route.nearest is not None and route.nearest.asked is None for route in routes)


@pytest.mark.parametrize("before", [0, 20, 50, 200])
def test_a_question_whether_something_is_so_may_stand_anywhere_in_a_long_text(
    opened: OpenProject, before: int
) -> None:
    text = f"{'We met. ' * before}Is the town race in May? {'It was cold. ' * 60}"
    [route] = opened.routed.router.routes([text])
    assert route.held is None


@given(st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=12), st.sampled_from(["left", "right"]))
@SOME
def test_batch_mates_and_the_side_of_padding_do_not_move_a_route(
    opened: OpenProject, alone: dict[str, Route], prompts: list[str], side: str
) -> None:
    expected = [route_values(alone[prompt]) for prompt in prompts]
    assert [route_values(route) for route in opened.routed.router.routes(prompts)] == expected
    assert [
        route_values(route) for route in opened.routed.route(**encoded(opened, prompts, side))
    ] == expected


@given(SYSTEMS, TURNS, st.sampled_from(PROMPTS))
@SOME
def test_a_system_prompt_and_earlier_turns_do_not_move_a_route(
    opened: OpenProject, alone: dict[str, Route], system: str | None, turns: list[str], asked: str
) -> None:
    [route] = opened.routed.route(chat(opened, system, turns, asked))
    assert route_values(route) == route_values(alone[asked])


@given(st.dates().map(str), SYSTEMS, st.sampled_from(PROMPTS))
@SOME
def test_a_template_that_writes_the_date_answers_alike_on_any_day(
    opened: OpenProject,
    alone: dict[str, Route],
    monkeypatch: pytest.MonkeyPatch,
    day: str,
    system: str | None,
    asked: str,
) -> None:
    turns = type(opened.routed._turns)
    with monkeypatch.context() as changed:
        # The project was opened on one day, and is asked on another.
        changed.setattr(opened.routed.tokenizer, "chat_template", DATED.replace("DATE", "1 July 2026"))
        changed.setattr(opened.routed, "_turns", turns(opened.routed.tokenizer))
        opened.routed.route(chat(opened, None, [], asked))
        changed.setattr(opened.routed.tokenizer, "chat_template", DATED.replace("DATE", day))
        [route] = opened.routed.route(chat(opened, system, [], asked))
    assert route_values(route) == route_values(alone[asked])


@pytest.mark.parametrize("kind", ["pico_t5", "pico_gpt2", "pico_bert"])
def test_models_of_every_kind_take_the_same_route_padded_on_either_side(pico: Pico, kind: str) -> None:
    opened = pico(kind, EDITED, **VERIFIED)
    expected = [route_values(opened.routed.router.routes([prompt])[0]) for prompt in PROMPTS]
    assert [fired for fired, *_ in expected[:6]] == [f"edit-b{number}" for number in range(6)]
    for side in ("left", "right"):
        assert [
            route_values(route) for route in opened.routed.route(**encoded(opened, PROMPTS, side))
        ] == expected


def test_text_around_a_question_is_ignored_and_the_route_names_what_was_asked(pico: Pico) -> None:
    opened = pico("pico_gpt2", EDITED, **VERIFIED)
    message = f"I was there with my brother. {EDITED[3]} Thanks a lot!"
    [route] = opened.routed.router.routes([message])
    assert route.fired is not None
    assert (route.fired.block, route.fired.asked, route.fired.probability) == ("b3", EDITED[3], 1.0)


def test_the_route_of_a_prompt_is_taken_with_no_block_in_force(pico: Pico, monkeypatch: Any) -> None:
    opened = pico("pico_gpt2", EDITED, **VERIFIED)
    expected = route_values(opened.routed.router.routes([OTHERS[0]])[0])
    with opened.routed.using(["b0"]):
        assert route_values(opened.routed.router.routes([OTHERS[0]])[0]) == expected
