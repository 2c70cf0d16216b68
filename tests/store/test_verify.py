"""Damage: what is broken is named with its file and its loss, and only our own errors come out."""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melo_store.errors import (
    DamagedProjectError,
    FormatVersionError,
    MeloError,
    ProjectNotFoundError,
    StoreWarning,
)
from melo_store.index import index_file, neuron_index
from melo_store.maintenance.verify import verify
from melo_store.project import Project
from melo_store.records import KeyMap
from melo_store.state import State
from melo_store.writer import open_writer


@pytest.fixture
def full(project, make, quick_disk, monkeypatch):
    """A project with every kind of file in it, a graph too."""
    monkeypatch.setattr(neuron_index, "GRAPH_FROM", 8)
    keys = []
    with open_writer(project) as writer:
        for part in range(3):
            edits = [
                make.edit(f"q{at}", label=(at,), radius=make.near(at)) for at in range(5 * part, 5 * part + 5)
            ]
            keys += [edit.key for edit in edits]
            make.commit_with(writer, [*edits, make.edit(f"again {part}", label=(9,), key=edits[0].key + 0.5)])
        make.commit_with(writer, [make.edit("q2", label=(50,))])
        writer.revert(["e000004"], versions=make.versions)
        writer.state.save_index()
    assert verify(project.path) == []
    return project


def files(project):
    return sorted(p for p in project.path.rglob("*") if p.is_file() and p.name not in ("lock", "lock.json"))


def named(project, findings):
    return {str(project.path / finding.file) for finding in findings}


def flipped(content, random):
    at = int(random.integers(len(content)))
    return content[:at] + bytes([content[at] ^ 1 << int(random.integers(8))]) + content[at + 1 :]


def test_every_flipped_bit_cut_and_missing_file_is_named(full, make, torture, tally):
    for path in files(full) * (20 if torture else 1):
        whole = path.read_bytes()
        cut = whole[: int(make.random.integers(len(whole)))]
        for broken in (flipped(whole, make.random), flipped(whole, make.random), cut, None):
            path.unlink()
            if broken is not None:
                path.write_bytes(broken)
            if path.name == "manifest.json" and broken is None:
                with pytest.raises(ProjectNotFoundError):
                    verify(full.path)
            elif path.name == "neurons.json" and broken is None:
                assert verify(full.path) == [], "without a record there is no graph to be wrong"
            else:
                findings = verify(full.path)
                assert str(path) in named(full, findings), path
                assert all(finding.problem and finding.lost for finding in findings)
            path.write_bytes(whole)
            tally["damaged files"] += 1
    assert verify(full.path) == []


def test_swapped_files_are_named(full, torture, tally):
    """Of two data files both are named; without a manifest or snapshot it is not known what it names."""
    every = files(full)
    for one, two in itertools.combinations(every, 2) if torture else itertools.pairwise(every):
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)
        swapped, reported = {str(one), str(two)}, named(full, verify(full.path))
        assert reported >= swapped if {one.suffix, two.suffix} == {".arrow"} else reported & swapped
        one.write_bytes(first)
        two.write_bytes(second)
        tally["swapped files"] += 1
    assert verify(full.path) == []


def test_the_loss_is_reported(full, make):
    def lost(name):
        path = full.path / name
        whole = path.read_bytes()
        path.unlink()
        (finding,) = verify(full.path)
        path.write_bytes(whole)
        assert finding.problem == "the file is missing"
        return finding.lost

    assert lost("edits/000002.arrow") == "the text and keys of edits e000007 to e000012"
    assert lost("blocks/000002.arrow") == (
        "blocks b000002 to b000002, and the answers of edits e000007 to e000012 (6 in all)"
    )
    assert "snapshot 2" in lost("clusters/000002.arrow")
    assert "snapshot 5" in lost("states/000005.arrow")
    assert lost("snapshots/000001.json").startswith("snapshots 0 to 1")
    with open_writer(full) as writer:
        keys = {view.edit_id: view.record.key for view in writer.project.edits()}
        writer.rekey(
            KeyMap({}, {}), keys, {}, dict.fromkeys(keys, 1.0), recipe={}, seed=0, versions=make.versions
        )
    assert lost("edits/000002.arrow").endswith("e000007 to e000012 in snapshots 2 to 5")
    assert lost("edits/000006.arrow") == "the text and keys of edits e000001 to e000019"
    assert lost("clusters/000003.arrow") == "the clusters of snapshot 3, and with it those from 3 to 5"


def test_a_broken_edits_file_costs_only_the_edits_in_it(full):
    key, other = (full.path / "k", Project.open(full.path).edit("e000013").record.key.copy())
    (full.path / "edits/000001.arrow").write_bytes(b"")
    again = Project.open(full.path)
    with pytest.raises(DamagedProjectError, match=r"000001\.arrow: the file has 0 bytes.*melo verify"):
        again.edit("e000001")
    assert again.edit("e000013").prompt == "q10"
    assert np.array_equal(again.edit("e000013").record.key, other) and not key.exists()


def test_what_contradicts_itself_is_found_though_the_checksums_fit(full):
    from melo_store.clusters.delta import ClusterDelta
    from melo_store.format import codec, file_io, manifest
    from melo_store.format.tables import clusters

    head = manifest.read_head(full.path)
    pointer, (newest, *_) = manifest.find(full.path, head, None)
    (entry,) = [entry for entry in newest.files if entry.role == "clusters"]
    state = State.load(full.path)
    victim = next(state.clusters.clusters())
    batch = clusters.encode(ClusterDelta([], [victim.number]), pointer.number)
    written = codec.write_batches(full.path / entry.path, clusters.SCHEMA, [batch])
    from dataclasses import replace

    changed = replace(entry, size=written.size, sha256=written.sha256, rows=1)
    rest = tuple(changed if each == entry else each for each in newest.files)
    again = manifest.write_snapshot(full.path, replace(newest, files=rest))
    manifest.write_head(full.path, replace(head, newest=again))
    problems = [finding.problem for finding in verify(full.path)]
    assert f"e{victim.members[0]:06d} stands in 0 clusters" in problems
    assert file_io.fingerprint(full.path / entry.path) == written


class TestIndexFile:
    """The graph file is a cache: broken, missing or old, it costs one warning and no answer."""

    def answers(self, project):
        keys = np.stack([view.record.key for view in project.edits()])
        return project.nearest(keys)

    def test_a_broken_one_is_built_again_with_one_warning(self, full, make):
        expected = self.answers(Project.open(full.path))
        (path,) = (full.path / "index").glob("*.hnsw")
        whole = path.read_bytes()
        for broken in (flipped(whole, make.random), whole[:-9], b"", None):
            for each in (full.path / "index").glob("*.hnsw"):
                each.unlink()
            if broken is not None:
                path.write_bytes(broken)
            with pytest.warns(StoreWarning, match="rebuilt from the keys") as caught:
                assert self.answers(Project.open(full.path)) == expected
            assert len(caught) == 1
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert self.answers(Project.open(full.path)) == expected
            assert verify(full.path) == []

    def test_a_broken_record_is_too(self, full):
        expected = self.answers(Project.open(full.path))
        record = full.path / "index/neurons.json"
        for broken in (b"{}", b"[" * 100_000, b"\xff", record.read_bytes().replace(b'"dim": 6', b'"dim": 7')):
            record.write_bytes(broken)
            with pytest.warns(StoreWarning, match="index file is damaged; the index was rebuilt"):
                assert self.answers(Project.open(full.path)) == expected

    def test_one_from_another_project_is_not_believed(self, full, make, tmp_path):
        other = make.project(tmp_path / "other")
        make.commit(other, [make.edit(f"o{at}", label=(at,)) for at in range(18)])
        for path in (full.path / "index").iterdir():
            (other.path / "index" / path.name).write_bytes(path.read_bytes())
        with pytest.warns(StoreWarning, match="another history of the project"):
            nearest = self.answers(Project.open(other.path))
        assert [near[0].edit_id for near in nearest] == [f"e{at:06d}" for at in range(1, 19)]

    def test_one_of_other_keys_is_found_though_its_checksum_fits(self, full):
        state = State.load(full.path)
        graph, pointer = neuron_index.Graph(6), state.pointer
        graph.add(state.live(), lambda numbers: state.edits.keys(numbers) + np.float32(1))
        index_file.save(full.path, graph, "", pointer.number, pointer.sha256, state.edits.count)
        (finding,) = verify(full.path)
        assert finding.file == "index/neurons.json"
        assert finding.problem == "the index does not hold the keys of the neurons"

    def test_an_older_one_catches_up_and_serves_the_past_too(self, full, make):
        keys = []
        for part in range(3):
            edits = [make.edit(f"later {part} {at}", label=(at,)) for at in range(4)]
            keys += [edit.key for edit in edits]
            make.commit(full, edits)
        with open_writer(full) as writer:
            writer.revert(["e000020"], versions=make.versions)
        record = json.loads((full.path / "index/neurons.json").read_text())["record"]
        assert record["number"] == 7, "the graph is saved when so many edits are new that it would be made"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for at in range(3, 10):
                project = Project.open(full.path, at=at)
                live = [view for view in project.edits() if view.status == "live"]
                nearest = project.nearest(np.stack([view.record.key for view in live]))
                assert [near[0].edit_id for near in nearest] == [view.edit_id for view in live]
                assert {len(near) for near in nearest} == {8}, "neurons that are not live do not count"

    def test_a_reader_of_the_past_neither_warns_nor_saves_over_it(self, full, make):
        reader = Project.open(full.path)
        expected = self.answers(Project.open(full.path))
        make.commit(full, [make.edit(f"n{at}", label=(at,)) for at in range(20)])
        record = (full.path / "index/neurons.json").read_bytes()
        assert json.loads(record)["record"]["number"] == 6
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert self.answers(reader) == expected
        assert (full.path / "index/neurons.json").read_bytes() == record

    def test_a_writer_that_changed_much_saves_it(self, full, make):
        with open_writer(full) as writer:
            make.commit_with(writer, [make.edit(f"n{at}", label=(at,)) for at in range(300)])
        record = json.loads((full.path / "index/neurons.json").read_text())["record"]
        assert record["number"] == 6
        assert [path.name for path in (full.path / "index").glob("*.hnsw")] == ["000006.hnsw"]


class TestManifest:
    """A hostile or newer manifest is refused in a line of our own."""

    def resigned(self, path, document):
        rest = {name: value for name, value in document.items() if name != "check"}
        check = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps({**rest, "check": check}))

    def with_snapshot(self, project, change):
        """Change the newest snapshot file, with checksums that fit."""
        head_path = project.path / "manifest.json"
        head = json.loads(head_path.read_text())
        path = project.path / f"snapshots/{head['newest']['number']:06d}.json"
        document = json.loads(path.read_text())
        change(document)
        content = json.dumps(document).encode()
        path.write_bytes(content)
        head["newest"] |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.resigned(head_path, head)

    def test_a_newer_format_names_the_melo_that_it_needs(self, full):
        path = full.path / "manifest.json"
        document = json.loads(path.read_text())
        self.resigned(path, {**document, "format": 5, "needs": "0.9.0", "newest": "elsewhere"})
        with pytest.raises(FormatVersionError, match=r"format 5.*up to 4; install melo 0\.9\.0 or newer"):
            Project.open(full.path)
        with pytest.raises(FormatVersionError):
            verify(full.path)

    @pytest.mark.parametrize(
        "name", ["../../secret", "/etc/passwd", "edits/../../x.arrow", "edits/000001.arrow\n"]
    )
    def test_no_path_leaves_the_project(self, full, name):
        self.with_snapshot(full, lambda document: document["files"][0].update(path=name))
        with pytest.raises(DamagedProjectError, match="not the name of a project file"):
            Project.open(full.path)

    def test_a_link_does_not_lead_out_either(self, full, tmp_path):
        path = full.path / "edits/000001.arrow"
        outside = tmp_path / "outside.arrow"
        outside.write_bytes(path.read_bytes())
        path.unlink()
        path.symlink_to(outside)
        with pytest.raises(DamagedProjectError, match="is a link, which may lead out of the project"):
            Project.open(full.path).edit("e000001")
        assert [finding.file for finding in verify(full.path)] == ["edits/000001.arrow"]

    def test_a_count_that_the_bytes_do_not_bear_allocates_nothing(self, full):
        def claim(document):
            for entry in document["files"]:
                entry["rows"] = 1 << 60

        self.with_snapshot(full, claim)
        with pytest.raises(DamagedProjectError, match="cannot hold"):
            Project.open(full.path)

    @pytest.mark.filterwarnings("ignore::melo_store.errors.StoreWarning")
    @settings(
        max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_any_value_at_any_position_gives_our_own_error(self, full, data):
        head, kept = (full.path / "manifest.json").read_bytes(), {}
        for path in (full.path / "snapshots").iterdir():
            kept[path] = path.read_bytes()
        value = data.draw(
            st.sampled_from(
                [None, True, -1, 0, 7, 1 << 70, 1.5, "", "x", [], {}, [1], {"a": 1}, "edits/000009.arrow"]
            )
        )

        def change(document):
            container = document
            while True:
                keys = range(len(container)) if isinstance(container, list) else sorted(container)
                key = data.draw(st.sampled_from(list(keys)))
                if isinstance(container[key], (dict, list)) and container[key] and data.draw(st.booleans()):
                    container = container[key]
                else:
                    container[key] = value
                    return

        try:
            self.with_snapshot(full, change)
            try:
                project = Project.open(full.path)
                project.edits()
                project.nearest(np.zeros((1, 6), np.float32))
                project.history()
            except MeloError as error:
                assert "\n" not in str(error)
            verify(full.path)
        finally:
            (full.path / "manifest.json").write_bytes(head)
            for path, content in kept.items():
                path.write_bytes(content)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_arrow_file_gives_our_own_error_or_data_of_the_right_shape(full, data):
    path = data.draw(st.sampled_from(sorted(full.path.glob("*/*.arrow"))))
    whole = path.read_bytes()
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(broken) - 1))
        size = data.draw(st.sampled_from([1, 4, 8]))
        value = data.draw(st.sampled_from([0, 1, 0x7F, 0xFF, (1 << 60) - 1]) | st.integers(0, (1 << 64) - 1))
        broken[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    path.write_bytes(bytes(broken[: len(whole)]))
    try:
        project = Project.open(full.path)
        for name in project.block_ids():
            for part in project.block(name).slices.values():
                assert part.A.shape[0] == part.B.shape[1]
        assert len(project.edits()) == 19
        project.nearest(np.zeros((3, 6), np.float32))
    except MeloError as error:
        assert "\n" not in str(error)
    finally:
        path.write_bytes(whole)


def test_a_text_that_claims_to_end_beyond_the_file_is_not_read(full):
    path = full.path / "edits/000001.arrow"
    content = path.read_bytes()
    lengths = np.cumsum([0, 2, 2, 2, 2, 2, len("again 0")], dtype=np.int32)
    at = content.index(lengths.tobytes()) + 4 * len(lengths) - 4
    path.write_bytes(content[:at] + np.int32(1 << 30).tobytes() + content[at + 4 :])
    with pytest.raises(DamagedProjectError, match=r"000001\.arrow: melo did not write this content"):
        Project.open(full.path).edits()
