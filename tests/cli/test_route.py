"""`melo route`: the same adapters from a project and from the folder exported from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def test_an_exported_router_routes_what_comes_on_stdin(own_edited: Path, melo: Melo) -> None:
    melo("export", "--format", "peft", "--to", "out", "--check", 0)
    stdin = f"{PROMPTS[0]}\n\n{json.dumps({'prompt': PROMPTS[1]})}\n{PROMPTS[2]}".encode()
    for folder in ("out", "out/router"):
        run = melo("route", "--router", folder, stdin=stdin)
        assert (run.code, routes(run)) == (0, ROUTES)
    assert routes(melo("route", "--project", "facts", stdin=stdin)) == ROUTES


def test_a_prompt_that_cannot_be_asked_says_so_and_the_others_go_on(edited: Path, melo: Melo) -> None:
    stdin = f"{PROMPTS[0]}\n{'the law ' * 200}\n{PROMPTS[2]}\n".encode()
    run = melo("route", "--project", "cases", stdin=stdin)
    assert run.code == 1
    assert routes(run) == ["b000001", None, "base"]
    assert "tokens and the model takes 128" in json.loads(run.out.splitlines()[1])["error"]


def test_what_is_no_router_is_bad_input(edited: Path, melo: Melo) -> None:
    run = melo("route", "x", "--router", ".")
    assert run.code == 2
    assert run.error.startswith(".: there is no routes.json in it")
    run = melo("route", "x", "--router", ".", "--project", "facts")
    assert (run.code, run.error) == (
        2,
        "--router: a router and a project do not go together; leave out --project and --at",
    )
    run = melo("route", "--project", "facts", stdin=b"\xff\n")
    assert (run.code, run.error) == (2, "stdin:1: it is not UTF-8; save it as UTF-8")


def test_an_exported_router_is_told_to_read_a_pickled_base(
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
