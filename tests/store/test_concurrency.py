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

from store.errors import ProjectLockedError
from store.project import Project
from store.verify import verify

HOLD = """
import sys, time
from store.project import Project
with Project.open(sys.argv[1]).writer():
    print("held", flush=True)
    time.sleep(60)
"""

COMMIT = """
import sys
import numpy as np
from store.project import Project
from store.records import LoraSlice, NewEdit
one = np.ones((1, 4), np.float32)
with Project.open(sys.argv[1]).writer() as writer:
    for commit in range(40):
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


def test_a_second_writer_is_told_who_holds_the_lock(project, holder):
    with pytest.raises(ProjectLockedError) as caught, project.writer():
        pass
    message = str(caught.value)
    assert f"process {holder.pid} on {socket.gethostname()} since 20" in message
    assert message.endswith("wait for it to finish, or stop it")
    assert Project.open(project.path).snapshot == 0, "readers do not wait"


def test_a_writer_can_wait_for_the_other(project, holder, make):
    start = time.monotonic()
    with pytest.raises(ProjectLockedError), project.writer(timeout=0.3):
        pass
    assert time.monotonic() - start >= 0.3
    holder.terminate()
    with project.writer(timeout=20) as writer:
        make.commit_with(writer, make.edits(1))


def test_a_lock_left_by_a_dead_process_does_not_block(project, holder, make):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert json.loads((project.path / "lock.json").read_text())["pid"] == holder.pid
    make.commit(project, make.edits(1))
    assert not (project.path / "lock.json").exists()


def test_the_lock_is_free_again_after_an_error(project, make):
    with pytest.raises(RuntimeError), project.writer():
        raise RuntimeError
    with (
        pytest.raises(ProjectLockedError, match=f"process {os.getpid()} "),
        project.writer(),
        project.writer(),
    ):
        pass
    make.commit(project, make.edits(1))


def test_readers_always_see_one_whole_snapshot(project):
    process = subprocess.Popen([sys.executable, "-c", COMMIT, str(project.path)])
    seen = set()
    keys = np.float32([[commit, at, 0, 0, 0, 0] for commit in range(40) for at in range(3)])
    while process.poll() is None:
        reader = Project.open(project.path)
        routes = reader.lookup(keys)
        fired = [route.fired for route in routes]
        expected = 3 * reader.snapshot
        assert [f.edit_id for f in fired[:expected]] == [f"e{at:06d}" for at in range(1, expected + 1)]
        assert fired[expected:] == [None] * (120 - expected)
        assert len(reader.edits()) == expected == reader.edit_counts["live"]
        for name in reader.block_ids()[-1:]:
            assert reader.block(name).slices["m"].scale == float(reader.snapshot)
        seen.add(reader.snapshot)
    assert process.returncode == 0
    assert len(seen) > 3, "the reader looked while the writer worked"
    assert Project.open(project.path).snapshot == 40
    assert verify(project.path) == []
