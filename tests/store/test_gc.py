"""Garbage, compaction and dropped snapshots: nothing that a kept snapshot needs is removed or changed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from melo_store.errors import DamagedProjectError, ProjectLockedError, UnknownEditError
from melo_store.format import merge_plan
from melo_store.index import neuron_index
from melo_store.maintenance.gc import collect
from melo_store.maintenance.verify import verify
from melo_store.project import Project
from melo_store.writer import open_writer


@pytest.fixture
def full(project, make, quick_disk, monkeypatch):
    """Forty small commits, some of which supersede or revert, with a graph."""
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 8)
    with open_writer(project) as writer:
        for at in range(37):
            radius = None if at % 10 == 9 else 4.0
            make.commit_with(writer, [make.edit(f"q{at % 30}", label=(at,), radius=radius)])
        make.commit_with(
            writer, [make.edit("no key", status="already_right", key=None, radius=None, block=None)]
        )
        for name in ("e000004", "e000012"):
            writer.revert([name], versions=make.versions)
        writer.state.save_index()
    assert verify(project.path) == []
    return Project.open(project.path)


def answers(project):
    views = project.edits()
    keys = np.stack([view.record.key for view in views if view.record.key is not None])
    blocks = {name: project.block(name).slices["encoder.wi"].A.tobytes() for name in project.block_ids()}
    shown = [(v.edit_id, v.prompt, v.status, v.superseded_by, v.cluster, v.record.radius) for v in views]
    tokens = [None if each is None else each.tobytes() for each in project.tokens(project.statuses())]
    return shown, blocks, project.nearest(keys), tokens


def files(project):
    return sorted(p for p in project.path.rglob("*") if p.is_file() and p.name not in ("lock", "lock.json"))


class TestGarbage:
    """What no snapshot needs is listed, then removed; nothing else is."""

    def leave(self, project):
        left = {
            "edits/000099.arrow": b"x" * 100,
            "snapshots/000099.json": b"y" * 10,
            "index/000001.hnsw": b"z",
            "index/000001.hnsw.tmp": b"",
            "manifest.json.tmp": b"t" * 5,
        }
        for name, content in left.items():
            (project.path / name).write_bytes(content)
        return {name: len(content) for name, content in left.items()}

    def test_it_is_listed_without_a_change(self, full):
        collect(full.path, versions={})
        before = {path: path.read_bytes() for path in files(full)}
        assert collect(full.path, versions={}).garbage == ()
        left = self.leave(full)
        for dry_run in (True, False):
            garbage = collect(full.path, versions={}, dry_run=dry_run).garbage
            assert {each.path: each.size for each in garbage} == left
        assert collect(full.path, versions={}).garbage == ()
        assert {path: path.read_bytes() for path in files(full)} == before
        assert verify(full.path) == []

    def test_what_is_not_ours_stays(self, full):
        for name in ("edits/notes.txt", "README.md", "edits/1.arrow"):
            (full.path / name).write_text("mine")
        assert collect(full.path, versions={}).garbage == ()
        assert (full.path / "edits/notes.txt").read_text() == "mine"

    def test_with_a_broken_history_nothing_is_removed(self, full):
        self.leave(full)
        (full.path / "snapshots/000002.json").write_bytes(b"")
        with pytest.raises(DamagedProjectError):
            collect(full.path, versions={})
        assert (full.path / "edits/000099.arrow").exists()


class TestCompaction:
    """Many small files become one, and the project answers as before."""

    def test_files_are_merged_and_every_snapshot_reads_as_before(self, full, make):
        expected = {at: answers(Project.open(full.path, at=at)) for at in (1, 20, 40)}
        mergeable = Project.open(full.path).mergeable()
        before = {path: path.read_bytes() for path in files(full) if path.suffix == ".arrow"}
        done = collect(full.path, versions=make.versions, command="melo gc")
        assert {merge.role: len(merge.files) for merge in done.merged} == {
            "edits": 38,
            "blocks": 37,
            "clusters": 35,
        }
        assert tuple(mergeable) == done.merged
        assert (done.dropped, done.garbage) == (0, ())
        again = Project.open(full.path)
        assert (again.mergeable(), Project.open(full.path, at=40).mergeable()) == ([], [])
        assert (again.snapshot, again.info.action, again.info.command) == (41, "compact", "melo gc")
        assert again.info.counts == full.info.counts
        listed = sorted(entry.path for entry in again.files() if entry.role not in ("states", "snapshot"))
        assert listed == ["blocks/000041.arrow", "clusters/000041.arrow", "edits/000041.arrow"]
        assert answers(again) == expected[40]
        for at, then in expected.items():
            assert answers(Project.open(full.path, at=at)) == then
        assert {path: path.read_bytes() for path in before} == before
        assert verify(full.path) == []
        assert collect(full.path, versions=make.versions).merged == (), "once is enough"

    def test_the_saved_graph_goes_on_serving(self, full, make, monkeypatch):
        collect(full.path, versions=make.versions)
        monkeypatch.setattr(neuron_index.Graph, "add", None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Project.open(full.path).nearest(make.key()[None])

    def test_edits_go_on_after_it(self, full, make):
        collect(full.path, versions=make.versions, keep=1)
        edit = make.edit("q3", label=(99,))
        make.commit(Project.open(full.path), [edit])
        again = Project.open(full.path)
        assert make.lookup(again, edit.key[None])[0].fired.edit_id == "e000039"
        assert again.edit("e000039").record.supersedes == ("e000034",)
        assert verify(full.path) == []

    def test_large_files_are_left_alone(self, full, make, monkeypatch):
        sizes = {entry.path: entry.size for entry in full.files() if entry.role == "edits"}
        large = max(sizes, key=lambda path: (sizes[path], path))
        monkeypatch.setattr(merge_plan, "_SMALL", sizes[large] - 1)
        monkeypatch.setattr(merge_plan, "MANY", 8)
        done = collect(full.path, versions=make.versions)
        merged = {entry.path for merge in done.merged if merge.role == "edits" for entry in merge.files}
        assert merged and large not in merged
        assert answers(Project.open(full.path)) == answers(full)
        assert verify(full.path) == []

    @pytest.mark.parametrize("role", ["edits", "blocks"])
    def test_damage_is_not_merged_into_a_file_that_looks_whole(self, full, make, role):
        path = full.path / role / "000005.arrow"
        content = bytearray(path.read_bytes())
        content[content.index(b"q4" if role == "edits" else b"encoder.wi")] ^= 1
        path.write_bytes(bytes(content))
        before = {path: path.read_bytes() for path in files(full)}
        with pytest.raises(DamagedProjectError, match=r"000005\.arrow: its checksum is wrong"):
            collect(full.path, versions=make.versions, keep=1)
        assert {path: path.read_bytes() for path in files(full)} == before


class TestDropping:
    """`keep` drops the oldest snapshots and what they alone need."""

    def test_one_snapshot_is_kept_with_its_files_alone(self, full, make):
        expected, before = answers(full), {path: path.stat().st_size for path in files(full)}
        planned = collect(full.path, versions=make.versions, keep=1, dry_run=True)
        assert {path: path.stat().st_size for path in files(full)} == before
        done = collect(full.path, versions=make.versions, keep=1)
        assert planned == done
        assert (done.dropped, done.oldest) == (41, 41)
        assert {full.path / each.path: each.size for each in done.garbage}.items() <= before.items()
        left = [path.relative_to(full.path).as_posix() for path in files(full)]
        assert left == [
            "blocks/000041.arrow",
            "clusters/000041.arrow",
            "edits/000041.arrow",
            "index/000041.hnsw",
            "index/neurons.json",
            "manifest.json",
            "snapshots/000041.json",
            *(f"states/{at:06d}.arrow" for at in (*range(31, 38), 39, 40)),
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = Project.open(full.path)
            assert answers(again) == expected
        assert [info.number for info in again.history()] == [41]
        with pytest.raises(UnknownEditError, match="no snapshot 40; the project keeps snapshots 41 to 41"):
            Project.open(full.path, at=40)
        assert verify(full.path) == []

    def test_kept_snapshots_keep_the_files_that_older_ones_wrote(self, full, make, monkeypatch):
        monkeypatch.setattr(merge_plan, "MANY", 1000)
        expected = {at: answers(Project.open(full.path, at=at)) for at in (38, 39, 40)}
        done = collect(full.path, versions=make.versions, keep=3)
        assert (done.oldest, done.garbage) == (38, ()), "snapshot 40 is made of all the files so far"
        assert [info.number for info in Project.open(full.path).history()] == [38, 39, 40]
        for at, then in expected.items():
            assert answers(Project.open(full.path, at=at)) == then
        assert verify(full.path) == []

    def test_keeping_more_than_there_are_drops_none(self, full, make):
        assert collect(full.path, versions=make.versions, keep=1000).dropped == 0
        assert Project.open(full.path, at=0).edits() == []

    def test_a_writer_at_work_is_not_disturbed(self, full, make):
        with open_writer(full), pytest.raises(ProjectLockedError):
            collect(full.path, versions=make.versions)

    def test_a_reader_that_looks_in_that_moment_goes_on_with_the_new_snapshot(self, full, make, monkeypatch):
        """The manifest is read, then everything that it names goes."""
        from melo_store.format import manifest

        real, calls = manifest.find, []

        def find(root, head, at):
            if not calls:
                calls.append(head)
                collect(full.path, versions=make.versions, keep=1)
            return real(root, head, at)

        expected = answers(full)
        monkeypatch.setattr(manifest, "find", find)
        assert answers(Project.open(full.path)) == expected
