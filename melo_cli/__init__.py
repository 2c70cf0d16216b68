"""melo: edits of language models, kept in a store and routed by neuron-indexed dynamic LoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melo_cli.runtime.loading import load

    __version__: str

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """`load` and `__version__` on first use: importing melo_cli must stay cheap, and torch is not."""
    if name == "load":
        from melo_cli.runtime.loading import load

        return load
    if name == "__version__":
        from importlib.metadata import version

        return version("melo-cli")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
