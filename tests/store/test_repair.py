"""Repair: what can be made again is, what is lost is named, and the project is whole afterwards."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from melo_store.errors import DamagedProjectError, StorageError
from melo_store.index import neuron_index
from melo_store.maintenance.gc import collect
from melo_store.maintenance.repair import Repair, plan, repair
from melo_store.maintenance.verify import verify
from melo_store.project import Project
from melo_store.records import KeyMap
from melo_store.writer import open_writer


@pytest.fixture
def full(project, make, quick_disk, monkeypatch):
    """Four commits, a revert and a graph; e000003 was superseded by e000019, and e000004 reverted."""
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 8)
    with open_writer(project) as writer:
        for part in range(3):
            edits = [
                make.edit(f"q{at}", label=(at,), radius=make.near(at)) for at in range(6 * part, 6 * part + 6)
            ]
            make.commit_with(writer, edits)
        make.commit_with(writer, [make.edit("q2", label=(50,)), make.edit("new", label=(51,))])
        writer.revert(["e000004"], versions=make.versions)
        writer.state.save_index()
    return Project.open(project.path)


def broken(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def repaired(project, make):
    """Repair it, and check that the plan was what was done and that nothing is wrong any more."""
    planned = plan(project.path)
    done = repair(project.path, versions=make.versions, command="melo verify --repair")
    assert planned == done
    assert verify(project.path) == []
    assert plan(project.path) == Repair()
    collect(project.path, versions=make.versions)
    assert verify(project.path) == []
    return done, Project.open(project.path)


def ids(*numbers):
    return tuple(f"e{number:06d}" for number in numbers)


def unharmed(before, after, *, but=()):
    """Every other edit is what it was, block and key and route included."""
    for old in before:
        if old.edit_id in but:
            continue
        new = after.edit(old.edit_id)
        assert (new.prompt, new.status, new.superseded_by) == (old.prompt, old.status, old.superseded_by)
        assert np.array_equal(new.record.key, old.record.key)
        assert np.array_equal(new.record.tokens, old.record.tokens)
        if new.status == "live":
            ((near,),) = after.nearest(new.record.key[None], 1)
            assert (near.edit_id, near.block, near.distance) == (old.edit_id, old.block, 0.0)
            assert after.block(old.block).slices


@pytest.fixture
def before(full):
    """All edits as they were, keys copied out of the files."""
    views = full.edits()
    for view in views:
        object.__setattr__(view.record, "key", view.record.key.copy())
        object.__setattr__(view.record, "tokens", view.record.tokens.copy())
    return views


def test_a_broken_edits_file_costs_the_edits_in_it(full, before, make):
    broken(full.path / "edits/000002.arrow")
    done, after = repaired(full, make)
    assert (done.lost, done.unanswered, done.back_to) == (ids(*range(7, 13)), (), None)
    assert [after.edit(name).status for name in done.lost] == ["reverted"] * 6
    assert after.edit("e000007").record.metadata == {"lost": "edits/000002.arrow"}
    unharmed(before, after, but=done.lost)
    assert (after.info.action, after.info.command) == ("repair", "melo verify --repair")
    assert after.info.detail == {"lost": list(done.lost), "unanswered": []}
    make.commit(after, [make.edit("later")])
    assert Project.open(full.path).edit("e000021").prompt == "later"


def test_what_a_lost_edit_superseded_answers_again(full, before, make):
    broken(full.path / "edits/000004.arrow")
    done, after = repaired(full, make)
    assert done.lost == ids(19, 20)
    assert (before[2].status, after.edit("e000003").status) == ("superseded", "live")
    unharmed(before, after, but=ids(3, 19, 20))


def test_a_broken_blocks_file_costs_the_answers_that_it_held(full, before, make):
    (full.path / "blocks/000001.arrow").unlink()
    done, after = repaired(full, make)
    assert (done.lost, done.lost_blocks) == ((), ("b000001",))
    assert done.unanswered == ids(1, 2, 3, 5, 6), "e000004 was reverted before"
    assert after.block_ids() == ["b000002", "b000003", "b000004"]
    assert after.edit("e000001").status == "reverted" and after.edit("e000001").prompt == "q0"
    unharmed(before, after, but=ids(*range(1, 7)))


@pytest.mark.parametrize("name", ["clusters/000002.arrow", "states/000004.arrow", "states/000005.arrow"])
def test_what_follows_from_the_rest_costs_nothing(full, before, make, name):
    broken(full.path / name)
    done, after = repaired(full, make)
    assert done == Repair(snapshots=6, rebuilt=(name,))
    unharmed(before, after)
    assert after.edit_counts == full.edit_counts


def test_a_broken_index_costs_no_snapshot(full, before, make):
    (path,) = (full.path / "index").glob("*.hnsw")
    broken(path)
    done, after = repaired(full, make)
    assert done == Repair(rebuilt=(f"index/{path.name}",))
    assert after.snapshot == full.snapshot
    unharmed(before, after)
    broken(full.path / "index/neurons.json")
    assert repaired(full, make)[0] == Repair(rebuilt=("index/neurons.json",))


def test_a_broken_snapshot_file_costs_what_came_after(full, before, make):
    broken(full.path / "snapshots/000003.json")
    done, after = repaired(full, make)
    assert (done.back_to, done.edits_after, done.lost) == (2, "e000013", ())
    assert (after.snapshot, len(after.edits())) == (3, 12)
    assert {view.status for view in after.edits()} == {"live"}
    unharmed([view for view in before[:12] if view.edit_id not in ids(3, 4)], after)


def test_a_broken_snapshot_file_before_a_complete_one_costs_history_alone(full, before, make):
    with open_writer(full) as writer:
        keys = {view.edit_id: view.record.key for view in before}
        tokens = {view.edit_id: view.record.tokens for view in before}
        radii = {view.edit_id: view.record.radius for view in before}
        writer.rekey(KeyMap({}, {}), keys, tokens, radii, recipe={}, seed=0, versions=make.versions)
    broken(full.path / "snapshots/000003.json")
    done, after = repaired(full, make)
    assert (done.back_to, done.lost, done.unanswered) == (None, (), ())
    unharmed(before, after)


def test_all_at_once(full, before, make):
    for name in ("edits/000001.arrow", "blocks/000002.arrow", "clusters/000003.arrow", "states/000005.arrow"):
        broken(full.path / name)
    done, after = repaired(full, make)
    assert (done.lost, done.unanswered) == (ids(*range(1, 7)), ids(*range(7, 13)))
    unharmed(before, after, but=ids(*range(1, 13)))


def test_a_key_map_cannot_be_made_again(full, before, make):
    with open_writer(full) as writer:
        keys = {view.edit_id: view.record.key for view in before}
        tokens = {view.edit_id: view.record.tokens for view in before}
        radii = dict.fromkeys(keys, 1.0)
        writer.rekey(KeyMap({}, {}), keys, tokens, radii, recipe={}, seed=0, versions=make.versions)
    broken(full.path / "keymaps/000006.arrow")
    with pytest.raises(DamagedProjectError, match="key map cannot be rebuilt.*put the file back from a copy"):
        repair(full.path, versions=make.versions)


def test_a_lost_manifest_is_reported(full, make):
    broken(full.path / "manifest.json")
    with pytest.raises(DamagedProjectError, match=r"manifest\.json: .*put the file back from a copy"):
        plan(full.path)


def test_a_refused_write_leaves_it_as_it_is(full, make, monkeypatch):
    from melo_store.format import file_io

    broken(full.path / "edits/000002.arrow")
    findings = verify(full.path)

    def refuse(*_):
        raise OSError(28, "full")

    with monkeypatch.context() as patch:
        patch.setattr(file_io.disk, "write", refuse)
        with pytest.raises(StorageError, match="disk is full"):
            repair(full.path, versions=make.versions)
    assert verify(full.path) == findings
    repaired(full, make)


def test_whatever_breaks_the_project_is_repaired_or_reported_as_beyond_repair(
    full, before, make, tmp_path, torture, tally
):
    """Any file flipped, cut or gone: no edit is lost but those that the repair names."""
    with open_writer(full) as writer:
        keys = {view.edit_id: view.record.key for view in before}
        tokens = {view.edit_id: view.record.tokens for view in before}
        radii = {view.edit_id: view.record.radius for view in before}
        writer.rekey(
            KeyMap({}, {"W": make.key()}), keys, tokens, radii, recipe={}, seed=0, versions=make.versions
        )
    names = sorted(
        path.relative_to(full.path)
        for path in full.path.rglob("*")
        if path.is_file() and path.name not in ("lock", "lock.json", "manifest.json")
    )
    for turn, name in enumerate(names * (6 if torture else 1)):
        root = tmp_path / "broken"
        shutil.copytree(full.path, root)
        content = (root / name).read_bytes()
        at = int(make.random.integers(len(content)))
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        kind = turn % 3 if torture else int(make.random.integers(3))
        (root / name).unlink()
        if kind:
            (root / name).write_bytes(flipped if kind == 1 else content[:at])
        try:
            done = repair(root, versions=make.versions)
        except DamagedProjectError as error:
            assert "put the file back from a copy" in str(error)
            assert name.as_posix() in ("keymaps/000006.arrow",)
        else:
            assert verify(root) == []
            if done.back_to is None:
                unharmed(before, Project.open(root), but=(*done.lost, *done.unanswered, *ids(3)))
        shutil.rmtree(root)
        tally["repaired projects"] += 1
