"""Writes the reference pages: every command from the app, every field of a recipe from its schema.

Markdown comes out; nothing here needs mkdocs, so that the tests can check the pages without it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import typer
from pydantic import BaseModel

from melo_cli import app
from melo_cli.recipe.schema import Recipe

EXIT_CODES = {
    0: "done",
    1: "the command ran and its result is not good: an edit failed, a merge keeps too little, "
    "`melo verify` found damage; or melo has a bug",
    2: "bad input: a wrong option, or a recipe, data set, model or project that cannot be used",
    130: "interrupted",
}


def command_names() -> list[str]:
    """Every command as it is typed, such as `melo recipes copy`."""
    return [" ".join(path) for path, _, _ in _commands()]


def options_of(command: str) -> set[str]:
    """The option names of a command, long and short.

    Args:
        command: as `command_names` lists it.
    """
    known = {"-h", "--help", "--debug"}
    for path, node, _ in _commands():
        if " ".join(path) == command:
            return known | {name for each in node.params for name in _spellings(each)}
    raise KeyError(command)


def commands_page() -> str:
    """The page `reference/commands.md`."""
    lines = [
        "# Commands",
        "",
        "This page is generated from the app. `melo COMMAND --help` prints the same at a terminal.",
        "",
        "Results go to stdout; messages and progress go to stderr. With `--json`, stdout holds one JSON "
        "document.",
        "",
        "## Exit codes",
        "",
        "| Code | Meaning |",
        "| --- | --- |",
        *(f"| {code} | {_text(meaning)} |" for code, meaning in EXIT_CODES.items()),
        "",
        "An error is one line on stderr: what is wrong, where, and what to do about it. `--debug` adds the "
        "traceback.",
        "",
    ]
    for path, node, context in _commands():
        lines += [f"## {' '.join(path)}", "", *_paragraphs(node.help or ""), *_usage(node, context)]
        lines += _parameters(node, context, "argument", "Argument")
        lines += _parameters(node, context, "option", "Option")
    return "\n".join(lines)


def recipe_fields() -> list[str]:
    """Every field of a recipe by its dotted path, sections too."""
    return [path for section in _sections() for path, _, _ in section.rows]


def recipe_page() -> str:
    """The page `reference/recipe.md`."""
    lines = [
        "# Recipe",
        "",
        "This page is generated from the schema. A recipe is a YAML file; only `name`, `task` and "
        "`model.name_or_path` are required. An unknown key is an error that names the nearest known one. "
        "`--set section.field=value` changes a value on the command line.",
        "",
    ]
    for section in _sections():
        lines += [f"## {section.title}", "", *_paragraphs(section.about)]
        lines += ["| Field | Type | Default | Meaning |", "| --- | --- | --- | --- |", *section.table(), ""]
        if section.takes_more:
            lines += ["Every other key is an argument of the class.", ""]
    return "\n".join(lines)


def _commands() -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Path, command and context of every command, the app itself first."""
    root = typer.main.get_command(app.build_app())
    yield from _below(root, ("melo",), None)


def _below(node: Any, path: tuple[str, ...], parent: Any) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    context = node.context_class(node, info_name=path[-1], parent=parent)
    yield path, node, context
    for name in getattr(node, "commands", {}):
        yield from _below(node.commands[name], (*path, name), context)


def _spellings(parameter: Any) -> Iterable[str]:
    return [name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("-")]


def _usage(node: Any, context: Any) -> list[str]:
    return ["```text", node.get_usage(context).removeprefix("Usage: "), "```", ""]


def _parameters(node: Any, context: Any, kind: str, heading: str) -> list[str]:
    rows = []
    for parameter in node.params:
        record = parameter.get_help_record(context)
        if parameter.param_type_name == kind and record is not None:
            name, help_text = record
            rows.append(f"| {_code(name)} | {_text(_with_note(help_text))} |")
    return [f"| {heading} | Meaning |", "| --- | --- |", *rows, ""] if rows else []


def _with_note(help_text: str) -> str:
    """The remark in brackets behind a help text, such as a default, as a sentence of its own."""
    match = re.fullmatch(r"(.*?)\s\s\[(.+)\]", help_text, re.DOTALL)
    if match is None:
        return help_text
    return " ".join([match[1], *(_remark(remark.strip()) for remark in match[2].split(";"))])


def _remark(text: str) -> str:
    """A remark of the help as a sentence: `x>=1` is "At least 1."."""
    least, both = re.fullmatch(r"x>=(\S+)", text), re.fullmatch(r"(\S+)<=x<=(\S+)", text)
    if least is not None:
        return f"At least {least[1]}."
    if both is not None:
        return f"From {both[1]} to {both[2]}."
    return f"{text[0].upper()}{text[1:]}."


class _Section:
    """One model of the schema with the dotted path under which a recipe has it."""

    def __init__(self, path: str, model: type[BaseModel], schema: Mapping[str, Any]) -> None:
        self.path = path
        self.title = path or "The whole recipe"
        documented = inspect.cleandoc(model.__doc__ or "")
        self.about, _, attributes = documented.partition("Attributes:")
        meanings = _attribute_sentences(attributes)
        self.takes_more = (
            bool(schema.get("additionalProperties", False)) or schema.get("additionalProperties") == {}
        )
        required = schema.get("required", [])
        self.rows = [
            (
                f"{path}.{name}" if path else name,
                {**field, "required": name in required},
                meanings.get(name, ""),
            )
            for name, field in schema["properties"].items()
        ]

    def table(self) -> Iterator[str]:
        for path, field, meaning in self.rows:
            default = "required" if field["required"] else _default(field)
            yield f"| {_code(path)} | {_type(field, path)} | {default} | {_text(_sentence(meaning))} |"


def _sections() -> list[_Section]:
    """The recipe and, behind it, its sections in the order of the schema."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    models = {model.__name__: model for model in _models(Recipe)}
    sections = [_Section("", Recipe, schema)]
    todo = [(name, field) for name, field in schema["properties"].items()]
    while todo:
        path, field = todo.pop(0)
        name = _reference(field)
        if name is None:
            continue
        sections.append(_Section(path, models[name], definitions[name]))
        inner = definitions[name]["properties"].items()
        todo = [(f"{path}.{part}", each) for part, each in inner] + todo
    return sections


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """All models that the fields of one lead to."""
    module = inspect.getmodule(model)
    for _, each in inspect.getmembers(module, inspect.isclass):
        if issubclass(each, BaseModel):
            yield each


def _reference(field: Mapping[str, Any]) -> str | None:
    """The name of the section that a field holds, if it holds one."""
    for part in (field, *field.get("anyOf", []), *field.get("allOf", [])):
        if "$ref" in part:
            return str(part["$ref"].rpartition("/")[2])
    return None


def _attribute_sentences(text: str) -> dict[str, str]:
    """The sentences of a docstring's `Attributes:` by name."""
    sentences: dict[str, str] = {}
    for line in text.splitlines():
        start = re.match(r" {4}(\w+(?:, \w+)*): (.*)", line)
        if start:
            names = start[1].split(", ")
            sentences.update(dict.fromkeys(names, start[2].strip()))
        elif line.strip():
            for name in names:
                sentences[name] += f" {line.strip()}"
    return sentences


def _type(field: Mapping[str, Any], path: str) -> str:
    section = _reference(field)
    if section is not None:
        link = f"[section](#{path.replace('.', '')})"
        return f"{link} or null" if "anyOf" in field else link
    if "anyOf" in field:
        return " or ".join(_type(part, path) for part in field["anyOf"])
    if "const" in field:
        return _code(str(field["const"]))
    if "enum" in field:
        return ", ".join(_code(str(value)) for value in field["enum"])
    kind = field.get("type", "any")
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    if kind == "array":
        return f"list of {_type(field['items'], path)}"
    return names.get(kind, kind) + _bounds(field)


def _bounds(field: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f", {sign} {field[name]}" for name, sign in signs.items() if name in field)


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    if isinstance(value, dict) and _reference(field) is not None and "name" not in value:
        return "see section"
    return _code(value if isinstance(value, str) else json.dumps(value))


def _sentence(text: str) -> str:
    """With a capital at the start, unless that is code, a full stop at the end, and YAML's null for None."""
    text = re.sub(r"\bNone\b", "`null`", text.strip())
    if not text:
        return text
    start = text if text[0] in '`"' else text[0].upper() + text[1:]
    return start if start[-1] in ".:" else f"{start}."


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for part in re.split(r"\n\s*\n", text.strip()):
        lines += [_text(" ".join(part.split())), ""]
    return lines if text.strip() else []


def _text(text: str) -> str:
    """Plain text with code in backticks, as Markdown in which nothing else has a meaning."""
    parts = text.split("`")
    return "".join(_code(part) if at % 2 else _escaped(part) for at, part in enumerate(parts))


def _code(text: str) -> str:
    return f"<code>{_escaped(text)}</code>"


def _escaped(text: str) -> str:
    return "".join(f"&#{ord(letter)};" if letter in "&<>|{}[]*_`\\" else letter for letter in text)
