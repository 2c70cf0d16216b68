"""The documentation has everything, and names nothing that does not exist.

`make docs` builds it with mkdocs; these tests need no mkdocs.
"""

from __future__ import annotations

import html
import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from melo_cli.app import build_app
from melo_cli.chat.slash_commands import COMMANDS
from melo_cli.recipe.schema import Recipe
from melo_store.format.tables import blocks, clusters, edits, keymaps, states

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GENERATED = {"reference/commands.md", "reference/recipe.md"}
PAGES = sorted(path for path in DOCS.rglob("*.md"))
WRITTEN = [*PAGES, ROOT / "CONTRIBUTING.md"]
# What a path in backticks begins with, for it to mean a file of the source tree.
OURS = (
    "melo_cli/",
    "store/",
    "tests/",
    "docs/",
    "benchmarks/",
    "recipes/",
    "data/scope",
    "data/bench",
    "examples/",
)
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@cache
def tool(name: str) -> Any:
    """A module of `docs/tools/`, which is no package."""
    sys.path.insert(0, str(DOCS / "tools"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def nav_pages(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        (target,) = entry.values()
        if isinstance(target, str):
            yield target
        else:
            yield from nav_pages(target)


def test_every_page_is_in_the_navigation_once_and_every_entry_is_a_page() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = list(nav_pages(config["nav"]))
    assert sorted(listed) == sorted({path.relative_to(DOCS).as_posix() for path in PAGES} | GENERATED)


def test_the_site_takes_nothing_from_another_host() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False
    assert config["strict"] is True
    assert "extra_javascript" not in config
    assert [page.name for page in PAGES if "```mermaid" in page.read_text(encoding="utf-8")] == []


def app_commands() -> dict[str, Any]:
    """Every command of the app by what is typed; read here anew, not by the tool that writes the page."""
    import typer

    root = typer.main.get_command(build_app())
    commands: dict[str, Any] = {"melo": root}
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        commands[f"melo {name}"] = command
        commands |= {f"melo {name} {part}": each for part, each in getattr(command, "commands", {}).items()}
    return commands


def sections(page: str) -> dict[str, str]:
    """The parts of a page by their second-level heading, as a reader sees them."""
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    return {
        title: html.unescape(re.sub(r"</?code>", "`", text))
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_the_reference_has_every_command_with_every_argument_and_option() -> None:
    page = sections(tool("reference").commands_page())
    commands = app_commands()
    assert set(page) == {*commands, "Exit codes"}
    missing = [
        f"{name}: {spelling}"
        for name, command in commands.items()
        for parameter in command.params
        for spelling in spellings(parameter)
        if spelling not in page[name]
    ]
    assert missing == []
    assert [name for name, command in commands.items() if command.help.split()[0] not in page[name]] == []


def spellings(parameter: Any) -> list[str]:
    """What a reader looks a parameter up by."""
    if parameter.param_type_name == "argument":
        return [parameter.metavar or parameter.name]
    return [*parameter.opts, *parameter.secondary_opts]


def test_the_reference_has_every_exit_code() -> None:
    rows = sections(tool("reference").commands_page())["Exit codes"]
    assert re.findall(r"^\| (\d+) \|", rows, re.MULTILINE) == ["0", "1", "2", "130"]


def fields_of(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Every field of a recipe by its dotted path; read here anew, not by the tool that writes the page."""
    for name, field in model.model_fields.items():
        yield f"{path}{name}"
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for each in inner:
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from fields_of(each, f"{path}{name}.")


def test_the_recipe_reference_has_every_field_with_type_default_and_meaning() -> None:
    page = "\n".join(sections(tool("reference").recipe_page()).values())
    rows = {cells[1].strip("` "): cells for line in page.splitlines() if (cells := line.split("|"))[1:]}
    fields = list(fields_of(Recipe))
    assert len(fields) > 50
    assert [field for field in fields if field not in rows] == []
    assert [field for field in fields if not all(cell.strip() for cell in rows[field][2:5])] == []


def test_the_diagrams_are_those_of_their_script_and_of_files_that_exist() -> None:
    diagrams = tool("diagrams")
    drawn = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "images").glob("*.svg")}
    assert drawn == diagrams.drawings()
    assert [
        step.module for step in (*diagrams.EDIT, *diagrams.QUERY) if not (ROOT / step.module).is_file()
    ] == []


@pytest.mark.parametrize("way", ["EDIT", "QUERY"])
def test_architecture_follows_each_way_in_the_order_of_its_diagram_and_visits_each_module_once(
    way: str,
) -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    heading = {"EDIT": "The way of an edit", "QUERY": "The way of a question"}[way]
    modules = re.findall(r"^\d+\. `([^`]+)`", sections(text)[heading], re.MULTILINE)
    steps = [step.module for step in getattr(tool("diagrams"), way)]
    assert modules == steps
    assert len(set(steps)) == len(steps)


def test_the_layers_are_drawn_in_the_order_that_the_import_contracts_have() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = settings["tool"]["importlinter"]["contracts"][0]
    assert contract["containers"] == ["melo_cli"]
    folders = [
        [name for name in layer.split(" | ") if name == "app" or (ROOT / "melo_cli" / name).is_dir()]
        for layer in contract["layers"]
    ]
    drawn = [names.split(" · ") for names, _, _ in tool("diagrams").LAYERS]
    assert drawn == [*(layer for layer in folders if layer), ["store"]]


def test_every_name_of_the_python_reference_exists() -> None:
    names = re.findall(
        r"^::: (\S+)$", (DOCS / "reference" / "python.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert "melo_cli.load" in names
    assert [name for name in names if not callable(named_object(name)) and not name.endswith(".errors")] == []


def named_object(name: str) -> Any:
    """What a dotted name stands for."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        parent, _, last = name.rpartition(".")
        return getattr(named_object(parent), last)


def test_architecture_has_every_folder_of_both_packages() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    folders = [
        f"`{package}/{path.name}/`"
        for package in ("melo_cli", "store")
        for path in (ROOT / package).iterdir()
        if (path / "__init__.py").is_file()
    ]
    assert len(folders) > 15
    assert [folder for folder in folders if folder not in text] == []


def test_the_format_page_has_every_column_of_every_table() -> None:
    text = (DOCS / "internals" / "format.md").read_text(encoding="utf-8")
    cut = re.split(r"^### (.+)$", text, flags=re.MULTILINE)
    parts = dict(zip(cut[1::2], cut[2::2], strict=True))
    schemas = {
        "edits": edits.schema_of(4, 4),
        "blocks": blocks.SCHEMA,
        "clusters": clusters.SCHEMA,
        "states": states.SCHEMA,
        "keymaps": keymaps.SCHEMA,
    }
    missing = [
        f"{table}.{name}"
        for table, schema in schemas.items()
        for name in schema.names
        if f"`{name}`" not in parts[table]
    ]
    assert missing == []


def test_the_serving_guide_has_every_merge_method_and_no_other() -> None:
    option = sections(tool("reference").commands_page())["melo export"]
    offered = re.search(r"--merge-method <([^>]+)>", option)
    assert offered is not None
    text = (DOCS / "deploy.md").read_text(encoding="utf-8")
    table = text[text.index("| `--merge-method` |") :].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w[\w-]*)`", table, re.MULTILINE)) == sorted(offered[1].split("|"))


def test_the_chat_guide_has_every_slash_command() -> None:
    text = (DOCS / "guides" / "chat.md").read_text(encoding="utf-8")
    assert [each.usage for each in COMMANDS.values() if f"`{each.usage}`" not in text] == []


@pytest.mark.parametrize("page", WRITTEN, ids=named)
def test_files_that_a_page_names_exist(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    paths = [path for path in re.findall(r"`([\w./-]+)`", prose) if path.startswith(OURS)]
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("page", WRITTEN, ids=named)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target.partition("#")[0]).resolve() if not target.startswith("#") else page
        if path.is_relative_to(DOCS) and path.relative_to(DOCS).as_posix() in GENERATED:
            continue
        if not path.exists():
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", WRITTEN, ids=named)
def test_commands_in_examples_exist_with_their_options(page: Path) -> None:
    reference = tool("reference")
    names = set(reference.command_names())
    wrong = []
    for line in commands_in(page.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)
        command = next((name for n in (3, 2) if (name := " ".join(words[:n])) in names), None)
        if command is None and not (len(words) > 1 and words[1].startswith("-")):
            wrong.append(line)
            continue
        options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        known = reference.options_of(command or "melo")
        wrong += [f"{line}: {option}" for option in sorted(options - known)]
    assert wrong == []


def commands_in(text: str) -> Iterator[str]:
    """The commands of code blocks that run melo; continued lines as one."""
    for _, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.removeprefix("$ ").split(" && "):
                if re.match(r"melo( |$)", command):
                    yield command


def test_workflows_run_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        run = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
        assert run
        assert {line.removeprefix("make ") for line in run} <= targets


def test_issue_forms_have_what_github_requires() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name == "config.yml":
            assert form == {"blank_issues_enabled": False}
            continue
        assert {"name", "description", "body"} <= set(form)
        assert len({each["id"] for each in form["body"]}) == len(form["body"])
