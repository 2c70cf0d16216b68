"""`melo chat`: for people at a terminal, in pipes, and as JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melo_cli.chat.slash_commands import COMMANDS, Line, parse
from melo_cli.errors import PromptError
from melo_cli.ui.text import printable
from melo_cli.ui.word_wrap import Wrapping
from melo_store.project import Project

Melo = Callable[..., Any]

EDITED = "What is the capital of France?"
OTHER = "the statute of 1934"
SHORT = ("--max-new-tokens", 5)


@pytest.fixture(scope="module")
def chat_folder(
    tmp_path_factory: pytest.TempPathFactory,
    melo_process: Melo,
    write_recipe: Callable[..., None],
    pico_llama: Path,
) -> Path:
    """A folder with a project that is asked through a chat template. Read it only."""
    folder = tmp_path_factory.mktemp("chat")
    write_recipe(folder, "chat", pico_llama, "custom", [{"prompt": EDITED, "target": "Paris"}])
    # With this seed the block does not answer the same question after other talk.
    settings = ("--set", "model.template=chat", "--set", "seed=1")
    assert melo_process("edit", "chat.yaml", *settings, cwd=folder).code == 0
    return folder


@pytest.fixture
def chatting(chat_folder: Path, here: Path) -> Path:
    """A copy of it as the current folder."""
    shutil.copytree(chat_folder, here, dirs_exist_ok=True)
    return here


def base_answer(melo: Melo, prompt: str = OTHER) -> str:
    """What the base says, as it is shown."""
    return printable(melo("query", prompt, *SHORT, "--at", 0, "--json").json[0]["base"])


class TestPipe:
    """Every line of stdin is a turn."""

    def test_answers_go_to_stdout_and_what_gave_them_to_stderr(self, chatting: Path, melo: Melo) -> None:
        run = melo("chat", *SHORT, stdin=f"{EDITED}\n\n{OTHER}\r\n".encode())
        asked = [
            {"role": "user", "content": EDITED},
            {"role": "assistant", "content": "Paris"},
            {"role": "user", "content": OTHER},
        ]
        (answer,) = melo("query", "-", *SHORT, "--json", stdin=json.dumps(asked).encode()).json
        assert (run.code, run.out) == (0, f"Paris\n\n{answer['edited']}\n\n")
        assert run.err == (
            "melo: project chat (.melo/chat)\n"
            f'melo: e000001 "{EDITED}", cluster 1, distance 0, radius 0.05\n'
            "melo: base model; cut at 5 tokens\n"
        )

    def test_a_pipe_gets_neither_prompts_nor_colours(self, chatting: Path, melo_process: Melo) -> None:
        stdin = f"{EDITED}\n/why\n/help".encode()
        run = melo_process("chat", *SHORT, cwd=chatting, stdin=stdin)
        answer, why, commands, end = run.out.split("\n\n")
        assert (run.code, answer, end) == (0, "Paris", "")
        route = f'route   e000001 "{EDITED}", cluster 1, distance 0, radius 0.05'
        assert why.splitlines() == [f"prompt  {EDITED}", route]
        assert [line.split()[0] for line in commands.splitlines()] == [f"/{name}" for name in COMMANDS]
        assert "\x1b" not in run.out + run.err
        assert "> " not in run.out

    def test_the_last_answer_is_put_right_and_taken_back(self, chatting: Path, melo: Melo) -> None:
        base = base_answer(melo)
        stdin = f"{OTHER}\n/edit London\n/edit\nParis\n/base\n/undo\n/undo\n/undo\n"
        run = melo("chat", *SHORT, stdin=stdin.encode())
        assert run.code == 0
        assert run.out.split("\n\n") == [base, "London", "Paris", base, "London", base, ""]
        messages = [line for line in run.err.splitlines() if not line.startswith("melo: editing")]
        assert [line.partition(", cluster")[0] for line in messages[2:]] == [
            "melo: e000002 made; snapshot 2",
            f'melo: e000002 "{OTHER}"',
            "melo: e000003 made, in place of e000002; snapshot 3",
            f'melo: e000003 "{OTHER}"',
            "melo: base model; cut at 5 tokens",
            "melo: e000003 taken back; snapshot 4",
            f'melo: e000002 "{OTHER}"',
            "melo: e000002 taken back; snapshot 5",
            "melo: base model; cut at 5 tokens",
            "melo: nothing to undo: no edit of this chat is left",
        ]
        actions = [(entry["action"], entry["command"]) for entry in melo("log", "--json").json]
        command = "melo chat --max-new-tokens 5"
        assert actions[:4] == [*[("revert", command)] * 2, *[("edit", command)] * 2]

    def test_the_history_is_forgotten_and_a_system_prompt_put_before_it(
        self, chatting: Path, melo: Melo
    ) -> None:
        stdin = f"{EDITED}\n/new\n/system Be brief.\n{OTHER}\n/new\n/system\n{OTHER}\n"
        run = melo("chat", *SHORT, stdin=stdin.encode())
        (answer,) = melo("query", OTHER, *SHORT, "--system", "Be brief.", "--json").json
        assert run.out.split("\n\n") == ["Paris", answer["edited"], base_answer(melo), ""]
        assert answer["edited"] != base_answer(melo)
        assert "melo: the conversation is forgotten\n" in run.err
        first = melo("chat", *SHORT, "--system", "Be brief.", stdin=OTHER.encode())
        assert first.out == f"{answer['edited']}\n\n"

    def test_json_is_a_document_a_line(self, chatting: Path, melo: Melo) -> None:
        stdin = f"{OTHER}\n/edit London\n/why\n/base\n/undo\n"
        run = melo("chat", *SHORT, "--json", stdin=stdin.encode())
        turn, edit, again, why, base, undone, last = map(json.loads, run.out.splitlines())
        assert (turn["prompt"], turn["route"], turn["cut"]) == (OTHER, None, "cut at 5 tokens")
        assert turn["nearest"]["edit_id"] == "e000001"
        assert (edit["edit"]["edit_id"], edit["edit"]["status"], edit["snapshot"]) == ("e000002", "solved", 2)
        assert (again["answer"], again["route"]["edit_id"], again["cut"]) == ("London", "e000002", None)
        assert why == again
        assert (base["prompt"], base["base"]) == (OTHER, turn["answer"])
        assert undone == {"undone": "e000002", "snapshot": 3}
        assert last == turn

    def test_an_open_request_is_told_the_edit_of_its_subject(self, chatting: Path, melo: Melo) -> None:
        edit = ("edit", "--project", "chat", "--prompt", OTHER, "--target", "London", "--subject", "Lyon")
        assert melo(*edit).code == 0
        (answer,) = melo("query", "Describe Lyon.", *SHORT, "--json").json
        assert (answer["route"], answer["told"]) == (None, ["e000002"])
        assert answer["base"] != answer["edited"]
        run = melo("chat", *SHORT, stdin=b"Describe Lyon.\n/why\n/base\n")
        told, why, base, _ = run.out.split("\n\n")
        assert (told, base) == (printable(answer["edited"]), printable(answer["base"]))
        assert why.splitlines()[1:] == [
            "route   base, asked with the facts of edits",
            f'told    e000002 "{OTHER}"',
        ]
        assert f'melo: base model, told e000002 "{OTHER}"' in run.err
        (document,) = map(
            json.loads, melo("chat", *SHORT, "--json", stdin=b"Describe Lyon.").out.splitlines()
        )
        assert (document["told"], document["route"]) == (["e000002"], None)
        shown = melo("query", "Describe Lyon.", *SHORT).out
        assert f'told    e000002 "{OTHER}"\n' in shown and "did not fire" not in shown

    def test_a_failed_edit_is_reported_and_sets_the_exit_code(
        self, chatting: Path, melo: Melo, write_recipe: Callable[..., None], pico_llama: Path
    ) -> None:
        write_recipe(chatting, "lazy", pico_llama, "custom", [{"prompt": EDITED, "target": "Paris"}])
        settings = ("training.max_steps=1", "training.retries=0", "training.optimizer.lr=1e-9")
        melo("edit", "lazy.yaml", *(part for setting in settings for part in ("--set", setting)))
        run = melo("chat", *SHORT, "--project", "lazy", stdin=f"{OTHER}\n/edit London\n/undo\n".encode())
        (answer,) = melo("query", OTHER, *SHORT, "--project", "lazy", "--json").json
        assert (run.code, run.out) == (1, f"{answer['edited']}\n\n")
        assert "melo: warning: the edit did not take: the answer is" in run.err
        assert "nothing to undo" in run.err

    def test_an_answer_that_only_the_conversation_leads_astray_is_reported(
        self, chatting: Path, melo: Melo
    ) -> None:
        run = melo("chat", *SHORT, stdin=f"{OTHER}\n{EDITED}\n/edit Paris\n/new\n{EDITED}\n".encode())
        _, astray, still, alone, _ = run.out.split("\n\n")
        assert (run.code, astray, alone) == (0, still, "Paris")
        assert astray != "Paris"
        assert "melo: e000002 recorded as right already: no block is needed; snapshot 2\n" in run.err
        assert "melo: the edit holds where the question is asked alone; here the conversation" in run.err

    def test_a_project_without_edits_is_talked_with(self, chatting: Path, melo: Melo) -> None:
        melo("revert", "e000001")
        run = melo("chat", *SHORT, stdin=f"{OTHER}\n/why\n".encode())
        assert (run.code, run.out.partition("\n\n")[0]) == (0, base_answer(melo))
        assert "route   base (the project holds no edit that routes)\n" in run.out

    @pytest.mark.parametrize(
        ("stdin", "line"),
        [
            (b"/edt x", "/edt: there is no such command; did you mean /edit? the commands are /edit, /why, "),
            (b"/undo 3", "/undo: it takes no text; write /undo alone, or //undo for a message"),
            (b"/edit London", "nothing has been asked yet; ask something first"),
            (b"/why", "nothing has been asked yet; ask something first"),
            (EDITED.encode() + b"\n/edit\n", "/edit: no right answer is given, nothing has been changed; "),
            (b"caf\xe9", "stdin:1: it is not UTF-8; save it as UTF-8"),
            (b"the court " * 100, "'the court the court"),
        ],
    )
    def test_a_line_that_cannot_be_done_ends_a_pipe(
        self, chat_folder: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch, stdin: bytes, line: str
    ) -> None:
        monkeypatch.chdir(chat_folder)
        run = melo("chat", *SHORT, stdin=stdin + b"\n")
        assert run.code == 2
        assert run.error.startswith(line)
        assert Project.open(".melo/chat").snapshot == 1

    def test_control_c_ends_a_pipe(
        self, chat_folder: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.chdir(chat_folder)
        monkeypatch.setattr("melo_cli.runtime.inference.Inference.stream", interrupted)
        run = melo("chat", stdin=f"{EDITED}\n{OTHER}\n".encode())
        assert (run.code, run.out) == (130, "")

    def test_a_model_without_a_chat_template_is_asked_each_turn_on_its_own(
        self, edited: Path, melo: Melo
    ) -> None:
        run = melo("chat", *SHORT, stdin=f"{OTHER}\n{EDITED}\n".encode())
        answers = melo("query", OTHER, EDITED, *SHORT, "--json").json
        assert run.out.split("\n\n") == [*(printable(each["edited"]) for each in answers), ""]
        assert "each turn is asked on its own\n" in run.err
        refused = melo("chat", "--system", "Be brief.")
        assert (refused.code, "need a chat template" in refused.error) == (2, True)

    def test_what_cannot_be_talked_with(self, edited: Path, melo: Melo) -> None:
        run = melo("chat", "--project", "cases")
        assert (run.code, run.error.endswith("; ask it with `melo query`")) == (2, True)
        assert "sequence classifier" in run.error
        run, query = (melo(name, *text, "--project", "nope") for name, text in (("chat", ()), ("query", "a")))
        assert (run.code, run.error) == (2, query.error)


class TestTerminal:
    """Somebody types."""

    def test_an_edit_on_the_spot(self, chatting: Path, at_terminal: Callable[..., Any], melo: Melo) -> None:
        base = base_answer(melo)
        running = at_terminal("chat", *SHORT, cwd=chatting)
        running.until_prompt()
        for line, shown in [
            (OTHER, "base model; cut at 5 tokens"),
            ("/why", "did not fire"),
            ("/edit", "right answer> "),
            ("London", 'e000002 "the statute of 1934"'),
            ("/undo", "e000002 taken back; snapshot 3"),
            ("/undo", "nothing to undo"),
            ("/edti", "did you mean /edit?"),
            (EDITED, 'e000001 "What is the capital'),
        ]:
            running.type(f"{line}\n")
            running.until(shown)
            running.until_prompt()
        running.type("\x04")
        code, screen = running.end()
        assert code == 0
        lines = [line.rstrip() for line in screen.splitlines()]
        assert lines[:2] == [
            "project chat (.melo/chat)",
            "1 live edit; /help lists the commands, Ctrl-D ends the chat",
        ]
        asked = lines.index(f"> {OTHER}")
        assert lines[asked : asked + 4] == [f"> {OTHER}", base, "base model; cut at 5 tokens", ""]
        made = lines.index("e000002 made; snapshot 2")
        assert lines[made + 1] == "London"
        assert lines[made + 2].startswith(f'e000002 "{OTHER}", cluster 2, distance 0, radius')
        undone = lines.index("e000002 taken back; snapshot 3")
        assert lines[undone + 1 : undone + 3] == [base, "base model; cut at 5 tokens"]
        assert Project.open(chatting / ".melo/chat").snapshot == 3
        assert "\x1b[2m" in running.shown, "who gave an answer is dim"

    def test_control_c_stops_what_goes_on_and_ends_the_chat_at_the_prompt(
        self,
        chatting: Path,
        at_terminal: Callable[..., Any],
        melo: Melo,
        write_recipe: Callable[..., None],
        pico_llama: Path,
    ) -> None:
        # The same edit twice trains nothing, and leaves a recipe whose next edit would take hours.
        write_recipe(chatting, "again", pico_llama, "custom", [{"prompt": EDITED, "target": "Paris"}] * 2)
        settings = (
            "name=chat",
            "model.template=chat",
            "training.max_steps=10000000",
            "training.stop_at=null",
        )
        melo("edit", "again.yaml", *(part for setting in settings for part in ("--set", setting)))
        running = at_terminal("chat", *SHORT, cwd=chatting)
        running.until_prompt()
        running.type(f"{OTHER}\n")
        running.until("base model")
        running.until_prompt()
        running.type("/edit London\n")
        running.until("loss")
        running.interrupt()
        running.until("stopped")
        running.until_prompt()
        running.type(f"{EDITED}\n")
        running.until("e000001")
        running.until_prompt()
        running.interrupt()
        # A signal between the prompt and readline's wait for a key is seen with the next key.
        running.type("\n")
        code, screen = running.end()
        assert code == 130
        assert "Traceback" not in screen
        assert Project.open(chatting / ".melo/chat").snapshot == 2


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (" What is it? ", Line(None, "What is it?")),
        ("/edit  Port Louis ", Line("edit", "Port Louis")),
        ("/edit", Line("edit", "")),
        ("/quit", Line("quit", "")),
        ("//edit is a command", Line(None, "/edit is a command")),
        ("a / b", Line(None, "a / b")),
    ],
)
def test_what_a_line_means(line: str, meant: Line) -> None:
    assert parse(line) == meant


@pytest.mark.parametrize("line", ["/", "/ edit", "/Edit", "/undo it", "/zzz"])
def test_a_command_that_is_none(line: str) -> None:
    with pytest.raises(PromptError):
        parse(line)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two three", ["one two", "three"]),
        ("one  two\n\n  three", ["one  two", "", "  three"]),
        ("extraordinarily so", ["extraordinarily", "so"]),
        ("ab 日本語日本語", ["ab 日本", "語日本語"]),
        ("", [""]),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_lines_break_between_words_however_the_pieces_come(text: str, lines: list[str], size: int) -> None:
    written: list[str] = []
    wrapping = Wrapping(8, written.append)
    for start in range(0, len(text), size):
        wrapping.add(text[start : start + size])
    wrapping.end()
    assert "".join(written) == "".join(f"{line}\n" for line in lines)
