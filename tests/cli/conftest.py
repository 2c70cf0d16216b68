"""`melo` as a user runs it, and projects to run it on."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pico_scope import QUICK_SCOPE

from melo_cli.app import main
from melo_store.project import Project
from melo_store.records import BaseReference, LoraSlice, NewEdit
from melo_store.writer import open_writer

# Before anything imports torch, which reads it once: threads of pico models only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[2]
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Run:
    """What a command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its stdout as the one JSON document that it must be."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """Its error: the only line on stderr that is one."""
        lines = [line for line in self.err.splitlines() if line.startswith("melo: error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0].removeprefix("melo: error: ")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def melo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Run a command line in this process: `melo("query", "-", stdin=b"...")`."""

    def run(*arguments: object, stdin: bytes = b"") -> Run:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        _as_after_a_process()
        captured = capsys.readouterr()
        return Run(code, captured.out, captured.err)

    return run


def _as_after_a_process() -> None:
    """A command leaves its objects to the end of the process, which here goes on."""
    gc.unfreeze()
    gc.enable()


@pytest.fixture(scope="session")
def environment() -> Callable[..., dict[str, str]]:
    """The environment of a new process that has this melo and no network."""

    def changed(**changes: str) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        plain = {
            name: value for name, value in os.environ.items() if name not in ("MELO_PROJECT", "FORCE_COLOR")
        }
        return {**plain, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", **changes}

    return changed


@pytest.fixture(scope="session")
def melo_process(environment: Callable[..., dict[str, str]]) -> Callable[..., Run]:
    """Run a command line in a process of its own."""

    def run(*arguments: object, cwd: Path, stdin: bytes = b"", **changes: str) -> Run:
        done = subprocess.run(
            [sys.executable, "-m", "melo_cli", *(str(argument) for argument in arguments)],
            cwd=cwd,
            input=stdin,
            env=environment(**changes),
            capture_output=True,
            timeout=120,
        )
        return Run(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture(scope="session")
def make_project() -> Callable[..., Project]:
    """Make a project with one committed batch and no base model behind it."""

    def make(path: Path, *, task: str = "zsre", prompts: Sequence[str] = ("Who was it?",)) -> Project:
        recipe: dict[str, Any] = {
            "name": path.name,
            "task": task,
            "model": {"name_or_path": "some/model"},
            "key": {"layer": "shared", "pooling": "mean", "radius": 75.0},
            "routing": {"scope": "radius"},
            "lora": {"rank": 2, "alpha": 40.0},
        }
        project = Project.create(
            path,
            name=path.name,
            base=BaseReference("some/model", "main", {"config": "c", "weights": "w"}),
            recipe=recipe,
            seed=0,
            versions={"melo-cli": "0.1.0"},
        )
        commit(project, [solved(prompt, f"answer {number}", number) for number, prompt in enumerate(prompts)])
        return Project.open(path)

    return make


@pytest.fixture(scope="session")
def add_edits() -> Callable[..., None]:
    """Commit solved edits `(prompt, target)` to a project, far from each other unless their prompts agree."""

    def add(path: Path, *edits: tuple[str, str], **more: Any) -> None:
        commit(
            Project.open(path),
            [solved(prompt, target, sum(prompt.encode()), **more) for prompt, target in edits],
        )

    return add


def commit(project: Project, edits: Sequence[NewEdit]) -> None:
    slices = {"wi": LoraSlice(np.ones((2, 3), np.float32), np.ones((4, 2), np.float32), scale=20.0)}
    with open_writer(project) as writer:
        staged = writer.stage(edits, {"new": slices})
        staged.commit(
            recipe=project.recipe,
            seed=0,
            versions={"melo-cli": "0.1.0"},
            command="melo edit facts.yaml --set dataset.max_edits=2",
        )


def solved(prompt: str, target: str, position: int, **more: Any) -> NewEdit:
    key = np.full(4, 1000.0 * position, np.float32)
    return NewEdit(
        prompt,
        target,
        label=(position, 1),
        key=key,
        block="new",
        radius=75.0,
        metrics={"answer": target},
        **more,
    )


@pytest.fixture(scope="session")
def files_of() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder with its content: two of these are equal where nothing has changed.

    A project's lock is left out: it says who writes, and nothing of what is written.
    """

    def read(folder: Path) -> dict[str, bytes]:
        paths = [path for path in folder.rglob("*") if path.is_file() and path.stem != "lock"]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    return read


FACTS: list[dict[str, Any]] = [
    {
        "prompt": "Who is the prime minister of Britain?",
        "target": "London",
        "rephrases": ["Who leads Britain?"],
        "locality": [{"prompt": "what is the name of the river", "target": "law"}],
    },
    {"prompt": "What is the capital of France?", "target": "Paris"},
    {"prompt": "In which year was the tower built?", "target": "1889"},
    {"prompt": "By whom was it opened?", "target": "John Smith"},
]
CASES = [
    {"prompt": fact["prompt"], "target": target}
    for fact, target in zip(FACTS, ("tax", "civil", "criminal", "tax"), strict=True)
]


@pytest.fixture(scope="session")
def write_recipe() -> Callable[..., None]:
    """Write `NAME.yaml` and its edits into a folder: settings under which a pico model learns.

    The rule is `radius`, so that no commit comes before the first edit; `scope="verified"` leaves it to the
    default.
    """

    def write(
        folder: Path,
        name: str,
        model: Path,
        task: str,
        edits: Sequence[dict[str, Any]] = FACTS,
        *,
        scope: str = "radius",
    ) -> None:
        routing = "key: {radius: 0.05}\nrouting: {scope: radius}\n" if scope == "radius" else ""
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(edit)}\n" for edit in edits))
        (folder / f"{name}.yaml").write_text(
            f"name: {name}\n"
            f"task: {task}\n"
            f"model: {{name_or_path: {model}, device: cpu}}\n"
            f"dataset: {{edits: {folder / name}.jsonl, format: melo}}\n"
            f"{routing}"
            f"calibration: {json.dumps(QUICK_SCOPE)}\n"
            "lora: {rank: 4, alpha: 8}\n"
            "training: {batch_size: 2, blocks_in_flight: 1, variants: 0, max_steps: 60,\n"
            "  optimizer: {name: Adam, lr: 2.0e-2}}\n"
        )

    return write


@pytest.fixture(scope="session")
def edited_folder(
    tmp_path_factory: pytest.TempPathFactory,
    write_recipe: Callable[..., None],
    pico_t5: Path,
    pico_bert: Path,
) -> Path:
    """A folder with two edited projects, `facts` (zsre on T5) and `cases` (scotus on BERT). Read it only."""
    folder = tmp_path_factory.mktemp("edited")
    write_recipe(folder, "cases", pico_bert, "scotus", CASES)
    write_recipe(folder, "facts", pico_t5, "zsre")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out:
        for name in ("cases", "facts"):
            assert main(["edit", f"{name}.yaml"]) == 0, out.getvalue()
    _as_after_a_process()
    return folder


@pytest.fixture
def edited(edited_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`edited_folder` as the current folder."""
    monkeypatch.chdir(edited_folder)
    return edited_folder


@pytest.fixture
def own_edited(edited_folder: Path, here: Path) -> Path:
    """A copy of `edited_folder` to change, as the current folder."""
    shutil.copytree(edited_folder, here, dirs_exist_ok=True)
    return here


class AtTerminal:
    """A command line at a terminal of 80 columns, as it runs."""

    def __init__(self, arguments: Sequence[object], cwd: Path, environment: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self._shown = b""
        self._typed = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "melo_cli", *(str(argument) for argument in arguments)],
            cwd=cwd,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # A shell starts what goes on in the background deaf to Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(theirs)

    def until(self, text: str) -> None:
        """Wait for a text to be shown after the last keys."""
        while text.encode() not in self._shown[self._typed :]:
            assert self._read(), self._shown.decode()

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(60)

    def until_prompt(self) -> None:
        """Wait for the prompt that follows the last keys, right behind all that is shown."""
        while not CONTROLS.sub("", self._shown[self._typed :].decode()).endswith("> "):
            assert self._read(), self.shown

    def type(self, text: str) -> None:
        """Keys that somebody presses."""
        self._typed = len(self._shown)
        os.write(self._ours, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Its exit code, and all that it has shown, without the codes for colours and cursor."""
        while self._read():
            pass
        os.close(self._ours)
        return self._process.wait(60), CONTROLS.sub("", self.shown.replace("\r\n", "\n"))

    @property
    def shown(self) -> str:
        """All that it has shown so far, codes and all."""
        return self._shown.decode()

    def _read(self) -> bool:
        if not select.select([self._ours], [], [], 60)[0]:
            self._process.kill()
            pytest.fail(f"nothing more came after\n{self.shown}")
        try:
            chunk = os.read(self._ours, 65536)
        except OSError:  # how Linux tells that the last writer is gone
            return False
        self._shown += chunk
        return bool(chunk)


@pytest.fixture
def at_terminal(environment: Callable[..., dict[str, str]]) -> Iterator[Callable[..., AtTerminal]]:
    """Start a command line at a terminal: `at_terminal("status", cwd=folder).end()`."""
    started: list[AtTerminal] = []

    def start(*arguments: object, cwd: Path, **changes: str) -> AtTerminal:
        plain = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "40"}
        started.append(AtTerminal(arguments, cwd, environment(**(plain | changes))))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def pickled(here: Path, pico_gpt2: Path) -> Path:
    """A model with PyTorch's pickled weights alone."""
    import torch
    from safetensors.torch import load_file

    folder = here / "pickled"
    shutil.copytree(pico_gpt2, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder
