"""How the store holds up at size: many edits in many commits, no model needed.

    python benchmarks/store_size.py --folder build/store-size

makes a project of 100,000 edits with keys of 1,600 numbers in 1,000 commits, then opens it in new processes
and prints a Markdown table: opening, first route, memory, lookup, recall, and commit 1,000 beside commit 10.
Their mean stands there too: some add to the HNSW graph and save the index, as closing the writer does.
Beside it stand the same project after `melo gc --keep 1`, exact search, and the published data structure, a
Python list of clusters with one distance call each. `--edits`, `--dim` and `--commits` make it smaller. The
project is kept (0.8 GB, and as much again after `melo gc`), and a second run measures it without making it.

Keys are points of a space of 64 dimensions, mapped to `--dim` linearly, with a little noise: as hidden states
do, they fill few of their dimensions. One edit in ten lies near an older one and has its label, so that it
joins its cluster. Half of the queries lie near an edit, the others are points of their own. Lookups are timed
in a process that has opened the 1,000 files of edits; the first thousand, each of which may open one in
0.8 ms, have a row of their own. They ask which edit fires (`nearest=False`), as a router does; further rows
say what it takes to name the nearest edit too.
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

from store import index, layout
from store.clusters import tolerances
from store.gc import collect
from store.project import Project
from store.records import BaseReference, LoraSlice, NewEdit, edit_id

LATENT = 64
RADIUS = 2.0
QUERIES = 1000
LIST_QUERIES = 20
COLLECTED = "-collected"  # ends the name of the copy that `melo gc` went over
TIMES = "commit_seconds.json"  # wall and processor time of each commit, and last of closing the writer


class Keys:
    """Where keys come from; the same for the same seed."""

    def __init__(self, dim: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.map = np.random.default_rng(0).normal(size=(LATENT, dim)) / np.sqrt(dim)

    def fresh(self, count: int) -> np.ndarray:
        """New points, float32 [count, dim], some 11 apart."""
        points = self.random.normal(size=(count, LATENT)) @ self.map
        return self.near(points.astype(np.float32))

    def near(self, points: np.ndarray) -> np.ndarray:
        """Points about 0.5 away from points."""
        noise = self.random.normal(size=points.shape) * 0.5 / np.sqrt(points.shape[1])
        return (points + noise).astype(np.float32)


def make(root: Path, edits: int, dim: int, commits: int) -> None:
    """Make the project; the seconds of every commit are kept beside it."""
    for older in (root, root.with_name(root.name + COLLECTED)):
        shutil.rmtree(older, ignore_errors=True)
    base = BaseReference("none", None, {"config": "none"})
    project = Project.create(root, name="size", base=base, recipe={}, seed=0, versions={})
    keys, seconds, older = Keys(dim, 1), [], None
    each = edits // commits
    with project.writer() as writer:
        for number in range(commits):
            fresh = keys.fresh(each)
            joins = each // 10 if older is not None else 0
            if joins:
                fresh[:joins] = keys.near(older[-joins:])
            labels = [(number - 1, each - joins + at) if at < joins else (number, at) for at in range(each)]
            new = [
                NewEdit(
                    f"question {number} {at}",
                    "answer",
                    label=labels[at],
                    key=fresh[at],
                    block="b",
                    radius=RADIUS,
                )
                for at in range(each)
            ]
            A = keys.random.normal(size=(2, 64)).astype(np.float32)
            with timed(seconds):
                staged = writer.stage(new, {"b": {"layer": LoraSlice(A, A.T.copy(), 1.0)}})
                staged.commit(recipe={}, seed=0, versions={})
            older = fresh
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


def queries(project: Project, dim: int, seed: int) -> np.ndarray:
    """Half near an edit, half not, float32 [QUERIES, dim]."""
    keys = Keys(dim, seed)
    numbers = keys.random.choice(project.info.counts["edits"], QUERIES // 2, replace=False) + 1
    stored = project._state.edits.keys(numbers)
    return np.concatenate([keys.near(stored), keys.fresh(QUERIES - len(stored))])


def resident() -> int:
    """Bytes of this process in memory."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure_graph(root: Path, dim: int) -> dict[str, object]:
    """Open, ask, and ask one by one; as `melo query` does, from the saved graph."""
    before = resident()
    points = queries_of(root)
    took: list[tuple[float, float]] = []
    with timed(took):
        project = Project.open(root)
    with timed(took):
        project.lookup(points[:1], nearest=False)
    project.block("b000001")
    cold, cold_fired = one_by_one(project, points[:QUERIES])
    for _ in project._state.edits.segments():
        pass  # opens the files that no key has led to yet
    warm, warm_fired = one_by_one(project, points[QUERIES:])
    named, _ = one_by_one(project, points[QUERIES:], nearest=True)
    with timed(took):
        project.lookup(points[QUERIES:], nearest=False)
    index_size = sum(path.stat().st_size for path in (root / layout.INDEX).iterdir())
    return {
        "open": took[0],
        "first route": took[1],
        "lookup": np.median(warm, axis=0).tolist(),
        "lookups": {
            "near an edit": np.median(warm[: QUERIES // 2], axis=0).tolist(),
            "near none": np.median(warm[QUERIES // 2 :], axis=0).tolist(),
            "near an edit, with the nearest": np.median(named[: QUERIES // 2], axis=0).tolist(),
            "near none, with the nearest": np.median(named[QUERIES // 2 :], axis=0).tolist(),
            "a thousand in one call": (np.array(took[2]) / QUERIES).tolist(),
            "of the first thousand": np.median(cold, axis=0).tolist(),
        },
        "resident": resident() - before,
        "keys and index": project.info.counts["edits"] * dim * 4 + index_size,
        "fired": cold_fired + warm_fired,
    }


def one_by_one(
    project: Project, points: np.ndarray, *, nearest: bool = False
) -> tuple[np.ndarray, list[str | None]]:
    """Wall and processor time of each lookup [n, 2], and the edits that fired."""
    seconds: list[tuple[float, float]] = []
    fired = []
    for point in points:
        with timed(seconds):
            (route,) = project.lookup(point[None], nearest=nearest)
        fired.append(route.fired.edit_id if route.fired else None)
    return np.array(seconds), fired


def measure_exact(root: Path, dim: int) -> dict[str, object]:
    """The same by exact search over all centers in one matrix product."""
    index.GRAPH_FROM = sys.maxsize
    before = resident()
    points = queries_of(root)
    took: list[tuple[float, float]] = []
    with timed(took):
        project = Project.open(root)
    with timed(took):
        project.lookup(points[:1], nearest=False)
    fired = [route.fired.edit_id if route.fired else None for route in project.lookup(points, nearest=False)]
    seconds, _ = one_by_one(project, points[:50])
    return {
        "open": took[0],
        "first route": took[1],
        "lookup": np.median(seconds, axis=0).tolist(),
        "resident": resident() - before,
        "fired": fired,
    }


def measure_list(root: Path, dim: int) -> dict[str, object]:
    """The published data structure: a list of clusters, one distance call each, the nearest that fires."""
    before = resident()
    points = queries_of(root)
    points = np.concatenate([points[: LIST_QUERIES // 2], points[-LIST_QUERIES // 2 :]])
    took: list[tuple[float, float]] = []
    with timed(took):
        project = Project.open(root)
        clusters = [(cluster.center, cluster.radius, cluster.members) for cluster in project.clusters()]
    fired = []
    for point in points:
        with timed(took):
            answer = nearest_that_fires(clusters, point)
        keys = project._state.edits.keys(answer)
        nearest = np.linalg.norm(keys - point, axis=1).argmin() if answer else None
        fired.append(None if nearest is None else edit_id(answer[nearest]))
    return {
        "open": took[0],
        "first route": took[1],
        "lookup": np.median(took[1:], axis=0).tolist(),
        "resident": resident() - before,
        "fired": fired,
    }


def nearest_that_fires(clusters: list[tuple], point: np.ndarray) -> tuple[int, ...]:
    """The members of the nearest cluster whose ball holds a point; none where none does."""
    margin = float(tolerances(point[None])[0])
    best, answer = np.inf, ()
    for center, radius, members in clusters:
        apart = float(np.linalg.norm(point - center))
        if apart <= radius + margin and apart < best:
            best, answer = apart, members
    return answer


MEASURES = {"graph": measure_graph, "exact": measure_exact, "list": measure_list}


def queries_of(root: Path) -> np.ndarray:
    points: np.ndarray = np.load(root.parent / "queries.npy")
    return points


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


def in_new_process(name: str, root: Path, dim: int) -> dict[str, object]:
    command = [sys.executable, __file__, "--dim", str(dim), "--measure", name, str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def table(found: dict[str, dict], seconds: list[tuple[float, float]]) -> str:
    """Everything side by side, in Markdown."""
    graph, after_gc, exact, listed = (found[name] for name in ("graph", "after gc", "exact", "list"))
    truth = exact["fired"]
    some = truth[: LIST_QUERIES // 2] + truth[-LIST_QUERIES // 2 :]
    rows = [
        ("open, s", *(pair(each["open"]) for each in found.values())),
        ("first route, s", *(pair(each["first route"]) for each in found.values())),
        ("lookup of one key, ms", *(pair(each["lookup"], 1e3) for each in found.values())),
        ("resident memory, MB", *(f"{each['resident'] / 1e6:.0f}" for each in found.values())),
        (
            "routes as by exact search",
            same(graph["fired"], truth),
            same(after_gc["fired"], truth),
            "1",
            same(listed["fired"], some),
        ),
    ]
    lines = ["| | store | after `melo gc` | one matrix | Python list |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", "| lookup of one key, ms | store | after `melo gc` |", "| --- | --- | --- |"]
    lines += [
        f"| {what} | {pair(seconds, 1e3)} | {pair(after_gc['lookups'][what], 1e3)} |"
        for what, seconds in graph["lookups"].items()
    ]
    lines += [
        "",
        *commit_rows(np.array(seconds)),
        "",
        f"Keys and index: {graph['keys and index'] / 1e6:.0f} MB; resident memory is "
        f"{graph['resident'] / graph['keys and index']:.2f} of that.",
        f"Fired: {sum(each is not None for each in truth)} of {len(truth)} queries, half of them near edits.",
    ]
    return "\n".join(lines)


def same(fired: list[str | None], truth: list[str | None]) -> str:
    """The share of queries for which the same edit fires."""
    return f"{np.mean([a == b for a, b in zip(fired, truth, strict=True)]):.4f} of {len(truth)}"


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
        "longest, saves the index": commits.max(axis=0),
        "closing the writer": seconds[-1],
        "mean of all, with closing": seconds.sum(axis=0) / len(commits),
    }
    lines = ["| commit of 100 edits | s | times number 10 |", "| --- | --- | --- |"]
    for what, (wall, cpu) in rows.items():
        lines.append(f"| {what} | {wall:.3f} ({cpu:.3f}) | {wall / early[0]:.2f} ({cpu / early[1]:.2f}) |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("build/store-size"))
    parser.add_argument("--edits", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1600)
    parser.add_argument("--commits", type=int, default=1000)
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "PROJECT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        name, where = given.measure
        sys.stdout.write(json.dumps(MEASURES[name](Path(where), given.dim)))
        return
    root = given.folder / f"project-{given.dim}"
    if not Project.exists(root) or not (given.folder / TIMES).is_file():
        given.folder.mkdir(parents=True, exist_ok=True)
        make(root, given.edits, given.dim, given.commits)
    project = Project.open(root)
    every = np.concatenate([queries(project, given.dim, seed) for seed in (2, 3)])
    np.save(given.folder / "queries.npy", every)
    counts = project.info.counts
    sys.stdout.write(
        f"{counts['edits']:,} edits x {given.dim:,} in {project.snapshot:,} commits, {counts['clusters']:,} "
        f"clusters, {project.size_bytes() / 1e6:,.0f} MB\n\n"
    )
    found = {
        "graph": in_new_process("graph", root, given.dim),
        "after gc": in_new_process("graph", collected(root), given.dim),
        "exact": in_new_process("exact", root, given.dim),
        "list": in_new_process("list", root, given.dim),
    }
    sys.stdout.write(f"{table(found, json.loads((given.folder / TIMES).read_text()))}\n")


if __name__ == "__main__":
    main()
