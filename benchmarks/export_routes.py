"""Whether an exported router takes the routes of its project: how many prompts of a file agree, as Markdown.

    python benchmarks/export_routes.py PROJECT EXPORT PROMPTS.txt --most 10000

EXPORT is a folder of `melo export --format peft` or `--format routed`; the file holds a prompt a line, as
text or as `{"prompt": "..."}`. Prompts that differ are listed with both routes. Exits 1 where one does.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from melo_cli.commands._project_choice import choose_project
from melo_cli.runtime.loading import open_project
from melo_cli.scope.core.exported import open_router
from melo_cli.scope.core.rules import Route


def main() -> int:
    """Ask both, compare, and print."""
    options = _options()
    prompts = prompts_of(options.prompts)[: options.most]
    opened = open_project(choose_project(options.project).path, base=options.base)
    base = opened.routed.base
    exported = open_router(options.export / "router", base.model, base.tokenizer)
    project, export = opened.routed.router.routes(prompts), exported.routes(prompts)
    different = [
        (prompt, ours, theirs)
        for prompt, ours, theirs in zip(prompts, project, export, strict=True)
        if _name(ours) != _name(theirs)
    ]
    print("| prompts | fired in the project | routes that agree | largest difference in distance |")  # noqa: T201
    print("| --- | --- | --- | --- |")  # noqa: T201
    fired = sum(route.fired is not None for route in project)
    agree = len(prompts) - len(different)
    print(f"| {len(prompts)} | {fired} | {agree} | {_largest_difference(project, export):.1e} |")  # noqa: T201
    for prompt, ours, theirs in different:
        print(f"- {prompt!r}: project {_described(ours)}, export {_described(theirs)}")  # noqa: T201
    return int(bool(different))


def _name(route: Route) -> tuple[str, str | None] | None:
    return None if route.fired is None else (route.fired.edit_id, route.fired.block)


def _described(route: Route) -> str:
    nearest = route.nearest
    if nearest is None:
        return "base"
    who = route.fired.edit_id if route.fired is not None else "base"
    return f"{who} (nearest {nearest.edit_id}, distance {nearest.distance:.6f}, {nearest.probability})"


def _largest_difference(project: Sequence[Route], export: Sequence[Route]) -> float:
    """Of prompts that both take to one edit."""
    pairs = zip(project, export, strict=True)
    held = [(ours.held, theirs.held) for ours, theirs in pairs]
    return max((abs(one.distance - other.distance) for one, other in held if one and other), default=0.0)


def prompts_of(path: Path) -> list[str]:
    """The prompts of a file: a text a line, or a row with a field `prompt`."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [json.loads(line)["prompt"] if line.startswith("{") else line for line in lines]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", help="a folder, or a name under .melo/")
    parser.add_argument("export", type=Path, help="a folder of melo export")
    parser.add_argument("prompts", type=Path, help="a file with a prompt a line")
    parser.add_argument("--base", help="the base model, if it has moved")
    parser.add_argument("--most", type=int, help="only the first so many prompts")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
