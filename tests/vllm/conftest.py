"""Collected by `make test-vllm` alone, which names the command `vllm` in $MELO_VLLM."""

from __future__ import annotations

import os

collect_ignore_glob = [] if "MELO_VLLM" in os.environ else ["test_*.py"]
