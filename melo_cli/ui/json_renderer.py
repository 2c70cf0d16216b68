"""JSON, for programs: documents on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from melo_cli.ui.elements import View
from melo_cli.ui.renderer import Messages, Renderer
from melo_cli.ui.text import write_line


class JsonRenderer(Renderer):
    """Results as JSON documents.

    Args:
        lines: each document takes one line, for commands that show many.
    """

    def __init__(self, messages: Messages, *, lines: bool = False) -> None:
        super().__init__(messages)
        self._indent = None if lines else 2

    def heading(self, text: str) -> None:
        """A message: stdout is for documents alone."""
        self.info(text)

    def show(self, view: View) -> None:
        """The document of the view; numbers that JSON has no word for become null."""
        if view.document is not None:
            document, ascii_only = _finite(view.document), not _stdout_is_utf8()
            text = json.dumps(document, indent=self._indent, ensure_ascii=ascii_only, allow_nan=False)
            write_line(sys.stdout, text)


def _stdout_is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
