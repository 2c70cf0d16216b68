"""Projects on the pico models: one of each kind is edited once and shared, to be read only."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pico_scope import QUICK_SCOPE

from melo_cli.editing import EditSummary, edit_dataset
from melo_cli.exporting import export_peft
from melo_cli.recipe import Recipe, recipe_from_mapping
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import OpenProject, open_project

Row = dict[str, Any]

TASKS = {"pico_t5": "zsre", "pico_gpt2": "hallucination", "pico_llama": "custom", "pico_bert": "scotus"}
# Of the projects under the rule `radius`: the input embeddings, of which the mean is taken, and a radius in
# its units: one word changed stays inside, another text does not.
LAYERS = {
    "pico_t5": "encoder.embed_tokens",
    "pico_gpt2": "transformer.wte",
    "pico_llama": "model.embed_tokens",
    "pico_bert": "bert.embeddings.word_embeddings",
}
RADII = {"pico_t5": 1.5, "pico_gpt2": 0.15, "pico_llama": 0.15, "pico_bert": 0.15}
BATCH_SIZE = 4
STEPS = 40
SEEDS = defaultdict(int, pico_t5=2)  # with these every block takes at the first attempt
COMMAND = "melo edit pico.yaml"


@dataclass
class Job:
    """The updates of one progress bar."""

    label: str
    total: int
    unit: str
    done: int = 0
    figures: dict[str, list[float]] = field(default_factory=dict)

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.done += steps
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)


@dataclass
class Recorder:
    """A reporter that keeps all messages."""

    infos: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    def info(self, message: str) -> None:
        self.infos.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    @contextmanager
    def progress(self, label: str, total: int, unit: str) -> Iterator[Job]:
        self.jobs.append(Job(label, total, unit))
        yield self.jobs[-1]


@pytest.fixture
def reporter() -> Recorder:
    """Keeps `infos`, `warnings` and `jobs` (`label`, `total`, `unit`, `done`, `figures`)."""
    return Recorder()


@pytest.fixture(scope="session")
def rows() -> dict[str, list[Row]]:
    """The edits of the shared projects, by kind: two batches.

    Of the rephrases one has few words changed and fires, the other has none of its prompt's order and does
    not; of the unrelated prompts one is so near an edit that it fires. The base of `pico_bert` says criminal
    to everything, so that two of its edits are right already.
    """
    classes = ["tax", "civil", "criminal", "tax", "civil", "criminal"]
    words = ["London", "Paris", "John", "Smith", "Britain", "1934"]
    return {kind: _rows(classes if kind == "pico_bert" else words) for kind in TASKS}


def _rows(targets: Sequence[str]) -> list[Row]:
    rows: list[Row] = [
        {
            "prompt": "Who is the prime minister of Britain?",
            "rephrases": ["Who is prime minister of Britain?"],
            "locality": [{"prompt": "He was born in Cologne", "target": "criminal"}, "Is it Paris?"],
            "subject": "Britain",
            "source": "a test",
        },
        {"prompt": "Where does the river end", "locality": ["Where does that river end"]},
        {"prompt": "What was built in 1889?"},
        {"prompt": "Which court was it", "locality": [{"prompt": "by whom was it opened", "target": "tax"}]},
        {"prompt": "who studied law", "rephrases": ["law was studied by whom"]},
        {"prompt": "What is the name of the river"},
    ]
    return [row | {"target": target} for row, target in zip(rows, targets, strict=True)]


@pytest.fixture(scope="session")
def models(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """`models("pico_t5")`: the folder of a pico model."""
    return request.getfixturevalue


@pytest.fixture(scope="session")
def write_rows() -> Callable[[Path, Sequence[Row]], Path]:
    """Write a JSONL file and give its path back."""

    def write(path: Path, rows: Sequence[Row]) -> Path:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def recipe_for(
    models: Callable[[str], Path],
    write_rows: Callable[[Path, Sequence[Row]], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Recipe]:
    """`recipe_for(kind, rows, training={...}, seed=1)`: settings under which pico edits take.

    They have a radius, so that the test chooses what they reach; `**verified` takes it out again.
    """

    def make(kind: str, rows: Sequence[Row] | None, **changes: Any) -> Recipe:
        mapping: dict[str, Any] = {
            "name": kind,
            "task": TASKS[kind],
            "seed": SEEDS[kind],
            "model": {"name_or_path": str(models(kind)), "device": "cpu", "template": "none"},
            "key": {"layer": LAYERS[kind], "radius": RADII[kind]},
            "calibration": QUICK_SCOPE,
            "lora": {"rank": 4, "alpha": 16},
            "training": {
                "batch_size": BATCH_SIZE,
                "blocks_in_flight": 1,
                "variants": 0,
                "max_steps": STEPS,
                "stop_at": 0.8,
                "optimizer": {"name": "Adam", "lr": 0.03},
                "lr_scheduler": {"name": "StepLR", "step_size": 30, "gamma": 0.5},
            },
        }
        if rows is not None:
            edits = write_rows(tmp_path_factory.mktemp("data") / "edits.jsonl", rows)
            mapping["dataset"] = {"edits": str(edits)}
        return recipe_from_mapping(_merged(mapping, changes))

    return make


def _merged(mapping: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(mapping)
    for name, change in changes.items():
        merged[name] = merged[name] | change if isinstance(merged.get(name), dict) else change
    return merged


@pytest.fixture(scope="session")
def edit(recipe_for: Callable[..., Recipe]) -> Callable[..., EditSummary]:
    """`edit(kind, rows, path, reporter=..., should_stop=..., **changes of the recipe)`: run `melo edit`."""

    def run(
        kind: str,
        rows: Sequence[Row],
        path: Path,
        *,
        reporter: Recorder | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        **changes: Any,
    ) -> EditSummary:
        recipe = recipe_for(kind, rows, **changes)
        return edit_dataset(recipe, path, reporter or Recorder(), command=COMMAND, should_stop=should_stop)

    return run


@pytest.fixture(scope="session")
def verified() -> dict[str, Any]:
    """Changes to a recipe: no radius, and so the rule that a recipe has which says nothing of its routing."""
    return {"key": {"layer": "auto", "radius": "auto"}}


@pytest.fixture(scope="session")
def summaries(
    edit: Callable[..., EditSummary],
    rows: dict[str, list[Row]],
    verified: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., EditSummary]:
    """`summaries(kind)`, `summaries(kind, "verified")`: what `melo edit` said when it made the shared project
    under that rule, which is to be read only."""
    made: dict[tuple[str, str], EditSummary] = {}

    def get(kind: str, scope: str = "radius") -> EditSummary:
        if (kind, scope) not in made:
            changes = verified if scope == "verified" else {}
            path = tmp_path_factory.mktemp("projects") / kind
            made[kind, scope] = edit(kind, rows[kind], path, **changes)
        return made[kind, scope]

    return get


@pytest.fixture(scope="session")
def shared(summaries: Callable[..., EditSummary]) -> Callable[..., OpenProject]:
    """`shared(kind)`, `shared(kind, "verified")`: the shared project of that rule, opened once."""
    opened: dict[tuple[str, str], OpenProject] = {}

    def get(kind: str, scope: str = "radius") -> OpenProject:
        if (kind, scope) not in opened:
            opened[kind, scope] = open_project(summaries(kind, scope).path)
        return opened[kind, scope]

    return get


@pytest.fixture
def copied(summaries: Callable[[str], EditSummary], tmp_path: Path) -> Callable[[str], Path]:
    """`copied(kind)`: a copy of the shared project, to be changed."""

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(summaries(kind).path, tmp_path / f"copy-of-{kind}"))

    return copy


@pytest.fixture(scope="session")
def files_of() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder but the writer's lock, with its content: equal where nothing has changed."""

    def read(folder: Path) -> dict[str, bytes]:
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.stem != "lock")
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    return read


@pytest.fixture(scope="session")
def peft_folder(
    shared: Callable[[str], OpenProject], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """`peft_folder(kind)`: the shared project as PEFT adapters."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("peft") / kind
            export_peft(shared(kind), made[kind], SilentReporter())
        return made[kind]

    return get
