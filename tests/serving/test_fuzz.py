"""Requests of every shape, those that the schema allows and others: none is a fault of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from served import serving

from melo_cli.serving.run import ServeSettings
from melo_cli.serving.settings import Limits

_TRAINS = ("POST", "/melo/edits")
"""An edit is trained for seconds: its bodies are tested in test_following.py."""


def test_no_request_is_a_fault_of_the_server(own_project: Path) -> None:
    limits = Limits(max_tokens=4, prompts=4, timeout=60)
    with serving(own_project, ServeSettings(limits=limits)) as running:
        schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        tried = [each for each in operations if (each.method.upper(), each.path) != _TRAINS]
        assert len(tried) == len(operations) - 1 > 10
        for operation in tried:
            _try(operation)


def _try(operation: Any) -> None:
    @given(case=st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)))
    @settings(max_examples=15, suppress_health_check=list(HealthCheck), database=None)
    def answered(case: Any) -> None:
        response = case.call(timeout=60)
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    answered()
