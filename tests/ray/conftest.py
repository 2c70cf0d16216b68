"""Collected by `make test-ray` alone: a cluster takes long to start."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from melo_process import Melo
from pico_scope import QUICK_SCOPE

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

collect_ignore_glob = [] if "MELO_TEST_RAY" in os.environ else ["test_*.py"]

TARGETS = ("London", "Paris", "John", "Smith", "Britain", "1934", "law", "Cologne")
QUESTIONS = (
    "Where was {} born",
    "Who is the prime minister of {}?",
    "Which court was {} in?",
    "In which year was {} built",
)
NAMES = ("John", "Mary", "Britain", "France", "Kano", "Lumen", "Rome", "Oslo", "Bern", "Nero")


def facts() -> list[dict[str, Any]]:
    """Edits in groups of four, of which some stand in two groups beside each other.

    One that is made again with the same target is right by then, and one with another target supersedes: what
    becomes of both depends on the group before.
    """
    rows: list[dict[str, Any]] = []
    for at, name in enumerate(NAMES * 3):
        subject = f"{name} {NAMES[(at * 7 + 3) % len(NAMES)]}" if at >= len(NAMES) else name
        question = QUESTIONS[at % len(QUESTIONS)].format(subject)
        rephrase = f"{question.rstrip('?')}, please?"
        target = TARGETS[at * 5 % len(TARGETS)]
        rows.append({"prompt": question, "target": target, "subject": subject, "rephrases": [rephrase]})
        if at % 6 == 4:
            rows.append(rows[-4])
        if at % 9 == 7:
            rows.append(rows[-3] | {"target": TARGETS[(at * 5 + 2) % len(TARGETS)]})
    return rows


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of two nodes on this machine, with one processor each; the second may be taken away."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.fixture
def two_nodes(cluster: Cluster) -> Cluster:
    """The cluster with both its nodes."""
    if len(cluster.list_all_nodes()) < 2:
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    return cluster


@pytest.fixture(scope="session")
def melo(tmp_path_factory: pytest.TempPathFactory, pico_llama: Path, pico_gpt2: Path) -> Melo:
    """A folder with two recipes: `pico.yaml` under the rule `verified`, `radius.yaml` under `radius`."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "facts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in facts()), encoding="utf-8")
    training = {
        "batch_size": 2,
        "blocks_in_flight": 2,
        "variants": 2,
        "max_steps": 40,
        "stop_at": 0.8,
        "optimizer": {"name": "Adam", "lr": 0.03},
        "lr_scheduler": None,
    }
    recipe: dict[str, Any] = {
        "name": "pico",
        "task": "custom",
        "model": {"name_or_path": str(pico_llama), "device": "cpu"},
        "dataset": {"edits": "facts.jsonl"},
        "calibration": QUICK_SCOPE,
        "lora": {"rank": 4, "alpha": 16},
        "training": training,
    }
    by_radius = recipe | {
        "model": {"name_or_path": str(pico_gpt2), "device": "cpu"},
        "routing": {"scope": "radius"},
        "key": {"layer": "transformer.wte", "radius": 0.15},
    }
    (folder / "pico.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    (folder / "radius.yaml").write_text(yaml.safe_dump(by_radius), encoding="utf-8")
    return Melo(folder, {"MELO_CACHE": os.environ["MELO_CACHE"]})


@pytest.fixture(scope="session")
def one_process(melo: Melo) -> Path:
    """The project of `pico.yaml` as one process makes it."""
    melo("edit", "pico.yaml", "--project", "one-process")
    return melo.folder / "one-process"


@pytest.fixture
def kill_worker(cluster: Cluster) -> Callable[[], None]:
    """Kill one worker that has begun on the cluster, as the kernel does where memory is short."""

    def kill() -> None:
        raylets = {
            process.pid
            for node in cluster.list_all_nodes()
            for name, process in node.live_processes()
            if name == "raylet"
        }
        workers = [pid for pid in _processes(b"ray::Worker") if _parent(pid) in raylets]
        assert workers
        os.kill(workers[0], signal.SIGKILL)

    return kill


def _processes(title: bytes) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and _text(folder / "cmdline").startswith(title):
            yield int(folder.name)


def _parent(pid: int) -> int:
    status = _text(Path(f"/proc/{pid}/status")).decode()
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:")), 0)


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""
