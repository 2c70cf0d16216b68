"""`melo route`: the same adapters from a project and from the folder exported from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from melo_cli.commands import route as command
from melo_cli.exporting.prompt_router import PromptRouter, router_of_project

Melo = Callable[..., Any]

PROMPTS = ["What is the capital of France?", "In which year was the tower built?", "the law of London"]
ROUTES = ["b000001", "b000002", "base"]


def routes(run: Any) -> list[str | None]:
    return [json.loads(line)["route"] for line in run.out.splitlines()]


def test_a_project_names_the_adapter_or_base(edited: Path, melo: Melo) -> None:
    run = melo("route", *PROMPTS, "--project", "facts")
    assert (run.code, routes(run)) == (0, ROUTES)
    first = json.loads(run.out.splitlines()[0])
    assert (first["prompt"], first["edit_id"]) == (PROMPTS[0], "e000002")
    assert first["distance"] < 1e-4
    assert "probability" in first


def test_an_exported_router_routes_what_comes_on_stdin(own_edited: Path, melo: Melo) -> None:
    melo("export", "--format", "peft", "--to", "out", "--check", 0)
    turns = [
        {"role": "system", "content": PROMPTS[0]},
        {"role": "user", "content": PROMPTS[0]},
        {"role": "assistant", "content": "Paris"},
        {"role": "user", "content": PROMPTS[2]},
    ]
    stdin = f"{PROMPTS[0]}\n{json.dumps({'prompt': PROMPTS[1]})}\n{json.dumps(turns)}".encode()
    for folder in ("out", "out/router"):
        run = melo("route", "--router", folder, stdin=stdin)
        assert (run.code, routes(run)) == (0, ROUTES)
    run = melo("route", "--project", "facts", stdin=stdin)
    assert (run.code, routes(run)) == (0, ROUTES)
    assert json.loads(run.out.splitlines()[-1])["prompt"] == PROMPTS[2], "what the user asked last"


def test_a_text_that_the_chat_template_wrote_is_routed_by_its_last_user_turn(
    here: Path, pico_llama: Path, melo: Melo, write_recipe: Callable[..., None]
) -> None:
    write_recipe(here, "chat", pico_llama, "custom")
    assert melo("edit", "chat.yaml", "--set", "model.template=chat").code == 0
    before = f"<|system|>\n{PROMPTS[1]}\n<|user|>\n{PROMPTS[2]}\n<|assistant|>\nYes.\n<|user|>\n"
    lines = [json.dumps({"prompt": f"{before}{PROMPTS[0]}\n{end}"}) for end in ("", "<|assistant|>\n")]
    plain = melo("route", PROMPTS[0], "--project", "chat")
    assert routes(plain) == ["b000001"]
    run = melo("route", "--project", "chat", stdin="\n".join(lines).encode())
    assert (run.code, run.out) == (0, plain.out * 2)


def test_a_line_that_holds_no_prompt_gets_an_error_and_the_others_go_on(edited: Path, melo: Melo) -> None:
    bad = [
        '{"a": 1}',
        "",
        '{"prompt": ""}',
        '{"prompt": 5}',
        "[1, 2]",
        '[{"role": "system", "content": "x"}]',
    ]
    stdin = "\n".join([PROMPTS[0], *bad, PROMPTS[2]]).encode() + b"\n\xff\n" + PROMPTS[1].encode()
    run = melo("route", "--project", "facts", stdin=stdin)
    assert run.code == 1
    assert routes(run) == [ROUTES[0], *[None] * len(bad), ROUTES[2], None, ROUTES[1]]
    errors = [json.loads(line).get("error") for line in run.out.splitlines()]
    no_prompt = 'it has no prompt; write {"prompt": "..."} or a list of messages'
    assert errors[1] == f"stdin:2: {no_prompt}"
    assert errors[2] == errors[3] == "'': the prompt is empty"
    assert errors[6] == f"stdin:7: {no_prompt}"
    assert errors[8] == "stdin:9: it is not UTF-8; save it as UTF-8"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["prompt", "role", "content", "a"]), inner, max_size=3)
        | st.fixed_dictionaries({"role": st.just("user"), "content": inner})
    ),
    max_leaves=8,
)
LINES = (
    st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.sampled_from([*PROMPTS, "[" * 5000, "{" * 5000, "9" * 5000, "the law " * 5000]).map(str.encode)
)


@pytest.fixture(scope="module")
def opened() -> dict[str, PromptRouter]:
    return {}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(LINES, max_size=12), st.booleans())
@example([b'{"a": 1}', b"5", b"", b"[1, [2], {}]", b'{"prompt": "\\ud800"}', b"\xff", b"\r", b"null"], True)
@example([b'[{"role": "user", "content": ["x"]}]', b'{"prompt": ' + b"9" * 5000 + b"}"], False)
def test_each_line_whatever_it_holds_gets_one_line(
    edited: Path,
    melo: Melo,
    opened: dict[str, PromptRouter],
    monkeypatch: pytest.MonkeyPatch,
    lines: list[bytes],
    ended: bool,
) -> None:
    if not opened:
        opened["facts"] = router_of_project(edited / ".melo" / "facts")
    monkeypatch.setattr(command, "_of_project", lambda *_: opened["facts"])
    stdin = b"\n".join([*lines, PROMPTS[0].encode()]) + (b"\n" if ended else b"")
    run = melo("route", stdin=stdin)
    answers = [json.loads(line) for line in run.out.splitlines()]
    assert len(answers) == len(lines) + 1
    assert answers[-1]["route"] == ROUTES[0]
    assert all(answer["route"] is not None or answer["error"] for answer in answers)
    assert run.code == any(answer["route"] is None for answer in answers)


def test_a_text_that_looks_like_json_and_is_none_is_a_prompt(edited: Path, melo: Melo) -> None:
    for text in ("{it says: yes", "[so it is"):
        run = melo("route", "--project", "facts", stdin=text.encode())
        assert (run.code, json.loads(run.out)["prompt"]) == (0, text)


def test_the_usage_line_names_the_prompts_once(melo: Melo) -> None:
    run = melo("route", "--help")
    usage = next(line for line in run.out.splitlines() if "Usage" in line)
    assert usage.split() == ["Usage:", "melo", "route", "[OPTIONS]", "[TEXT]..."]


def test_a_prompt_that_cannot_be_asked_says_so_and_the_others_go_on(edited: Path, melo: Melo) -> None:
    stdin = f"{PROMPTS[0]}\n{'the law ' * 200}\n{PROMPTS[2]}\n".encode()
    run = melo("route", "--project", "cases", stdin=stdin)
    assert run.code == 1
    assert routes(run) == ["b000001", None, "base"]
    assert "tokens, but the model takes 128" in json.loads(run.out.splitlines()[1])["error"]


def test_what_is_no_router_is_bad_input(edited: Path, melo: Melo) -> None:
    run = melo("route", "x", "--router", ".")
    assert run.code == 2
    assert run.error.startswith(".: the folder has no routes.json")
    run = melo("route", "x", "--router", ".", "--project", "facts")
    assert (run.code, run.error) == (
        2,
        "--router: a router and a project do not go together; leave out --project and --at",
    )


def test_an_exported_router_reads_a_pickled_base_with_an_option(
    here: Path, pickled: Path, melo: Melo, write_recipe: Callable[..., None]
) -> None:
    write_recipe(here, "small", pickled, "custom")
    allowed = ("--set", "model.allow_pickle=true", "--set", "key.layer=transformer.h.0")
    assert melo("edit", "small.yaml", *allowed).code == 0
    assert melo("export", "--format", "peft", "--to", "out", "--check", 0).code == 0
    run = melo("route", PROMPTS[0], "--router", "out")
    assert run.code == 2
    assert "or add --allow-pickle if you trust" in run.error
    run = melo("route", PROMPTS[0], "--router", "out", "--allow-pickle")
    assert run.code == 0
    assert routes(run) == routes(melo("route", PROMPTS[0], "--project", "small"))
    run = melo("route", PROMPTS[0], "--project", "small", "--allow-pickle")
    assert (run.code, run.error.partition(":")[0]) == (2, "--trust-remote-code, --allow-pickle")
