"""Projects on pico models that are served in tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from adapter_server import AdapterServer
from served import FACTS, SUBJECTS, InFront, Running, running_app, serving

from melo_cli.editing import edit_dataset
from melo_cli.recipe import recipe_from_mapping
from melo_cli.reporter import SilentReporter
from melo_cli.serving.run import ServeSettings, Upstream


@pytest.fixture(scope="session")
def make_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_project(model, template="chat")`: a project with `FACTS`, each in a block of its own."""

    def make(model: Path, *, task: str = "custom", template: str = "none") -> Path:
        folder = tmp_path_factory.mktemp("served")
        edits = folder / "edits.jsonl"
        rows = [
            {"prompt": prompt, "target": target, "subject": SUBJECTS[prompt]}
            for prompt, target in FACTS.items()
        ]
        edits.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        recipe = recipe_from_mapping(
            {
                "name": "facts",
                "task": task,
                "model": {"name_or_path": str(model), "device": "cpu", "template": template},
                "dataset": {"edits": str(edits), "format": "melo"},
                "key": {"radius": 0.01},
                "routing": {"scope": "radius"},
                "lora": {"rank": 4, "alpha": 8},
                "generation": {"max_new_tokens": 8},
                "training": {
                    "batch_size": 1,
                    "blocks_in_flight": 4,
                    "variants": 0,
                    "max_steps": 80,
                    "optimizer": {"name": "Adam", "lr": 2e-2},
                },
            },
            where="test",
        )
        summary = edit_dataset(recipe, folder / "facts", SilentReporter(), command="melo edit facts.yaml")
        assert summary.count("solved") == len(FACTS)
        return folder / "facts"

    return make


@pytest.fixture(scope="session")
def chat_project(make_project: Callable[..., Path], pico_llama: Path) -> Path:
    """A project that is asked in its chat template. Read it only."""
    return make_project(pico_llama, template="chat")


@pytest.fixture(scope="session")
def plain_project(make_project: Callable[..., Path], pico_gpt2: Path) -> Path:
    """A project that is asked without a template. Read it only."""
    return make_project(pico_gpt2)


@pytest.fixture(scope="module")
def served(chat_project: Path) -> Iterator[Running]:
    """`chat_project`, served. Only ask it."""
    with serving(chat_project) as running:
        yield running


@pytest.fixture
def engine() -> AdapterServer:
    """A server of adapters, to stand behind another."""
    return AdapterServer()


@pytest.fixture
def in_front(engine: AdapterServer, tmp_path: Path) -> InFront:
    """`in_front(project)`: the project, served in front of `engine`."""

    @contextmanager
    def start(project: Path) -> Iterator[Running]:
        with running_app(engine.app()) as url:
            upstream = Upstream(url, key="theirs", adapters=tmp_path / "adapters")
            with serving(project, ServeSettings(upstream=upstream)) as running:
                yield running

    return start


@pytest.fixture
def own_project(chat_project: Path, tmp_path: Path) -> Path:
    """A copy of `chat_project` to change."""
    return Path(shutil.copytree(chat_project, tmp_path / "own"))
