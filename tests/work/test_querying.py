"""Asking one prompt of base and edited model: where it goes and what both say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melo_cli.editing import EditSummary
from melo_cli.errors import PromptError
from melo_cli.models.encoding import Encoder
from melo_cli.runtime.inference import Inference
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.runtime.querying import query
from melo_cli.scope.core.vocabulary import Vocabulary
from melo_cli.scope.explanation import against

Shared = Callable[[str], OpenProject]
KINDS = ("pico_t5", "pico_gpt2", "pico_llama", "pico_bert")
EDITED = "Where does the river end"
NEAR = "Where does that river end"
FAR = "He was born in Cologne"


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_gives_its_route_and_both_answers(shared: Shared, kind: str) -> None:
    opened = shared(kind)
    edited, near, far = query(opened, [EDITED, NEAR, FAR], max_new_tokens=8)
    target = opened.project.edit("e000002").target
    for result in (edited, near):
        assert result.route.fired is not None
        assert result.route.fired == result.route.nearest
        assert (result.route.fired.edit_id, result.route.fired.block) == ("e000002", "b000001")
        assert result.edit_prompt == EDITED
    assert edited.edited == target != edited.base
    assert edited.route.fired is not None and near.route.fired is not None
    assert edited.route.fired.distance == pytest.approx(0.0, abs=1e-4)
    assert 0.05 < near.route.fired.distance <= near.route.fired.radius == opened.recipe.key.radius
    assert far.route.fired is None
    assert far.edited == far.base
    assert [result.prompt for result in (edited, near, far)] == [EDITED, NEAR, FAR]


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_that_fires_nothing_names_the_nearest_edit(shared: Shared, kind: str) -> None:
    opened = shared(kind)
    nearest = query(opened, [FAR], max_new_tokens=1)[0].route.nearest
    assert nearest is not None
    live = [view for view in opened.project.edits() if view.cluster is not None]
    key = opened.routed.router.records([FAR], [None])[0].key
    distances = [float(np.linalg.norm(view.record.key - key)) for view in live]
    best = int(np.argmin(distances))
    assert (nearest.edit_id, query(opened, [FAR], 1)[0].edit_prompt) == (
        live[best].edit_id,
        live[best].prompt,
    )
    assert nearest.distance == pytest.approx(distances[best], rel=1e-4)
    assert nearest.distance > nearest.radius


def test_many_prompts_are_answered_as_each_alone_and_in_their_order(shared: Shared) -> None:
    opened = shared("pico_llama")
    prompts = [view.prompt for view in opened.project.edits()] + [
        FAR,
        NEAR,
        "The court holds that the statute",
    ]
    together = query(opened, prompts, max_new_tokens=5)
    for prompt, result in zip(prompts, together, strict=True):
        alone = query(opened, [prompt], max_new_tokens=5)[0]
        assert (result.prompt, result.base, result.edited) == (prompt, alone.base, alone.edited)
        assert (result.route.fired is None) == (alone.route.fired is None)


def test_answers_have_as_many_tokens_as_asked_for_or_the_recipe_says(
    shared: Shared, copied: Callable[[str], Path]
) -> None:
    opened = shared("pico_gpt2")
    length = len(opened.routed.tokenizer(query(opened, [FAR], max_new_tokens=3)[0].base).input_ids)
    assert 1 <= length <= 3
    default = query(opened, [FAR])[0].base
    assert opened.recipe.generation.max_new_tokens == 32
    assert default == query(opened, [FAR], max_new_tokens=32)[0].base
    assert len(default) > len(query(opened, [FAR], max_new_tokens=3)[0].base)


def test_a_project_without_blocks_answers_as_the_base(
    edit: Callable[..., EditSummary], tmp_path: Path, reporter: Any
) -> None:
    right_already = {"prompt": "who studied law", "target": "criminal"}
    summary = edit("pico_bert", [right_already], tmp_path / "p")
    assert summary.count("already_right") == 1
    result = query(open_project(tmp_path / "p"), [right_already["prompt"]])[0]
    assert (result.route.fired, result.route.held.edit_id) == (None, "e000001")
    assert result.edit_prompt == right_already["prompt"]
    assert result.base == result.edited == "criminal"


def test_no_prompts_are_no_answers(shared: Shared) -> None:
    assert query(shared("pico_gpt2"), []) == []


def test_a_prompt_that_the_model_cannot_take_is_refused(shared: Shared) -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        query(shared("pico_gpt2"), [FAR, "  "])
    with pytest.raises(PromptError, match=r"has \d+ tokens, but the model takes 128"):
        query(shared("pico_gpt2"), ["the court " * 200])


def test_a_prompt_that_leaves_little_room_is_answered_as_far_as_the_room_goes(shared: Shared) -> None:
    opened = shared("pico_gpt2")
    encode = opened.encoder.prompt
    limit = opened.routed.base.max_length
    assert limit is not None
    prompt = "the court" + " law" * (limit - 4 - len(encode("the court")))
    assert len(encode(prompt)) == limit - 4
    results = query(opened, [FAR, prompt], max_new_tokens=32)
    assert results[0].base == query(opened, [FAR], max_new_tokens=32)[0].base
    start = query(opened, [prompt], max_new_tokens=3)[0].base.rstrip("\N{REPLACEMENT CHARACTER}")
    assert start and results[1].base.startswith(start)
    assert results[1].edited == results[1].base


def test_a_system_prompt_and_earlier_turns_change_no_route(shared: Shared) -> None:
    opened = shared("pico_llama")
    chatting = replace(
        opened, inference=Inference(opened.routed, Encoder(opened.routed.base, template="chat"))
    )
    turns = [{"role": "user", "content": FAR}, {"role": "assistant", "content": "He was."}]
    asked = [EDITED, [*turns, {"role": "user", "content": EDITED}], FAR]
    alone = query(chatting, asked, max_new_tokens=2)
    briefed = query(chatting, asked, max_new_tokens=2, system="You are brief.")
    fired = [result.route.fired.edit_id if result.route.fired else None for result in alone]
    assert fired == ["e000002", "e000002", None]
    assert [result.route for result in briefed] == [result.route for result in alone]
    assert [result.prompt for result in briefed] == [EDITED, EDITED, FAR]


def test_a_conversation_needs_a_template_and_a_user_at_its_end(shared: Shared) -> None:
    opened = shared("pico_llama")
    with pytest.raises(PromptError, match="need a chat template"):
        query(opened, [EDITED], system="You are brief.")
    with pytest.raises(PromptError, match="does not end with a user's message"):
        query(opened, [[{"role": "assistant", "content": "Yes."}]])


@pytest.mark.parametrize(
    ("prompt", "subject", "words"),
    [
        ("Who leads Belta Robotics?", "Acme Robotics", 'it is about "Belta", the edit about "Acme Robotics"'),
        ("Who leads it?", "Acme Robotics", 'it does not name "Acme Robotics"'),
        ("When was Acme Robotics made?", "Acme Robotics", "it asks when, the edit asks who"),
        ("Who leads Acme Robotics in Zundel?", None, 'it also names "Zundel", the edit does not'),
        ("Who besides Ada leads Acme Robotics?", "Acme Robotics", "it asks for another answer than one"),
        ("Who owns Acme Robotics?", None, "it asks something else, or in words too far from the edit's"),
    ],
)
def test_what_speaks_against_an_edit_is_explained_in_words(
    prompt: str, subject: str | None, words: str
) -> None:
    known = ("who leads it", "when was that made in a country", "who owns this", "robotics")
    vocabulary = Vocabulary.of([[text] for text in known])
    reason = against(prompt, "Who leads Acme Robotics?", subject, vocabulary)
    assert reason.startswith(words.split(", the edit about")[0])


def test_the_words_that_tell_two_questions_apart_are_named() -> None:
    edited = "Who is the head of support at Acme Robotics?"
    vocabulary = Vocabulary.of([["who is the head of"], ["at support"], ["sales"], ["robotics", "acme"]])
    reason = against("Who is the head of Sales at Acme Robotics?", edited, "Acme Robotics", vocabulary)
    assert reason == 'it says "Sales" where the edit says "support"'
