"""What tests of scope have in common."""

from __future__ import annotations

QUICK_SCOPE = {"questions": 200}
"""A recipe's `calibration` with which scope is learnt in seconds; hard prompts do not fire all the same."""

VERIFIED = {"key": {}, "routing": {"scope": "verified"}, "calibration": QUICK_SCOPE}
"""Sections of a recipe whose edits answer for what the scope model verifies."""
