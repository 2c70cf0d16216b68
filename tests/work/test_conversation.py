"""A conversation: answered as `melo query` answers the same messages, and put right on the spot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from melo_cli.calibration import put_in_force
from melo_cli.chat.conversation import Conversation, Turn
from melo_cli.datasets import EditRequest
from melo_cli.editing import EditSummary, edit_single
from melo_cli.errors import ModelError, ProjectLockedError, PromptError
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.runtime.querying import query
from melo_store.project import Project
from melo_store.writer import open_writer

COMMAND = "melo chat"
EDITED = "Where does the river end"
OTHER = "He was born in Cologne"
CHAT = {"model": {"template": "chat"}, "generation": {"max_new_tokens": 6}}
Chat = Callable[..., Conversation]


@pytest.fixture(scope="module")
def chat_folder(edit: Callable[..., EditSummary], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of one edit, asked through a chat template. Read it only."""
    folder = tmp_path_factory.mktemp("chat") / "p"
    assert edit("pico_llama", [{"prompt": EDITED, "target": "Paris"}], folder, **CHAT).count("solved") == 1
    return folder


@pytest.fixture
def own(chat_folder: Path, tmp_path: Path) -> Path:
    """A copy of the project."""
    return Path(shutil.copytree(chat_folder, tmp_path / "own"))


@pytest.fixture
def chat(own: Path, reporter: Any) -> Chat:
    """Begin a conversation with the copy; its answers are as long as the recipe's."""

    def begin(path: Path = own, max_new_tokens: int | None = 6, **options: Any) -> Conversation:
        settings = {"max_new_tokens": max_new_tokens, **options}
        return Conversation(open_project(path), reporter, command=COMMAND, **settings)

    return begin


def ask(conversation: Conversation, *prompts: str) -> list[Turn]:
    return [conversation.ask(prompt, lambda piece: None) for prompt in prompts]


def queried(path: Path, *asked: Any, system: str | None = None, max_new_tokens: int | None = None) -> Any:
    return query(open_project(path), asked, max_new_tokens, system)


def test_every_answer_is_that_of_melo_query_for_the_same_messages(chat: Chat, own: Path) -> None:
    conversation = chat(system="Be brief.")
    pieces: list[str] = []
    turns, asked = [], []
    for prompt in (OTHER, EDITED):
        asked.append(conversation.messages(conversation.turns, prompt))
        turns.append(conversation.ask(prompt, pieces.append))
        assert "".join(pieces) == turns[-1].answer
        assert len(pieces) > 1 or len(turns) > 1, "token by token, not at the end"
        pieces.clear()
    assert asked[1] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": OTHER},
        {"role": "assistant", "content": turns[0].answer},
        {"role": "user", "content": EDITED},
    ]
    results = queried(own, *asked)
    assert [turn.answer for turn in turns] == [each.edited for each in results]
    assert [turn.route for turn in turns] == [each.route for each in results]
    assert [turn.route.fired is not None for turn in turns] == [False, True]


def test_the_base_alone_is_asked_the_last_question(chat: Chat, own: Path) -> None:
    conversation = chat()
    ask(conversation, EDITED)
    base = conversation.ask_base(lambda piece: None)
    (result,) = queried(own, EDITED)
    assert (conversation.last.answer, base.answer) == (result.edited, result.base) == ("Paris", result.base)
    assert base.answer != "Paris"
    assert [turn.answer for turn in conversation.turns] == ["Paris"]


def test_an_edit_is_made_in_the_open_project_and_its_answer_takes_the_place_of_the_old_one(
    chat: Chat, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = chat()
    ask(conversation, OTHER)
    before = conversation.last.answer
    monkeypatch.setattr("melo_cli.runtime.loading.load_base_model", None)  # no second base is loaded
    outcome = conversation.edit("London")
    assert (outcome.edit_id, outcome.status, outcome.answer) == ("e000002", "solved", "London")
    assert conversation.last.answer == before
    turn = conversation.ask_again(lambda piece: None)
    assert (turn.answer, turn.route.fired and turn.route.fired.edit_id) == ("London", "e000002")
    assert conversation.turns == [turn]
    assert conversation.is_answered(" London ")
    assert conversation.rests_on("e000002")
    newest = Project.open(own)
    assert (newest.snapshot, newest.info.action, newest.info.command) == (2, "edit", COMMAND)
    monkeypatch.undo()
    assert queried(own, OTHER)[0].edited == "London"


def test_undo_takes_back_one_edit_of_the_chat_after_the_other(chat: Chat, own: Path) -> None:
    conversation = chat()
    assert conversation.undo() is None, "the edits of others stay"
    (before,) = ask(conversation, OTHER)
    for target in ("London", "Smith"):
        conversation.edit(target)
    assert conversation.ask_again(lambda piece: None).answer == "Smith"
    assert conversation.undo() == "e000003"
    assert conversation.rests_on("e000003")
    assert conversation.ask_again(lambda piece: None).answer == "London"
    assert conversation.undo() == "e000002"
    assert conversation.ask_again(lambda piece: None) == before
    assert conversation.undo() is None
    newest = Project.open(own)
    assert (newest.info.action, newest.info.command) == ("revert", COMMAND)
    assert [view.status for view in newest.edits()] == ["live", "reverted", "reverted"]


def test_an_edit_that_does_not_take_changes_no_answer(
    edit: Callable[..., EditSummary], chat: Chat, tmp_path: Path
) -> None:
    lazy = {"training": {"max_steps": 1, "retries": 0, "optimizer": {"name": "Adam", "lr": 1e-9}}}
    edit("pico_llama", [{"prompt": EDITED, "target": "Paris"}], tmp_path / "lazy", **CHAT, **lazy)
    conversation = chat(tmp_path / "lazy")
    (before,) = ask(conversation, OTHER)
    assert conversation.edit("London").status == "failed"
    assert conversation.ask_again(lambda piece: None) == before
    assert conversation.undo() is None


def test_what_another_process_writes_holds_from_the_next_turn_on(chat: Chat, own: Path) -> None:
    conversation = chat()
    ask(conversation, OTHER)
    edit_single(EditRequest(OTHER, "Smith"), own, SilentReporter(), command="melo edit")
    (turn,) = ask(conversation, OTHER)
    assert (turn.route.fired and turn.route.fired.edit_id, conversation.project.snapshot) == ("e000002", 2)


def test_a_calibration_of_another_process_routes_from_the_next_turn_on(
    edit: Callable[..., EditSummary], verified: dict[str, Any], chat: Chat, tmp_path: Path
) -> None:
    changes = CHAT | verified
    edit("pico_llama", [{"prompt": EDITED, "target": "Paris"}], tmp_path / "verified", **changes)
    conversation = chat(tmp_path / "verified")
    before = ask(conversation, EDITED, OTHER)
    assert [turn.route.fired is not None for turn in before] == [True, False]
    assert before[1].against is not None
    another = open_project(tmp_path / "verified")
    key_map = another.project.key_map
    assert key_map is not None
    lenient = replace(key_map, settings={**key_map.settings, "threshold": -1000.0})
    with open_writer(another.project) as writer:
        router = another.routed.router
        put_in_force(writer, lenient, another.recipe, router, versions={}, command="melo calibrate")
    after = ask(conversation, OTHER)[0]
    assert after.route == queried(tmp_path / "verified", OTHER)[0].route
    assert after.route.fired is not None


def test_while_another_process_writes_no_edit_is_made_or_taken_back(chat: Chat, own: Path) -> None:
    conversation = chat()
    ask(conversation, OTHER)
    conversation.edit("London")
    with open_writer(Project.open(own)):
        ask(conversation, EDITED)
        for attempt in (lambda: conversation.edit("Smith"), conversation.undo):
            with pytest.raises(ProjectLockedError):
                attempt()
    assert conversation.undo() == "e000002"


def test_an_answer_that_is_stopped_stays_as_far_as_it_came(chat: Chat, own: Path) -> None:
    conversation = chat()
    shown: list[str] = []

    def stop(piece: str) -> None:
        if shown:
            raise KeyboardInterrupt
        shown.append(piece)

    turn = conversation.ask(OTHER, stop)
    assert turn.stopped
    assert turn.answer.startswith(shown[0])
    assert len(turn.answer) < len(queried(own, OTHER)[0].edited)
    asked = conversation.messages(conversation.turns, EDITED)
    assert ask(conversation, EDITED)[0].answer == queried(own, asked)[0].edited


def test_an_answer_that_is_cut_says_so(chat: Chat, own: Path) -> None:
    (cut,) = ask(chat(max_new_tokens=2), OTHER)
    assert (cut.cut, cut.answer) == ("cut at 2 tokens", queried(own, OTHER, max_new_tokens=2)[0].edited)
    assert ask(chat(max_new_tokens=12), EDITED)[0].cut is None


def test_an_answer_is_as_long_as_a_chat_needs_it_where_nobody_bounds_it(chat: Chat, own: Path) -> None:
    (turn,) = ask(chat(max_new_tokens=None), OTHER)
    room = open_project(own).routed.base.max_length
    assert room is not None
    long = queried(own, OTHER, max_new_tokens=room)[0].edited
    assert len(long) > len(queried(own, OTHER)[0].edited)
    assert turn.answer == long
    assert turn.cut is not None and int(turn.cut.split()[2]) < room, "the prompt is in there too"


def test_an_edit_is_about_the_name_in_its_question(chat: Chat, own: Path) -> None:
    conversation = chat()
    ask(conversation, OTHER)
    conversation.edit("London")
    assert Project.open(own).edit("e000002").record.subject == "Cologne"


def test_the_oldest_turns_are_forgotten_where_the_model_takes_no_more(
    chat: Chat, own: Path, reporter: Any
) -> None:
    conversation = chat(system="Be brief.")
    ask(conversation, *[OTHER] * 6)
    assert 0 < len(conversation.turns) < 6
    assert reporter.warnings[0] == "the oldest turn is forgotten: the model takes 128 tokens"
    asked = conversation.messages(conversation.turns[:-1], OTHER)
    assert asked[0]["role"] == "system"
    assert conversation.last.answer == queried(own, asked)[0].edited
    with pytest.raises(PromptError, match="the model takes 128"):
        ask(conversation, "the court " * 200)


def test_without_a_chat_template_each_turn_is_asked_on_its_own(
    copied: Callable[[str], Path], reporter: Any
) -> None:
    path = copied("pico_t5")
    conversation = Conversation(open_project(path), reporter, command=COMMAND, max_new_tokens=8)
    assert not conversation.remembers
    turns = ask(conversation, OTHER, EDITED)
    results = queried(path, OTHER, EDITED, max_new_tokens=8)
    assert [turn.answer for turn in turns] == [each.edited for each in results]
    with pytest.raises(PromptError, match="need a chat template"):
        conversation.put_before("Be brief.")


def test_a_classifier_is_not_talked_with(shared: Callable[[str], OpenProject], reporter: Any) -> None:
    with pytest.raises(ModelError, match="sequence classifier.*; ask it with `melo query`"):
        Conversation(shared("pico_bert"), reporter, command=COMMAND)


def test_nothing_can_be_edited_before_something_is_asked(chat: Chat) -> None:
    conversation = chat()
    for attempt in (lambda: conversation.edit("London"), lambda: conversation.ask_base(str)):
        with pytest.raises(PromptError, match="nothing has been asked yet"):
            attempt()
    ask(conversation, OTHER)
    conversation.forget()
    with pytest.raises(PromptError, match="nothing has been asked yet"):
        conversation.edit("London")
