"""How the store holds up at size: many edits in many commits, no model needed.

    python benchmarks/store_size.py --folder build/store-size

makes a project of 100,000 edits in 1,000 commits, each with a key of 256 numbers and 20 token vectors of 100,
then opens it in new processes and prints a Markdown table: opening, the first search, one search, a thousand
at once, the token vectors of eight edits, memory and recall, beside the same project after
`melo gc --keep 1` and exact search by one matrix product; then what commits cost. `--edits`, `--dim` and
`--commits` make it smaller; `--radius` gives every neuron one, so that it stands in a cluster. The project is
kept (0.6 GB, and as much again after `melo gc`), and a second run measures it without making it.

Keys are of unit length. They are made as questions are: of one subject in ten thousand, one relation in forty
and some phrasing, in a space of 40 dimensions mapped to `--dim`, with a little noise. Half of the queries are
rephrases of questions that were edited, the others are about subjects that never were.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from melo_store.index import neuron_index
from melo_store.maintenance.gc import collect
from melo_store.project import Project
from melo_store.records import BaseReference, LoraSlice, NewEdit, edit_id
from melo_store.writer import open_writer

LATENT = 40
RELATIONS = 40
TOKENS = (20, 100)
QUERIES = 1000
NEAREST = 8
COLLECTED = "-collected"  # ends the name of the copy that `melo gc` went over
TIMES = "commit_seconds.json"  # wall and processor time of each commit, and last of closing the writer


class Keys:
    """Where keys come from; the same for the same seed."""

    def __init__(self, dim: int, edits: int) -> None:
        fixed = np.random.default_rng(0)
        self.map = fixed.normal(size=(LATENT, dim)) / np.sqrt(LATENT)
        self.subjects = fixed.normal(size=(max(1, edits // 10), LATENT))
        self.relations = 0.7 * fixed.normal(size=(RELATIONS, LATENT))

    def questions(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Questions of known subjects, in the latent space."""
        subjects = self.subjects[random.integers(len(self.subjects), size=count)]
        return subjects + self.relations[random.integers(RELATIONS, size=count)]

    def strange(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Questions of subjects that no edit has."""
        return random.normal(size=(count, LATENT)) + self.relations[random.integers(RELATIONS, size=count)]

    def of(self, questions: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Keys of one phrasing of each question, float32 [count, dim]."""
        worded = (questions + 0.3 * random.normal(size=questions.shape)) @ self.map
        rows = worded + 0.05 * random.normal(size=worded.shape)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make(root: Path, edits: int, dim: int, commits: int, radius: float | None) -> None:
    """Make the project; the seconds of every commit are kept beside it."""
    for older in (root, root.with_name(root.name + COLLECTED)):
        shutil.rmtree(older, ignore_errors=True)
    base = BaseReference("none", None, {"config": "none"})
    project = Project.create(root, name="size", base=base, recipe={}, seed=0, versions={})
    random, seconds = np.random.default_rng(1), []
    keys, each = Keys(dim, edits), edits // commits
    with open_writer(project) as writer:
        for number in range(commits):
            rows = keys.of(keys.questions(each, random), random)
            tokens = random.normal(size=(each, *TOKENS)).astype(np.float16)
            new = [
                NewEdit(
                    f"question {number} {at}",
                    "answer",
                    label=(number, at),
                    key=rows[at],
                    tokens=tokens[at],
                    block="b",
                    radius=radius,
                )
                for at in range(each)
            ]
            A = random.normal(size=(2, 64)).astype(np.float32)
            with timed(seconds):
                staged = writer.stage(new, {"b": {"layer": LoraSlice(A, A.T.copy(), 1.0)}})
                staged.commit(recipe={}, seed=0, versions={})
            if (number + 1) % 50 == 0:
                sys.stderr.write(f"{number + 1} commits, the last {seconds[-1][0]:.2f} s\n")
        with timed(seconds):
            writer.finish()
    (root.parent / TIMES).write_text(json.dumps(seconds))


@contextmanager
def timed(seconds: list[tuple[float, float]]) -> Iterator[None]:
    """Adds wall and processor time of what happens meanwhile."""
    start, worked = time.perf_counter(), time.process_time()
    yield
    seconds.append((time.perf_counter() - start, time.process_time() - worked))


def queries(dim: int, edits: int) -> np.ndarray:
    """Half of them rephrases of edited questions, float32 [QUERIES, dim]."""
    keys, random = Keys(dim, edits), np.random.default_rng(2)
    made = np.random.default_rng(1)
    asked = keys.questions(min(edits, QUERIES // 2), made)  # as the first commit drew them
    questions = np.concatenate([asked, keys.strange(QUERIES - len(asked), random)])
    return keys.of(questions, random)


def resident() -> int:
    """Bytes of this process in memory."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(root: Path) -> dict[str, object]:
    """Open, search once, one by one and all at once; in a process of its own."""
    before = resident()
    points: np.ndarray = np.load(root.parent / "queries.npy")
    took: list[tuple[float, float]] = []
    with timed(took):
        project = Project.open(root)
    with timed(took):
        project.nearest(points[:1], NEAREST)
    singles: list[tuple[float, float]] = []
    for point in points:
        with timed(singles):
            project.nearest(point[None], NEAREST)
    with timed(took):
        nearest = project.nearest(points, NEAREST)
    names = [
        [edit_id(1 + int(n)) for n in row] for row in np.random.default_rng(3).integers(100, size=(50, 8))
    ]
    project.tokens(names[0])
    vectors: list[tuple[float, float]] = []
    for some in names:
        with timed(vectors):
            project.tokens(some)
    return {
        "open": took[0],
        "first search": took[1],
        "search of one key": np.median(singles, axis=0).tolist(),
        "search of one key in a thousand": (np.array(took[2]) / QUERIES).tolist(),
        "token vectors of 8 edits": np.median(vectors, axis=0).tolist(),
        "resident": resident() - before,
        "found": [[near.edit_id for near in row] for row in nearest],
    }


def measure_exact(root: Path) -> dict[str, object]:
    """The same by one matrix product."""
    neuron_index.GRAPH_FROM = sys.maxsize
    return measure(root)


MEASURES = {"store": measure, "exact": measure_exact}


def collected(root: Path) -> Path:
    """A copy of a project after `melo gc --keep 1`; made once."""
    copy = root.with_name(root.name + COLLECTED)
    if not copy.is_dir():
        scratch = root.with_name("scratch")
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(root, scratch)
        collect(scratch, versions={}, keep=1)
        scratch.rename(copy)
    return copy


def in_new_process(name: str, root: Path) -> dict[str, object]:
    command = [sys.executable, __file__, "--measure", name, str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, object] = json.loads(done.stdout)
    return measured


def table(measured: dict[str, dict], seconds: list[tuple[float, float]]) -> str:
    """Everything side by side, in Markdown."""
    truth = measured["one matrix"]["found"]
    rows = [
        (f"{what}, {unit}", *(pair(each[what], times) for each in measured.values()))
        for what, unit, times in (
            ("open", "s", 1.0),
            ("first search", "s", 1.0),
            ("search of one key", "ms", 1e3),
            ("search of one key in a thousand", "ms", 1e3),
            ("token vectors of 8 edits", "ms", 1e3),
        )
    ]
    rows.append(("resident memory, MB", *(f"{each['resident'] / 1e6:.0f}" for each in measured.values())))
    for count in (1, NEAREST):
        shares = (recall(each["found"], truth, count) for each in measured.values())
        rows.append((f"recall of the {count} nearest", *(f"{share:.4f}" for share in shares)))
    lines = [f"| | {' | '.join(measured)} |", f"|{' --- |' * (1 + len(measured))}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *commit_rows(np.array(seconds))])


def recall(nearest: list[list[str]], truth: list[list[str]], count: int) -> float:
    """The share of the true nearest that were found."""
    met = [len({*some[:count]} & {*every[:count]}) for some, every in zip(nearest, truth, strict=True)]
    return float(np.mean(met)) / count


def pair(seconds: list[float], times: float = 1.0) -> str:
    """Wall and processor time in one cell."""
    wall, cpu = (times * each for each in seconds)
    return f"{wall:.2f} ({cpu:.2f})"


def commit_rows(seconds: np.ndarray) -> list[str]:
    """What commits cost, as a Markdown table; wall and processor time [commits and closing, 2]."""
    commits = seconds[:-1]
    early = np.median(commits[7:12], axis=0)
    rows = {
        "number 10 (median of 8 to 12)": early,
        f"number {len(commits)} (median of the last 5)": np.median(commits[-5:], axis=0),
        "median of all": np.median(commits, axis=0),
        "closing the writer, makes and saves the index": seconds[-1],
        "mean of all, with closing": seconds.sum(axis=0) / len(commits),
    }
    lines = ["| commit | s | times number 10 |", "| --- | --- | --- |"]
    for what, (wall, cpu) in rows.items():
        lines.append(f"| {what} | {wall:.3f} ({cpu:.3f}) | {wall / early[0]:.2f} ({cpu / early[1]:.2f}) |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("build/store-size"))
    parser.add_argument("--edits", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--commits", type=int, default=1000)
    parser.add_argument("--radius", type=float)
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "PROJECT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        name, where = given.measure
        sys.stdout.write(json.dumps(MEASURES[name](Path(where))))
        return
    root = given.folder / f"project-{given.dim}"
    if not Project.exists(root) or not (given.folder / TIMES).is_file():
        given.folder.mkdir(parents=True, exist_ok=True)
        make(root, given.edits, given.dim, given.commits, given.radius)
    project = Project.open(root)
    counts = project.info.counts
    np.save(given.folder / "queries.npy", queries(given.dim, counts["edits"]))
    sys.stdout.write(
        f"{counts['edits']:,} edits x {given.dim:,} in {project.snapshot:,} commits, {counts['clusters']:,} "
        f"clusters, {project.size_bytes() / 1e6:,.0f} MB\n\n"
    )
    measured = {
        "store": in_new_process("store", root),
        "after `melo gc`": in_new_process("store", collected(root)),
        "one matrix": in_new_process("exact", root),
    }
    sys.stdout.write(f"{table(measured, json.loads((given.folder / TIMES).read_text()))}\n")


if __name__ == "__main__":
    main()
