"""Texts from data and models, made harmless and short, and written to a stream.

A control character in an answer must not reach the terminal.
"""

from __future__ import annotations

import sys
import unicodedata
from datetime import datetime
from typing import TextIO

# Joiners that Persian, Indic scripts and emoji need; the other invisible characters are shown as escapes.
_JOINERS = "\u200c\u200d"
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str, keep: str = "") -> str:
    r"""One line without control characters: a line break shows as `\n`, an escape as `\x1b`.

    Args:
        keep: control characters that stay as they are.
    """
    return "".join(character if character in keep else _shown(character) for character in text)


def shortened(text: str, length: int = 60) -> str:
    """The beginning of a text, where the whole would drown a table."""
    shown = printable(text)
    return shown if len(shown) <= length else f"{shown[: length - 3]}..."


def to_the_second(moment: datetime) -> str:
    """A moment as tables show it: `2026-11-24 09:30:00`."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def write_line(stream: TextIO, text: str) -> None:
    """Write a line at once."""
    stream.write(f"{text}\n")
    stream.flush()


def write_passage(text: str) -> None:
    """Write text to stdout at once, with its line breaks and tabs and without other control characters."""
    sys.stdout.write(printable(text, keep="\n\t"))
    sys.stdout.flush()


def _shown(character: str) -> str:
    if unicodedata.category(character) in _INVISIBLE and character not in _JOINERS:
        return character.encode("unicode_escape").decode("ascii")
    return character
