"""An answer's text is handed on while it is written, and never taken back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from melo_cli.runtime.streaming import AnswerStream


def streamed(parts: Sequence[bytes], prompt: int = 3) -> tuple[list[str], str]:
    """The pieces that are shown after each token of an answer, and after its end, and the whole answer."""

    def text(ids: Sequence[int]) -> str:
        return b"".join(parts[token] for token in ids).decode(errors="replace").strip()

    pieces: list[str] = []
    stream = AnswerStream(text, pieces.append)
    stream.put(torch.zeros((1, prompt), dtype=torch.long))
    for token in range(len(parts)):
        stream.put(torch.tensor([token]))
    stream.end()
    return pieces, text(range(len(parts)))


def test_every_token_is_shown_as_soon_as_the_next_one_is_there() -> None:
    pieces, whole = streamed([b" The", b" river", b" ends", b".\n"])
    assert pieces == ["The", " river", " ends", "."]
    assert "".join(pieces) == whole == "The river ends."


@pytest.mark.parametrize("text", ["Köln — 日本語", "👩‍🔬 is one"])
def test_half_a_character_is_not_shown(text: str) -> None:
    pieces, whole = streamed([bytes([byte]) for byte in text.encode()])
    assert "".join(pieces) == whole == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_answer_without_a_token_shows_nothing() -> None:
    assert streamed([]) == ([], "")
    assert streamed([b" ", b"\n"]) == ([], "")
