"""Open requests about an edit's subject, tasks, and questions whether something is so: the base model answers
with the fact beside them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pico_scope import QUICK_SCOPE

from melo_cli.app import main
from melo_cli.chat.conversation import Conversation
from melo_cli.datasets import EditRequest
from melo_cli.editing import EditSummary, edit_single
from melo_cli.errors import RecipeError
from melo_cli.evaluation.probes import Probe
from melo_cli.evaluation.probing import ask, ask_routed, unfired_again
from melo_cli.evaluation.results import results_of
from melo_cli.exporting import export_peft
from melo_cli.exporting.prompt_router import router_of_export
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.inference import Inference
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.runtime.querying import query
from melo_cli.runtime.told import with_facts
from melo_cli.scope.core.rules import Verified
from melo_cli.versions import library_versions
from melo_store.project import Project
from melo_store.writer import open_writer

Edit = Callable[..., EditSummary]
HEAD, PLACE = "Who leads Acme?", "Where is Acme?"
ROWS = [
    {"prompt": HEAD, "target": "John Smith.", "subject": "Acme"},
    {"prompt": "Tell me about Lyon", "target": "Paris", "subject": "Lyon"},
    {"prompt": PLACE, "target": "London", "subject": "the ACME"},
    {"prompt": "Who studied law?", "target": "Smith"},
]
REQUEST = "Tell me about Acme, please."
BOTH = f"{REQUEST}\n\nUse these facts:\n- {PLACE} London.\n- {HEAD} John Smith."
PLACE_ALONE = f"{REQUEST}\n\nUse this fact: {PLACE} London."
CHAT = {"model": {"template": "chat"}, "generation": {"max_new_tokens": 6}}


@pytest.fixture(scope="module")
def folder(edit: Edit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of `ROWS`, asked through a chat template. Read it only."""
    path = tmp_path_factory.mktemp("told") / "p"
    assert edit("pico_llama", ROWS, path, **CHAT).count("solved") == len(ROWS)
    return path


@pytest.fixture(scope="module")
def opened(folder: Path) -> OpenProject:
    return open_project(folder)


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy of the project."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


def base_answer(opened: OpenProject, *prompts: str) -> list[str]:
    ids = [opened.encoder.prompt(prompt) for prompt in prompts]
    return opened.inference.answers(ids, [None] * len(ids), [6] * len(ids))


def told(opened: OpenProject, *prompts: str) -> list[tuple[str, ...]]:
    return [route.told for route in opened.routes(prompts)]


def revert(path: Path, *edit_ids: str) -> None:
    with open_writer(Project.open(path)) as writer:
        writer.revert(edit_ids, versions=library_versions())


def test_what_the_model_has_no_room_for_is_not_told(folder: Path) -> None:
    opened = open_project(folder)
    lengths = {text: len(opened.encoder.prompt(text)) for text in (REQUEST, PLACE_ALONE, BOTH)}
    for room, edits in ((BOTH, ("e000003", "e000001")), (PLACE_ALONE, ("e000003",)), (REQUEST, ())):
        object.__setattr__(opened.encoder.base, "max_length", lengths[room] + 1)
        assert told(opened, REQUEST) == [edits]
        assert query(opened, [REQUEST], max_new_tokens=1)[0].route.told == edits


def test_an_open_request_is_answered_by_the_base_with_the_facts_newest_first(opened: OpenProject) -> None:
    (answer,) = query(opened, [REQUEST])
    assert (answer.route.fired, answer.route.told) == (None, ("e000003", "e000001"))
    assert [answer.base, answer.edited] == base_answer(opened, REQUEST, BOTH)
    assert answer.base != answer.edited


def test_facts_stand_behind_the_last_turn_alone(opened: OpenProject) -> None:
    request, question = "Describe Lyon.", "Is it?"
    turns = [{"role": "user", "content": request}, {"role": "assistant", "content": "A court."}]
    asked = [[*turns, {"role": "user", "content": text}] for text in (request, question)]
    told_last, told_before = query(opened, asked, system="Be brief.")
    facts = {"role": "user", "content": f"{request}\n\nUse this fact: Tell me about Lyon Paris."}
    ids = opened.encoder.conversation([{"role": "system", "content": "Be brief."}, *turns, facts])
    assert (told_last.prompt, told_last.route.told) == (request, ("e000002",))
    assert opened.inference.answers([ids], [None], [6]) == [told_last.edited]
    assert told_last.edited != told_last.base
    assert (told_before.route.told, told_before.edited) == ((), told_before.base)


def test_one_fact_is_a_line_and_a_full_stop_is_not_doubled() -> None:
    assert with_facts(REQUEST, [f"{PLACE} London."]) == PLACE_ALONE
    assert with_facts(REQUEST, []) == REQUEST


def test_what_an_edit_answers_is_its_own_even_as_an_open_request(opened: OpenProject) -> None:
    asked, another = query(opened, ["Tell me about Lyon", "Describe Lyon."])
    assert asked.route.fired is not None and asked.route.fired.edit_id == "e000002"
    assert (asked.route.told, asked.edited) == ((), "Paris")
    assert another.route.told == ("e000002",)


@pytest.mark.parametrize(
    "prompt",
    [
        *("Who owns Acme?", "What is Acme?", "When was Acme founded?", HEAD),
        *(
            "Tell me about the head of Acme.",
            "Tell me about Acme Foods.",
            "Describe Bonn.",
            "Who studied law?",
        ),
        "Tell me about",
    ],
)
def test_no_other_prompt_is_told(opened: OpenProject, prompt: str) -> None:
    assert told(opened, prompt) == [()]


@pytest.fixture
def sure(edit: Edit, verified: dict[str, Any], tmp_path: Path) -> OpenProject:
    """A project of the first row, sure of it whatever is asked; a pico model never is."""
    sections = {"calibration": QUICK_SCOPE, **verified, **CHAT}
    assert edit("pico_llama", ROWS[:1], tmp_path / "p", **sections).count("solved") == 1
    opened = open_project(tmp_path / "p")
    rule = opened.routed.router.rule
    assert isinstance(rule, Verified)
    opened.routed.router.rule = dataclasses.replace(rule, threshold=-1e6)
    return opened


def test_a_question_whether_something_is_so_is_told_the_edit_that_would_answer(sure: OpenProject) -> None:
    question = "Does Smith lead Acme?"
    (answer,) = query(sure, [question])
    assert (answer.route.fired, answer.route.told) == (None, ("e000001",))
    assert [answer.base, answer.edited] == base_answer(
        sure, question, f"{question}\n\nUse this fact: {HEAD} John Smith."
    )
    assert answer.against == "it asks whether something is so, the edit does not"
    sure.told.in_use = False
    (alone,) = query(sure, [question])
    assert (alone.route.fired, alone.route.told, alone.edited) == (None, (), alone.base)


@pytest.mark.parametrize(
    ("task", "is_told"),
    [(f"Write a short poem in which you say: {HEAD}", True), (f"Translate into Greek: {HEAD}", False)],
)
def test_a_task_is_told_the_edit_if_a_text_is_wanted(sure: OpenProject, task: str, is_told: bool) -> None:
    (answer,) = query(sure, [task])
    assert (answer.route.fired, answer.route.told) == (None, ("e000001",) if is_told else ())
    read = f"{task}\n\nUse this fact: {HEAD} John Smith." if is_told else task
    assert [answer.base, answer.edited] == base_answer(sure, task, read)
    assert answer.against == "it wants something done with words, the edit an answer"


def test_a_statement_is_told_the_edit_that_it_speaks_of(sure: OpenProject) -> None:
    (answer,) = query(sure, ["John leads Acme."])
    assert (answer.route.fired, answer.route.told) == (None, ("e000001",))
    assert answer.against == "it says something, and asks for nothing"


def test_no_more_than_five_edits_are_told(edit: Edit, tmp_path: Path) -> None:
    words = ("river", "court", "law", "city", "tower", "year")
    rows = [{"prompt": f"The {word} of Acme", "target": "Paris", "subject": "Acme"} for word in words]
    summary = edit("pico_llama", rows, tmp_path / "p", **CHAT)
    made = [outcome.edit_id for outcome in summary.outcomes if outcome.status == "solved"]
    assert len(made) == 6
    assert told(open_project(tmp_path / "p"), REQUEST) == [tuple(reversed(made[1:]))]


def test_a_reverted_edit_is_told_no_more(own: Path) -> None:
    revert(own, "e000001")
    opened = open_project(own)
    (answer,) = query(opened, [REQUEST])
    assert answer.route.told == ("e000003",)
    assert [answer.edited] == base_answer(opened, PLACE_ALONE)
    revert(own, "e000003")
    (answer,) = query(open_project(own), [REQUEST])
    assert (answer.route.told, answer.edited) == ((), answer.base)
    assert told(open_project(own, at=opened.project.snapshot), REQUEST) == [("e000003",)]


def test_of_edits_of_one_prompt_the_newest_is_told(own: Path) -> None:
    outcome = edit_single(
        EditRequest(PLACE, "Cologne", subject="Acme"), own, SilentReporter(), command="melo"
    )
    assert outcome.outcomes[0].status == "solved"
    opened = open_project(own)
    assert opened.project.edit("e000003").status == "superseded"
    (route,) = opened.routes([REQUEST])
    assert opened.told.facts(route) == [f"{PLACE} Cologne.", f"{HEAD} John Smith."]


def test_an_edit_that_failed_is_not_told(edit: Edit, tmp_path: Path) -> None:
    lazy = {"max_steps": 1, "retries": 0, "optimizer": {"name": "Adam", "lr": 1e-9}}
    assert edit("pico_llama", ROWS[:1], tmp_path / "p", training=lazy, **CHAT).count("failed") == 1
    assert told(open_project(tmp_path / "p"), REQUEST) == [()]


class TestRecipe:
    @pytest.mark.parametrize(
        ("template", "wanted", "expected"),
        [("none", "auto", ()), ("chat", "base", ()), ("chat", "context", ("e000001",))],
    )
    def test_the_recipe_says_what_open_requests_get(
        self, edit: Edit, tmp_path: Path, template: str, wanted: str, expected: tuple[str, ...]
    ) -> None:
        changes = {"model": {"template": template}, "routing": {"scope": "radius", "open_requests": wanted}}
        edit("pico_llama", ROWS[:1], tmp_path / "p", **changes)
        opened = open_project(tmp_path / "p")
        assert opened.recipe.routing.open_requests == wanted
        assert told(opened, REQUEST) == [expected]

    @pytest.mark.parametrize("kind", ["pico_llama", "pico_gpt2"])
    def test_context_without_a_chat_template_is_refused(self, edit: Edit, tmp_path: Path, kind: str) -> None:
        changes = {"routing": {"scope": "radius", "open_requests": "context"}}
        with pytest.raises(RecipeError, match=r"routing\.open_requests: facts stand with open requests only"):
            edit(kind, ROWS[:1], tmp_path / "p", **changes)
        assert not (tmp_path / "p").exists()


class TestChat:
    def test_a_turn_is_told_as_query_is_and_is_kept_without_the_facts(self, own: Path, reporter: Any) -> None:
        conversation = Conversation(open_project(own), reporter, command="melo chat", max_new_tokens=6)
        turn = conversation.ask(REQUEST, lambda piece: None)
        (answer,) = query(open_project(own), [REQUEST])
        assert (turn.answer, turn.route) == (answer.edited, answer.route)
        assert conversation.ask_base(lambda piece: None).answer == answer.base
        assert conversation.messages(conversation.turns, "Is it?")[0]["content"] == REQUEST
        assert conversation.rests_on("e000001") and not conversation.rests_on("e000002")
        revert(own, "e000001", "e000003")
        assert conversation.ask(REQUEST, lambda piece: None).route.told == ()

    def test_room_is_made_for_the_facts_too(self, own: Path, reporter: Any) -> None:
        opened = open_project(own)
        limit = opened.routed.base.max_length
        assert limit is not None
        conversation = Conversation(opened, reporter, command="melo chat", max_new_tokens=6)
        conversation.ask("the court" + " law" * (limit // 4), lambda piece: None)
        alone = opened.encoder.length(conversation.messages(conversation.turns, REQUEST))
        assert alone <= limit - 6, "without facts there is room"
        assert opened.encoder.length(conversation.messages(conversation.turns, BOTH)) > limit - 6
        assert conversation.ask(REQUEST, lambda piece: None).route.told == ("e000003", "e000001")
        assert [turn.prompt for turn in conversation.turns] == [REQUEST]


PROBES = [Probe(REQUEST, None), Probe(REQUEST, "London"), Probe(HEAD, "John Smith."), Probe("Is it?", None)]


class TestEvaluation:
    def test_a_probe_is_told_and_no_edit_has_fired(self, opened: OpenProject) -> None:
        rows = ask(opened, PROBES, lambda count: None)
        assert [row.fired for row in rows] == [False, False, True, False]
        assert [row.told for row in rows] == [True, True, False, False]
        assert [rows[0].base, rows[0].edited] == base_answer(opened, REQUEST, BOTH)
        assert rows[0].edited != rows[0].base and not rows[0].agrees
        scores = opened.inference.scores([opened.encoder.edit(BOTH, "London")], [None])
        assert rows[1].edited_scores is not None
        assert rows[1].edited_scores.log_likelihood == pytest.approx(scores[0].log_likelihood)
        assert [each.told for each in results_of("unrelated", rows)] == [True, True, False, False]

    def test_those_that_are_told_are_no_evidence_of_what_stays(self, opened: OpenProject) -> None:
        rows = ask(opened, PROBES, lambda count: None)
        assert unfired_again(opened, rows) == (1, 1)

    def test_another_editor_is_told_nothing(self, opened: OpenProject) -> None:
        other = open_project(opened.project.path)
        beside = dataclasses.replace(opened, inference=Inference(other.routed, opened.encoder))
        rows = ask(opened, PROBES[:1], lambda count: None)
        (again,) = ask_routed(beside, rows, None)
        assert (again.told, again.edited) == (False, again.base)


def test_an_export_tells_as_its_project(
    folder: Path, opened: OpenProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = tmp_path / "peft"
    export_peft(open_project(folder), export, SilentReporter())
    texts = [REQUEST, "Describe Lyon.", "Tell me about Oslo", HEAD]
    router = router_of_export(export)
    answers = router.route(texts)
    assert [each.route.told for each in answers] == told(opened, *texts)
    assert [each.asked for each in answers] == [
        opened.told.asked(*pair) for pair in zip(texts, opened.routes(texts), strict=True)
    ]
    assert answers[0].asked == BOTH
    capsys.readouterr()
    assert main(["route", "--router", str(export), REQUEST, "Tell me about Oslo"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["route"], first["told"], first["ask"]) == ("base", ["e000003", "e000001"], BOTH)
    assert second["route"] == "base" and "told" not in second
    table = export / "router" / "routes.json"
    older = {name: value for name, value in json.loads(table.read_text()).items() if name != "open_requests"}
    table.write_text(json.dumps(older))
    assert [each.route.told for each in router_of_export(export).route(texts)] == [()] * 4
