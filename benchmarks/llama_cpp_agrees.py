"""Whether llama-server answers as the project does: how many prompts agree, as Markdown.

    python benchmarks/llama_cpp_agrees.py PROJECT EXPORT http://127.0.0.1:8080 PROMPTS...

EXPORT is a folder of `melo export --format gguf`; llama-server runs by its command at the address. Each file
holds a prompt a line, as text or as `{"prompt": "..."}`. A prompt goes to the endpoint that `serve.json` has,
with the adapter that the exported router names; the project answers it as `melo query` does.
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from pathlib import Path
from typing import Any

from export_routes import prompts_of

from melo_cli.commands._project_choice import choose_project
from melo_cli.exporting.prompt_router import router_of_export
from melo_cli.runtime.loading import open_project
from melo_cli.runtime.querying import query
from melo_cli.scope.core.rules import Route

_NEW_TOKENS = 32


def main() -> None:
    """Ask both, compare, and print."""
    options = _options()
    opened = open_project(choose_project(options.project).path)
    serving = json.loads((options.export / "serve.json").read_text(encoding="utf-8"))
    router = router_of_export(options.export)
    print("| prompts | n | to an adapter | same route | same answer |")  # noqa: T201
    print("| --- | --- | --- | --- | --- |")  # noqa: T201
    different: list[str] = []
    for path in options.prompts:
        prompts = prompts_of(path)
        answers = query(opened, prompts, _NEW_TOKENS)
        routes = [_name(answer.route) for answer in answers]
        names = [_name(each.route) for each in router.route(prompts)]
        theirs = [_served(options.server, serving, *each) for each in zip(prompts, names, strict=True)]
        ours = [answer.edited.strip() for answer in answers]
        pairs = list(zip(prompts, ours, theirs, strict=True))
        different += [f"- {prompt!r}: {one!r}, {other!r}" for prompt, one, other in pairs if one != other]
        same = sum(one == other for _, one, other in pairs)
        routed = sum(name != "base" for name in names)
        agree = sum(one == other for one, other in zip(routes, names, strict=True))
        print(f"| {path.name} | {len(prompts)} | {routed} | {agree} | {same} |")  # noqa: T201
    print("\n".join(different))  # noqa: T201


def _name(route: Route) -> str:
    return (route.fired.block if route.fired else None) or "base"


def _served(address: str, serving: dict[str, Any], prompt: str, route: str) -> str:
    chat = serving["endpoint"].endswith("chat/completions")
    asked = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    body = asked | serving["engines"]["llama-server"]["routes"][route]
    body |= {"temperature": 0, "max_tokens": _NEW_TOKENS}
    request = urllib.request.Request(
        address.rstrip("/") + serving["endpoint"],
        data=json.dumps(body).encode("utf-8"),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        choice = json.load(answer)["choices"][0]
    text: str = choice["message"]["content"] if chat else choice["text"]
    return text.strip()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", help="a folder, or a name under .melo/")
    parser.add_argument("export", type=Path, help="a folder of melo export --format gguf")
    parser.add_argument("server", help="the address of llama-server")
    parser.add_argument("prompts", type=Path, nargs="+", help="a file with a prompt a line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
