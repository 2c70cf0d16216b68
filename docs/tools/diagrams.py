"""Draws the diagrams of the documentation: `python docs/tools/diagrams.py` writes `docs/images/*.svg`.

A diagram is one column of boxes, narrow enough to be read on a phone. Each box is a module and what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

IMAGES = Path(__file__).resolve().parents[1] / "images"

_WIDTH = 460
_BOX, _GAP = 50, 18
_LEFT, _RIGHT = 34, 10
_FONT = "font-family='system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif'"
_MONO = "font-family='ui-monospace, SFMono-Regular, Menlo, Consolas, monospace'"
_COLOURS = {
    "command line": ("#e3f2fd", "#1565c0"),
    "work": ("#e8f5e9", "#2e7d32"),
    "model": ("#fff3e0", "#e65100"),
    "store": ("#f3e5f5", "#6a1b9a"),
}


class Step(NamedTuple):
    """One box: a module, what it does in a few words, and the layer that colours it."""

    module: str
    does: str
    layer: str


class Loop(NamedTuple):
    """A bracket beside some boxes, from the first to the last of them."""

    first: int
    last: int
    label: str


EDIT = (
    Step("melo_cli/app.py", "reads the command line", "command line"),
    Step("melo_cli/commands/edit.py", "names project and recipe", "command line"),
    Step("melo_cli/recipe/load.py", "reads and checks the recipe", "work"),
    Step("melo_cli/editing/run.py", "plans the run", "work"),
    Step("melo_cli/datasets/loading.py", "reads the rows as edit requests", "work"),
    Step("melo_cli/editing/resource_check.py", "refuses a run that cannot fit", "work"),
    Step("melo_cli/editing/project_setup.py", "opens or creates the project", "work"),
    Step("melo_cli/models/base_model.py", "loads the base model", "model"),
    Step("melo_cli/calibration/run.py", "learns scope, once a base model", "work"),
    Step("melo_cli/runtime/loading.py", "puts the router over the model", "model"),
    Step("melo_cli/editing/executor.py", "says where groups are trained", "work"),
    Step("melo_cli/editing/groups.py", "takes one group of batches", "work"),
    Step("melo_cli/runtime/inference.py", "asks what the model answers now", "model"),
    Step("melo_cli/scope/core/router.py", "makes key and token vectors", "model"),
    Step("melo_cli/paraphrase/paraphraser.py", "puts the prompt in other words", "work"),
    Step("melo_cli/editing/training.py", "trains a block a batch", "work"),
    Step("melo_cli/editing/solving.py", "asks for real, retries failures", "work"),
    Step("melo_cli/editing/editor.py", "makes rows of what took", "work"),
    Step("store/writer.py", "stages the edits and commits", "store"),
    Step("store/commits/write.py", "writes files, renames manifest", "store"),
    Step("melo_cli/ui/edits.py", "shows what was done", "command line"),
)
EDIT_LOOP = Loop(11, 19, "for each group of batches")

QUERY = (
    Step("melo_cli/app.py", "reads the command line", "command line"),
    Step("melo_cli/commands/query.py", "chooses the project", "command line"),
    Step("melo_cli/runtime/loading.py", "opens the project on its model", "model"),
    Step("store/project.py", "maps the newest snapshot", "store"),
    Step("melo_cli/models/base_model.py", "loads the base model", "model"),
    Step("melo_cli/runtime/querying.py", "encodes prompt or conversation", "work"),
    Step("melo_cli/scope/core/router.py", "finds the route, in six steps:", "model"),
    Step("melo_cli/scope/core/words.py", "sentences that may be the question", "model"),
    Step("melo_cli/scope/core/reader.py", "reads them up to the key layer", "model"),
    Step("store/index/neuron_index.py", "finds the 8 nearest neurons", "store"),
    Step("melo_cli/scope/core/model.py", "gives each a probability", "model"),
    Step("melo_cli/scope/core/rules.py", "fires the best from the threshold", "model"),
    Step("melo_cli/scope/core/second_reading.py", "if none: once more, as meant", "model"),
    Step("melo_cli/runtime/block_cache.py", "fetches the block that fired", "model"),
    Step("melo_cli/tuner/layer.py", "adds the block, row by row", "model"),
    Step("melo_cli/runtime/greedy.py", "generates both answers", "model"),
    Step("melo_cli/scope/explanation.py", "says what spoke against", "work"),
    Step("melo_cli/ui/answers.py", "shows route and answers", "command line"),
)
QUERY_LOOP = Loop(7, 12, "the route")

LAYERS = (
    ("app", "the command line, errors, exit codes", "command line"),
    ("commands", "options in, one call into the work", "command line"),
    ("ui", "tables, blocks of lines, progress", "command line"),
    ("serving", "the HTTP server and its engines", "work"),
    ("bench · exporting · chat · doctor", "bench, artefacts, talk, self-test", "work"),
    ("distributed", "the same work on Ray's workers", "work"),
    ("evaluation", "what a project keeps", "work"),
    ("editing", "blocks are trained here", "work"),
    ("calibration", "the scope model is learned here", "work"),
    ("runtime · paraphrase", "a project that answers", "model"),
    ("scope · tuner", "routes, and blocks in the model", "model"),
    ("models", "the base model and its tokens", "model"),
    ("datasets", "files and rows to edit requests", "work"),
    ("recipe", "the settings, checked", "work"),
    ("store", "the project on disk", "store"),
)


def flow(title: str, steps: Sequence[Step], loop: Loop) -> str:
    """A column of boxes with arrows, numbered as in the text beside it."""
    boxes = []
    for at, step in enumerate(steps):
        top = _top(at)
        boxes.append(_box(top, f"{at + 1}. {step.does}", step.module, step.layer))
        if at + 1 < len(steps):
            boxes.append(_arrow(top + _BOX))
    return _svg(title, _top(len(steps)), [*boxes, _bracket(loop)])


def layers() -> str:
    """The layers of the code, each on those that it may import."""
    boxes = []
    for at, (names, description, layer) in enumerate(LAYERS):
        boxes.append(_box(_top(at), names, description, layer, mono_first=True))
        if at + 1 < len(LAYERS):
            boxes.append(_arrow(_top(at) + _BOX))
    return _svg("The layers, from top to bottom", _top(len(LAYERS)), boxes)


def drawings() -> dict[str, str]:
    """Every diagram by its file name."""
    return {
        "edit.svg": flow("The way of an edit", EDIT, EDIT_LOOP),
        "query.svg": flow("The way of a question", QUERY, QUERY_LOOP),
        "layers.svg": layers(),
    }


def _top(at: int) -> int:
    return 78 + at * (_BOX + _GAP)


def _box(top: int, first: str, second: str, layer: str, *, mono_first: bool = False) -> str:
    fill, edge = _COLOURS[layer]
    width = _WIDTH - _LEFT - _RIGHT
    fonts = (_MONO, _FONT) if mono_first else (_FONT, _MONO)
    return (
        f"<rect x='{_LEFT}' y='{top}' width='{width}' height='{_BOX}' rx='7' fill='{fill}' stroke='{edge}'/>"
        f"<text x='{_LEFT + 12}' y='{top + 21}' {fonts[0]} font-size='16' font-weight='600' fill='#111'>"
        f"{escape(first)}</text>"
        f"<text x='{_LEFT + 12}' y='{top + 41}' {fonts[1]} font-size='14' fill='#333'>{escape(second)}</text>"
    )


def _arrow(top: int) -> str:
    middle = _WIDTH // 2
    return (
        f"<path d='M{middle} {top + 1}V{top + _GAP - 6}' stroke='#555' stroke-width='1.5'/>"
        f"<path d='M{middle - 5} {top + _GAP - 7}h10l-5 6z' fill='#555'/>"
    )


def _bracket(loop: Loop) -> str:
    start, end = _top(loop.first), _top(loop.last) + _BOX
    middle = (start + end) // 2
    return (
        f"<path d='M{_LEFT - 4} {start}h-8V{end}h8' fill='none' stroke='#555' stroke-width='1.5'/>"
        f"<text transform='translate(15 {middle}) rotate(-90)' text-anchor='middle' {_FONT} font-size='14' "
        f"fill='#333'>{escape(loop.label)}</text>"
    )


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    legend = []
    left = _LEFT
    for name, (fill, edge) in _COLOURS.items():
        legend.append(
            f"<rect x='{left}' y='46' width='14' height='14' rx='3' fill='{fill}' stroke='{edge}'/>"
            f"<text x='{left + 20}' y='58' {_FONT} font-size='14' fill='#333'>{name}</text>"
        )
        left += 44 + 8 * len(name)
    body = "\n".join([*legend, *parts])
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height}' width='{_WIDTH}' "
        f"height='{height}' role='img' aria-label='{escape(title)}'>\n"
        f"<rect width='{_WIDTH}' height='{height}' fill='#ffffff'/>\n"
        f"<text x='{_LEFT}' y='30' {_FONT} font-size='18' font-weight='700' fill='#111'>"
        f"{escape(title)}</text>\n"
        f"{body}\n</svg>\n"
    )


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    for name, drawing in drawings().items():
        (IMAGES / name).write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main()
