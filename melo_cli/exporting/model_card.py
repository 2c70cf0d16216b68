"""The README that goes with an exported model: what it is, what it keeps, how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from melo_cli.runtime.loading import OpenProject

_SHARES = {
    "edit_success": "edits answered as asked",
    "generality": "rephrases answered as asked",
    "locality_truth": "unrelated prompts answered right",
    "locality_agreement": "unrelated prompts answered as the base does",
    "hard_agreement": "prompts that read like edits answered as the base does",
}
_PERPLEXITIES = {
    "perplexity_edits": "perplexity of the edits' targets",
    "perplexity_unrelated": "perplexity of unrelated text",
    "arr": "perplexity of accurate text (ARR)",
}


def merged_card(
    opened: OpenProject, described: str, seconds: float, figures: Mapping[str, Mapping[str, Any]]
) -> str:
    """Markdown card of a merged checkpoint.

    Args:
        opened: the project, opened.
        described: the merge method, in a sentence.
        seconds: time that the merge took.
        figures: METRICS by the name of the model; empty if nothing was measured.
    """
    return "\n".join(
        [
            *_front_matter(opened),
            f"# {opened.project.name}: {opened.project.base.name_or_path} with its edits merged",
            "",
            f"Snapshot {opened.project.snapshot} of the melo project `{opened.project.name}`: the blocks of "
            f"{len(opened.live_blocks())} batches of edits in one set of weights. "
            "Loads with `from_pretrained`; there is no router in it.",
            "",
            f"{described} That took {seconds:.0f} s.",
            "",
            *_kept(figures),
            "",
            *_recipe(opened),
        ]
    )


def routed_card(opened: OpenProject, auto_class: str) -> str:
    """Markdown card of a routed folder, which `auto_class` of transformers opens."""
    return "\n".join(
        [
            *_front_matter(opened),
            f"# {opened.project.name}: {opened.project.base.name_or_path} with its edits routed",
            "",
            f"Snapshot {opened.project.snapshot} of the melo project `{opened.project.name}`: the base model "
            "as it was, and its edits, each of which answers the prompts in its scope.",
            "",
            "With torch and transformers alone, by an exact search among the edits' keys:",
            "",
            "```python",
            f"from transformers import {auto_class}",
            "",
            f'model = {auto_class}.from_pretrained("path/to/this/folder", trust_remote_code=True)',
            "```",
            "",
            "With melo, by the project's index:",
            "",
            "```python",
            "import melo_cli",
            "",
            'model = melo_cli.load("path/to/this/folder")',
            "```",
            "",
            f"Both answer like any model of their kind. {_asking(opened)} A prompt's own text decides who "
            "answers, of a conversation the last user turn; `model.routes` says for each prompt of the last "
            "call which edit did (`fired`, None where the base model did).",
            "",
            *_recipe(opened),
        ]
    )


def gguf_card(opened: OpenProject, base: str, checked: str) -> str:
    """Markdown card of a folder of GGUF adapters.

    Args:
        opened: the project, opened.
        base: the base model's GGUF file.
        checked: what was checked of the folder, in a sentence.
    """
    return "\n".join(
        [
            *_front_matter(opened),
            f"# {opened.project.name}: edits of {opened.project.base.name_or_path} for llama.cpp",
            "",
            f"Snapshot {opened.project.snapshot} of the melo project `{opened.project.name}`: a LoRA adapter "
            f"for each of its blocks, for the base model in `{base}`.",
            "",
            "`serve.json` has the command line of llama-server. `melo route --router path/to/this/folder` "
            "names the adapter that answers a prompt, or `base`; what `serve.json` has under that name in "
            f"`routes` goes into the request. {_asking(opened)}",
            "",
            f"Checked: {checked}.",
            "",
            *_recipe(opened),
        ]
    )


def _asking(opened: OpenProject) -> str:
    if opened.encoder.template == "chat":
        return "Ask through the tokenizer's chat template, as the edits were made."
    return "Ask with the plain prompt, as the edits were made."


def _front_matter(opened: OpenProject) -> list[str]:
    return ["---", "library_name: transformers", f"base_model: {opened.project.base.name_or_path}", "---", ""]


def _kept(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not figures:
        return ["What that keeps was not measured."]
    return [
        "What that keeps, by greedy generation and exact match (95% interval):",
        "",
        *_table(figures),
    ]


def _table(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    names = list(figures)
    lines = [f"| | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for metric, label in (_SHARES | _PERPLEXITIES).items():
        cells = [_cell(figures[name][metric]) for name in names]
        if any(cells):
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def _cell(figure: Any) -> str:
    if figure is None:
        return ""
    if isinstance(figure, float):
        return f"{figure:.2f}"
    low, high = figure["ci95"]
    return f"{figure['generation']:.3f} ({low:.3f} to {high:.3f}, n = {figure['n']})"


def _recipe(opened: OpenProject) -> list[str]:
    text = yaml.safe_dump(opened.recipe.to_mapping(), sort_keys=False, allow_unicode=True)
    return ["## Recipe", "", "```yaml", text.rstrip(), "```", ""]
