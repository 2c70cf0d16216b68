"""`--ray` on a cluster of two nodes: the same results as one process, whatever dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from melo_process import Melo
from ray.cluster_utils import Cluster
from safetensors.torch import load_file, save_file
from same_projects import content_of

from melo_cli.distributed import ClusterOptions, RaySession, ray_session, session, worker
from melo_cli.distributed.cluster import plan_workers
from melo_cli.distributed.reading import RayReader
from melo_cli.errors import ClusterError
from melo_cli.models.base_model import BaseModel
from melo_cli.recipe import Recipe, load_recipe
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import load_base, open_project, resolve_recipe
from melo_cli.scope.core.tuning import Tuning
from melo_cli.scope.reading import reader_for
from melo_cli.torch_threads import one_thread
from melo_cli.versions import library_versions
from melo_store.format.documents import Pointer

EDIT = ("edit", "pico.yaml")
"""18 edits and more, in groups of four: some seconds, in which there is time to kill what works."""


def on(cluster: Cluster, *more: object) -> tuple[object, ...]:
    return ("--ray", cluster.address, "--workers", "2", *more)


class TestTheSameResult:
    def test_of_edits(self, melo: Melo, one_process: Path, two_nodes: Cluster) -> None:
        statuses = Counter(edit.status for edit in open_project(one_process).project.edits())
        assert min(statuses[status] for status in ("live", "superseded", "already_right")) > 2

        out, err = melo(*EDIT, "--project", "two-workers", *on(two_nodes))
        assert "starting 2 workers with 1 thread each on Ray" in err
        assert content_of(melo.folder / "two-workers") == content_of(one_process)
        assert f"already right  {statuses['already_right']}" in out

    def test_of_edits_under_the_rule_radius(self, melo: Melo, two_nodes: Cluster) -> None:
        melo("edit", "radius.yaml", "--project", "radius-one")
        melo("edit", "radius.yaml", "--project", "radius-two", *on(two_nodes))
        assert content_of(melo.folder / "radius-two") == content_of(melo.folder / "radius-one")

    def test_of_an_evaluation(self, melo: Melo, one_process: Path, two_nodes: Cluster) -> None:
        evaluation = ("eval", "--project", one_process.name, "--json", "--baseline", "finetune")
        reports = [json.loads(melo(*evaluation, *more)[0]) for more in ((), on(two_nodes))]
        assert without_seconds(reports[0]) == without_seconds(reports[1])

    def test_of_a_calibration_with_nothing_in_the_cache(
        self, melo: Melo, one_process: Path, two_nodes: Cluster, tmp_path: Path
    ) -> None:
        arrays = {}
        for name, more in (("one", ()), ("two", on(two_nodes))):
            project = Path(shutil.copytree(one_process, tmp_path / name))
            fresh = Melo(melo.folder, {"MELO_CACHE": str(tmp_path / f"cache-{name}")})
            _, err = fresh("calibrate", "--project", project, *more)
            assert "learning scope: reading the corpus" in err
            arrays[name] = open_project(project).project.key_map.arrays
            arrays[f"content of {name}"] = content_of(project)
        assert {key: array.tobytes() for key, array in arrays["one"].items()} == {
            key: array.tobytes() for key, array in arrays["two"].items()
        }
        assert arrays["content of one"] == arrays["content of two"]

    def test_of_reading_with_a_tuned_encoder(self, melo: Melo, two_nodes: Cluster, pico_bert: Path) -> None:
        recipe = load_recipe(melo.folder / "pico.yaml", [f"key.encoder={pico_bert}"])
        loaded = load_base(recipe, recipe.model, None, SilentReporter())
        recipe = resolve_recipe(recipe, loaded)
        assert loaded.encoder is not None
        name, drawn = "encoder.layer.1.output.dense", torch.Generator().manual_seed(0)
        out, into = loaded.encoder.model.get_submodule(name).weight.shape
        tuning = Tuning({name: (torch.randn(2, into, generator=drawn), torch.randn(out, 2, generator=drawn))})
        lines = (melo.folder / "facts.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["prompt"] for line in lines]
        here = reader_for(loaded, recipe.key.layer)
        with session_on(two_nodes) as running:
            there = RayReader(running, recipe, loaded)
            plain, tuned = there.read(texts), there.tuned(tuning).read(texts)
        with one_thread():  # as a worker of one processor
            assert torch.equal(plain.whole, here.read(texts).whole)
            assert torch.equal(tuned.whole, here.tuned(tuning).read(texts).whole)
        assert not torch.equal(tuned.whole, plain.whole)


def without_seconds(report: Any) -> Any:
    if isinstance(report, dict):
        return {name: without_seconds(value) for name, value in report.items() if "seconds" not in name}
    return report


class TestWhatDies:
    def test_a_worker(
        self, melo: Melo, one_process: Path, two_nodes: Cluster, kill_worker: Callable[[], None]
    ) -> None:
        running = melo.start(*EDIT, "--project", "killed-worker", *on(two_nodes))
        melo.until_snapshot("killed-worker", 3, running)
        kill_worker()
        _, err = melo.end(running)
        assert "a Ray worker died; what it had in hand is done again" in err
        assert content_of(melo.folder / "killed-worker") == content_of(one_process)

    def test_a_node(self, melo: Melo, one_process: Path, two_nodes: Cluster) -> None:
        running = melo.start(*EDIT, "--project", "killed-node", *on(two_nodes))
        melo.until_snapshot("killed-node", 3, running)
        (second,) = two_nodes.worker_nodes
        two_nodes.remove_node(second, allow_graceful=False)
        _, err = melo.end(running)
        assert "a Ray worker died" in err
        assert content_of(melo.folder / "killed-node") == content_of(one_process)

    def test_the_driver(self, melo: Melo, one_process: Path, two_nodes: Cluster) -> None:
        command = (*EDIT, "--project", "killed-driver", *on(two_nodes))
        running = melo.start(*command)
        melo.until_snapshot("killed-driver", 4, running)
        running.kill()
        running.communicate()
        _, err = melo(*command)
        assert "edits are in the project already" in err
        assert content_of(melo.folder / "killed-driver") == content_of(one_process)

    def test_nothing_but_ctrl_c(self, melo: Melo, one_process: Path, two_nodes: Cluster) -> None:
        running = melo.start(*EDIT, "--project", "interrupted", *on(two_nodes))
        melo.until_snapshot("interrupted", 3, running)
        running.send_signal(signal.SIGINT)
        _, err = melo.end(running, code=130)
        assert "stopping after the batch in hand" in err
        assert "the same command goes on where it stopped" in err
        assert "Traceback" not in err
        # It goes on in one process as well as on the cluster.
        melo(*EDIT, "--project", "interrupted")
        assert content_of(melo.folder / "interrupted") == content_of(one_process)

    def test_workers_again_and_again(
        self, two_nodes: Cluster, base: Loaded, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Deadly(worker.Worker):
            def load(self, spec: object) -> None:
                os._exit(1)

        deadly = ray.remote(concurrency_groups={"watch": 1})(Deadly)
        monkeypatch.setattr("melo_cli.distributed.pool.worker_class", lambda: deadly)
        message = "Ray workers died 5 times while they started.*fewer --workers leave more memory"
        with session_on(two_nodes) as running, pytest.raises(ClusterError, match=message):
            running.with_base(*base)


Loaded = tuple[Recipe, BaseModel]


@pytest.fixture
def base(melo: Melo, pico_llama: Path, tmp_path: Path) -> Loaded:
    """A resolved recipe with its base model, whose folder the test may change."""
    folder = shutil.copytree(pico_llama, tmp_path / "base")
    recipe = load_recipe(melo.folder / "pico.yaml", [f"model.name_or_path={folder}"])
    loaded = load_base(recipe, recipe.model, None, SilentReporter())
    return resolve_recipe(recipe, loaded), loaded


def session_on(cluster: Cluster) -> AbstractContextManager[RaySession]:
    return ray_session(ClusterOptions(cluster.address, workers=1), SilentReporter())


class TestNodesThatDoNotFit:
    def test_another_base_model(self, two_nodes: Cluster, base: Loaded, pico_bert: Path) -> None:
        recipe, loaded = base
        folder = Path(recipe.model.name_or_path)
        weights = load_file(folder / "model.safetensors")
        save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / "model.safetensors")
        message = "Ray worker on .*but .* differs in weights; use the base model that the project was made on"
        with session_on(two_nodes) as running, pytest.raises(ClusterError, match=message):
            running.with_base(recipe, loaded)

    def test_no_base_model(self, two_nodes: Cluster, base: Loaded) -> None:
        shutil.rmtree(base[0].model.name_or_path)
        with session_on(two_nodes) as running, pytest.raises(ClusterError, match="Ray worker on .*/base"):
            running.with_base(*base)

    def test_other_libraries(self, two_nodes: Cluster, base: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
        ours = library_versions() | {"torch": "1.0"}
        monkeypatch.setattr(session, "library_versions", lambda: ours)
        message = "Ray worker on .*: the node has torch .* instead of 1.0; install the same versions"
        with session_on(two_nodes) as running, pytest.raises(ClusterError, match=message):
            running.with_base(*base)

    def test_a_project_in_a_folder_of_one_node(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker, "_SHARED_FOLDER_SECONDS", 0.1)
        spec = worker.ProjectSpec(tmp_path / "nowhere", Pointer(3, 10, "0" * 64), 3, 0)
        refused = worker.Worker().open(spec)
        assert isinstance(refused, worker.Refusal)
        assert str(refused.error()).endswith(
            f"{tmp_path}/nowhere: the node does not see the project, or not its newest snapshot; "
            "put the project in a folder that all nodes share, with --project"
        )

    def test_no_cluster(self, melo: Melo) -> None:
        _, err = melo("edit", "pico.yaml", "--project", "none", "--ray", "127.0.0.1:1", code=2)
        assert "--ray 127.0.0.1:1: no Ray cluster answers there" in err
        assert "start one with `ray start --head`, or use --ray local" in err


CPU, GPU = {"CPU": 8.0}, {"CPU": 32.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("nodes", "device", "more", "planned"),
    [
        ([CPU], "auto", {}, (2, 4, 0, "cpu")),
        ([CPU, CPU], "auto", {}, (4, 4, 0, "cpu")),
        ([CPU, CPU], "auto", {"workers": 3}, (3, 4, 0, "cpu")),
        ([CPU, CPU], "auto", {"workers": 1}, (1, 8, 0, "cpu")),
        ([{"CPU": 1.0}], "auto", {}, (1, 1, 0, "cpu")),
        ([{"CPU": 2.0}], "auto", {}, (2, 1, 0, "cpu")),
        ([CPU], "auto", {"threads": "1"}, (2, 1, 0, "cpu")),
        ([GPU, CPU], "auto", {}, (4, 8, 1, "cuda")),
        ([GPU, GPU], "cuda", {"gpus_per_worker": 0.5}, (16, 4, 0.5, "cuda")),
        ([GPU, GPU], "auto", {"gpus_per_worker": 2}, (4, 16, 2, "cuda")),
        ([GPU], "cpu", {}, (8, 4, 0, "cpu")),
        ([GPU], "auto", {"gpus_per_worker": 0}, (8, 4, 0, "cpu")),
        ([CPU], "mps", {}, (2, 4, 0, "mps")),
        ([GPU], "cuda:1", {}, (4, 8, 1, "cuda")),
    ],
)
def test_workers_are_planned_for_the_nodes(
    nodes: list[dict[str, float]],
    device: str,
    more: dict[str, Any],
    planned: tuple[int, int, float, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = more.pop("threads", None) if more else None
    monkeypatch.setenv("OMP_NUM_THREADS", threads or "")
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    plan = plan_workers(ClusterOptions("auto", **more), device)
    assert (plan.workers, plan.threads, plan.gpus, plan.device) == planned


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (1.5, "--gpus-per-worker: 1.5 GPUs cannot be given to a worker; name a whole number"),
        (8.0, "--gpus-per-worker: no node of the cluster has 8 GPUs; name fewer, or 0 to work on CPUs"),
    ],
)
def test_gpus_that_no_node_has_are_refused(
    share: float, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": GPU}])
    with pytest.raises(ClusterError) as refused:
        plan_workers(ClusterOptions("auto", gpus_per_worker=share), "auto")
    assert str(refused.value).startswith(message)
