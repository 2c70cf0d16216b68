"""Measures the store with many edits in many commits; no model is needed.

    python benchmarks/store_size.py --folder build/store-size

makes a project of 100,000 edits in 1,000 commits, each edit with a key of 256 numbers and 20 token vectors of
100. It then opens the project in new processes and prints two Markdown tables. The first has the time to
open, of the first search, of one search, of a thousand at once and of the token vectors of eight edits,
memory and recall: of the project, of the same project after `melo gc --keep 1`, and with exact search by one
matrix product. The second has the time of commits. `--edits`, `--dim` and `--commits` make the project
smaller; `--radius` gives every neuron a radius, so that it is in a cluster. The project is kept (0.6 GB, and
as much again after `melo gc`), and a second run measures it without making it.

Keys are of unit length. Like questions, they are made of one subject in ten thousand, one relation in forty
and some phrasing, in a space of 40 dimensions mapped to `--dim`, with a little noise. Half of the queries are
rephrases of edited questions; the others are about subjects that no edit has.
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
    """Draws keys; the same for the same seed.

    Args:
        dim: size of a key.
        edits: number of edits; there is one subject for ten.
    """

    def __init__(self, dim: int, edits: int) -> None:
        fixed = np.random.default_rng(0)
        self.map = fixed.normal(size=(LATENT, dim)) / np.sqrt(LATENT)
        self.subjects = fixed.normal(size=(max(1, edits // 10), LATENT))
        self.relations = 0.7 * fixed.normal(size=(RELATIONS, LATENT))

    def questions(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Questions about known subjects, float64 `[count, LATENT]`."""
        subjects = self.subjects[random.integers(len(self.subjects), size=count)]
        return subjects + self.relations[random.integers(RELATIONS, size=count)]

    def strange(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Questions about subjects that no edit has, float64 `[count, LATENT]`."""
        return random.normal(size=(count, LATENT)) + self.relations[random.integers(RELATIONS, size=count)]

    def of(self, questions: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Keys of one phrasing of each question.

        Args:
            questions: `[count, LATENT]`.
            random: draws phrasing and noise.

        Returns:
            float32 `[count, dim]`, of unit length.
        """
        phrased = (questions + 0.3 * random.normal(size=questions.shape)) @ self.map
        rows = phrased + 0.05 * random.normal(size=phrased.shape)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make(root: Path, edits: int, dim: int, commits: int, radius: float | None) -> None:
    """Make the project; the seconds of every commit are written beside it.

    Args:
        root: folder of the project; an older one is removed.
        edits: number of edits.
        dim: size of a key.
        commits: number of commits, of equally many edits each.
        radius: radius of every neuron; None for neurons without a cluster.
    """
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
    """Measure the body of a `with` statement.

    Args:
        seconds: gets a pair of wall and processor time, in seconds.
    """
    start, worked = time.perf_counter(), time.process_time()
    yield
    seconds.append((time.perf_counter() - start, time.process_time() - worked))


def queries(dim: int, edits: int) -> np.ndarray:
    """Keys to search for: half of them rephrases of edited questions, the others about unknown subjects.

    Args:
        dim: size of a key.
        edits: number of edits in the project.

    Returns:
        float32 `[QUERIES, dim]`.
    """
    keys, random = Keys(dim, edits), np.random.default_rng(2)
    made = np.random.default_rng(1)
    edited = keys.questions(min(edits, QUERIES // 2), made)  # as the first commit drew them
    questions = np.concatenate([edited, keys.strange(QUERIES - len(edited), random)])
    return keys.of(questions, random)


def resident() -> int:
    """Bytes of this process in memory."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(root: Path) -> dict[str, object]:
    """Open a project, search once, one by one and all at once; runs in a process of its own.

    Args:
        root: folder of the project; `queries.npy` lies beside it.

    Returns:
        Pairs of wall and processor time in seconds, `resident` bytes, and the edit ids that are nearest.
    """
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
        "nearest": [[near.edit_id for near in row] for row in nearest],
    }


def measure_exact(root: Path) -> dict[str, object]:
    """As `measure`, with one matrix product instead of a graph."""
    neuron_index.GRAPH_FROM = sys.maxsize
    return measure(root)


MEASURES = {"store": measure, "exact": measure_exact}


def collected(root: Path) -> Path:
    """A copy of a project after `melo gc --keep 1`; made once.

    Args:
        root: folder of the project, which stays as it is.

    Returns:
        Folder of the copy.
    """
    copy = root.with_name(root.name + COLLECTED)
    if not copy.is_dir():
        scratch = root.with_name("scratch")
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(root, scratch)
        collect(scratch, versions={}, keep=1)
        scratch.rename(copy)
    return copy


def in_new_process(name: str, root: Path) -> dict[str, object]:
    """Run one of `MEASURES` in a new process.

    Args:
        name: a key of `MEASURES`.
        root: folder of the project.

    Returns:
        Its result.
    """
    command = [sys.executable, __file__, "--measure", name, str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, object] = json.loads(done.stdout)
    return measured


def table(measured: dict[str, dict], seconds: list[tuple[float, float]]) -> str:
    """All measurements side by side.

    Args:
        measured: results of `measure` by column title.
        seconds: wall and processor time of each commit, and last of closing the writer.

    Returns:
        Two Markdown tables.
    """
    truth = measured["one matrix"]["nearest"]
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
        shares = (recall(each["nearest"], truth, count) for each in measured.values())
        rows.append((f"recall of the {count} nearest", *(f"{share:.4f}" for share in shares)))
    lines = [f"| | {' | '.join(measured)} |", f"|{' --- |' * (1 + len(measured))}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *commit_rows(np.array(seconds))])


def recall(nearest: list[list[str]], truth: list[list[str]], count: int) -> float:
    """The share of the true nearest edits that a search gives.

    Args:
        nearest: the edit ids of each search, nearest first.
        truth: the same by exact search.
        count: how many of each count.

    Returns:
        A share from 0 to 1.
    """
    met = [len({*some[:count]} & {*every[:count]}) for some, every in zip(nearest, truth, strict=True)]
    return float(np.mean(met)) / count


def pair(seconds: list[float], times: float = 1.0) -> str:
    """Wall and processor time in one cell.

    Args:
        seconds: the two times.
        times: factor for the unit: 1 for seconds, 1000 for milliseconds.
    """
    wall, cpu = (times * each for each in seconds)
    return f"{wall:.2f} ({cpu:.2f})"


def commit_rows(seconds: np.ndarray) -> list[str]:
    """The time of commits as the lines of a Markdown table.

    Args:
        seconds: `[commits + 1, 2]`, wall and processor time of each commit, and last of closing the writer.
    """
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
    """Make the project if it is not there, measure it, and print the tables."""
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
