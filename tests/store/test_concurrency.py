"""Several processes at one project: one writer at a time, and readers that never wait."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from melo_store.errors import DamagedProjectError, ProjectLockedError
from melo_store.format import manifest
from melo_store.maintenance.verify import verify
from melo_store.project import Project
from melo_store.writer import open_writer

HOLD = """
import sys, time
from melo_store.project import Project
from melo_store.writer import open_writer
with open_writer(Project.open(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

COMMIT = """
import sys
import numpy as np
from melo_store.project import Project
from melo_store.records import LoraSlice, NewEdit
from melo_store.writer import open_writer
one = np.ones((1, 4), np.float32)
with open_writer(Project.open(sys.argv[1])) as writer:
    for commit in range(int(sys.argv[2])):
        edits = [NewEdit(prompt=f"{commit} {at}", target="t", label=(commit, at), block="b", radius=0.1,
                         key=np.float32([commit, at, 0, 0, 0, 0])) for at in range(3)]
        staged = writer.stage(edits, {"b": {"m": LoraSlice(one, one.T.copy(), 1.0 + commit)}})
        staged.commit(recipe={}, seed=0, versions={})
"""


@pytest.fixture
def holder(project):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(project.path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_writer_learns_who_holds_the_lock(project, holder):
    with pytest.raises(ProjectLockedError) as caught, open_writer(project):
        pass
    message = str(caught.value)
    assert f"process {holder.pid} on {socket.gethostname()} since 20" in message
    assert message.endswith("wait for it to finish, or stop it")
    assert Project.open(project.path).snapshot == 0, "readers do not wait"


def test_a_writer_can_wait_for_the_other(project, holder, make):
    start = time.monotonic()
    with pytest.raises(ProjectLockedError), open_writer(project, timeout=0.3):
        pass
    assert time.monotonic() - start >= 0.3
    holder.terminate()
    with open_writer(project, timeout=20) as writer:
        make.commit_with(writer, make.edits(1))


def test_a_lock_left_by_a_dead_process_does_not_block(project, holder, make):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert json.loads((project.path / "lock.json").read_text())["pid"] == holder.pid
    make.commit(project, make.edits(1))
    assert not (project.path / "lock.json").exists()


def test_the_lock_is_free_again_after_an_error(project, make):
    with pytest.raises(RuntimeError), open_writer(project):
        raise RuntimeError
    with (
        pytest.raises(ProjectLockedError, match=f"process {os.getpid()} "),
        open_writer(project),
        open_writer(project),
    ):
        pass
    make.commit(project, make.edits(1))


def look(path, commits):
    """Open the newest snapshot, and hold all that it says against the count of its edits."""
    keys = np.float32([[commit, at, 0, 0, 0, 0] for commit in range(commits) for at in range(3)])
    reader = Project.open(path)
    nearest = [near[0] for near in reader.nearest(keys, 1) if near]
    expected = reader.info.counts["edits"]
    assert [near.edit_id for near in nearest[:expected]] == [f"e{at:06d}" for at in range(1, expected + 1)]
    assert all(near.distance == 0.0 for near in nearest[:expected])
    assert all(near.distance > near.radius for near in nearest[expected:])
    assert len(reader.edits()) == expected == reader.edit_counts["live"] == 3 * len(reader.block_ids())
    for name in reader.block_ids()[-1:]:
        assert reader.block(name).slices["m"].scale == float(expected // 3)
    return reader.snapshot


def test_readers_always_see_one_whole_snapshot(project, torture, tally):
    commits = 200 if torture else 40
    writer = subprocess.Popen([sys.executable, "-c", COMMIT, str(project.path), str(commits)])
    readers = [os.fork() for _ in range(3)] if torture else []
    if 0 in readers:  # a reader in a process of its own; its exit code says whether a look failed
        code = 1
        try:
            while look(project.path, commits) < commits:
                pass
            code = 0
        finally:
            os._exit(code)
    seen = set()
    while writer.poll() is None:
        seen.add(look(project.path, commits))
        tally["looks of a reader while a writer commits"] += 1
    assert writer.returncode == 0
    assert [os.waitpid(reader, 0)[1] for reader in readers] == [0] * len(readers)
    assert len(seen) > 3, "the reader looked while the writer worked"
    assert Project.open(project.path).snapshot == commits
    assert verify(project.path) == []


TAKE_TURNS = """
import sys
import numpy as np
from melo_store.project import Project
from melo_store.records import LoraSlice, NewEdit
from melo_store.writer import open_writer
one = np.ones((1, 4), np.float32)
for commit in range(int(sys.argv[3])):
    with open_writer(Project.open(sys.argv[1]), timeout=300) as writer:
        edit = NewEdit(prompt=f"{sys.argv[2]} {commit}", target="t", label=(commit,), block="b", radius=0.1,
                       key=np.float32([commit, int(sys.argv[2]), 0, 0, 0, 0]))
        staged = writer.stage([edit], {"b": {"m": LoraSlice(one, one.T.copy(), 1.0)}})
        staged.commit(recipe={}, seed=0, versions={})
"""


def test_writers_take_turns_and_none_loses_a_commit(project, torture, tally):
    writers, commits = (4, 40) if torture else (2, 6)
    processes = [
        subprocess.Popen([sys.executable, "-c", TAKE_TURNS, str(project.path), str(number), str(commits)])
        for number in range(writers)
    ]
    assert [process.wait(600) for process in processes] == [0] * writers
    again = Project.open(project.path)
    assert again.snapshot == writers * commits
    made = [f"{number} {commit}" for number in range(writers) for commit in range(commits)]
    assert sorted(view.prompt for view in again.edits()) == sorted(made)
    assert again.edit_counts["live"] == writers * commits
    assert verify(project.path) == []
    tally["commits of writers that race"] += writers * commits


def test_readers_go_on_while_snapshots_are_compacted_and_dropped(project, make, quick_disk, torture, tally):
    """One that opens meanwhile sees the newest; one whose own snapshot was dropped gets an error."""
    import threading

    from melo_store.maintenance.gc import collect

    make.commit(project, make.edits(3))
    keys = np.stack([view.record.key for view in Project.open(project.path).edits()])
    failed, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            try:
                reader = Project.open(project.path)
                edit_ids = [near.edit_id for (near,) in reader.nearest(keys, 1)]
                assert edit_ids == ["e000001", "e000002", "e000003"]
            except DamagedProjectError:
                if reader.snapshot >= manifest.read_head(project.path).oldest:
                    failed.append("a snapshot that is kept could not be read")
                    return
            except BaseException as error:  # noqa: BLE001  reported by the test's own thread
                failed.append(error)
                return
            tally["looks of a reader while snapshots are dropped"] += 1

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for part in range(12 if torture else 3):
            with open_writer(Project.open(project.path)) as writer:
                for at in range(12):
                    make.commit_with(writer, [make.edit(f"later {part} {at}", label=(part, at))])
            collect(project.path, versions=make.versions, keep=6)
    finally:
        stop.set()
        thread.join()
    assert failed == []
