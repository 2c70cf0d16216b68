"""The job for KubeRay in the guide has what its resource definition requires; no test runs it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from melo_cli.app import build_app

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"


@pytest.fixture(scope="module")
def job() -> Any:
    return yaml.safe_load((GUIDES / "rayjob.yaml").read_text(encoding="utf-8"))


def groups(job: Any) -> Iterator[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    yield cluster["headGroupSpec"]
    yield from cluster["workerGroupSpecs"]


def test_it_has_the_fields_that_kuberay_requires(job: Any) -> None:
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    assert job["spec"]["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
    assert job["spec"]["rayClusterSpec"]["authOptions"]["mode"] in ("token", "disabled")
    for group in groups(job):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert {"name", "image", "resources"} <= container.keys()
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["groupName"]
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_every_pod_sees_the_shared_folder_under_the_same_path(job: Any) -> None:
    mounts = []
    for group in groups(job):
        pod = group["template"]["spec"]
        (mount,), (volume,) = pod["containers"][0]["volumeMounts"], pod["volumes"]
        assert mount["name"] == volume["name"]
        mounts.append((mount["mountPath"], volume["persistentVolumeClaim"]["claimName"]))
    assert len(set(mounts)) == 1
    assert f"cd {mounts[0][0]} &&" in job["spec"]["entrypoint"]


def test_its_command_is_one_of_melo(job: Any) -> None:
    import typer

    script = shlex.split(job["spec"]["entrypoint"])[-1]
    words = shlex.split(script.partition("&& ")[2])
    assert words[:2] == ["melo", "edit"]
    command = typer.main.get_command(build_app(["edit"]))
    edit = getattr(command, "commands", {"edit": command})["edit"]
    known = {option for each in edit.params for option in each.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_versions_of_ray_agree(job: Any) -> None:
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    guide = (GUIDES / "ray.md").read_text(encoding="utf-8")
    image = re.search(r"FROM rayproject/ray:([\d.]+)-", guide)
    assert pinned is not None and image is not None
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1] == image[1]
