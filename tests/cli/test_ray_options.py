"""`--ray` where there is no Ray, and where it means nothing; what it does is tested by `make test-ray`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Melo = Callable[..., Any]


@pytest.mark.parametrize("command", [("edit", "recipe.yaml"), ("eval",), ("calibrate",)])
def test_without_the_extra_one_line_says_how_to_install_it(
    command: tuple[str, ...], here: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melo_cli.commands._ray.find_spec", lambda name: None)
    run = melo(*command, "--ray", "local")
    assert run.code == 2
    assert run.error == "--ray: Ray is not installed; pip install 'melo-cli[ray]'"


@pytest.mark.parametrize("option", [("--workers", "2"), ("--gpus-per-worker", "0.5")])
def test_the_workers_of_no_cluster_are_refused(option: tuple[str, str], here: Path, melo: Melo) -> None:
    run = melo("eval", *option)
    assert (run.code, run.error) == (2, f"{option[0]}: {option[0]} goes with --ray; add --ray local")


def test_an_address_for_rays_client_is_refused(
    here: Path, melo: Melo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melo_cli.commands._ray.find_spec", lambda name: object())
    run = melo("edit", "recipe.yaml", "--ray", "ray://head:10001")
    assert run.code == 2
    assert run.error.startswith("--ray ray://head:10001: Ray's client is not supported; run the command on")


def test_a_single_edit_is_made_without_a_cluster(here: Path, melo: Melo) -> None:
    run = melo("edit", "--prompt", "Who was it?", "--target", "Ann", "--ray", "local")
    assert run.code == 2
    assert run.error.startswith("--ray: a single edit is made in this process; leave --ray out")
