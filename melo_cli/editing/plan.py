"""Which edits of a data set are still to be made, and in which batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from melo_cli.datasets import EditRequest


def remaining(requests: Sequence[EditRequest], recorded: Iterable[tuple[str, str]]) -> list[EditRequest]:
    """The requests that the project has no record of, in order.

    A request is told by its prompt and target; one that the data hold twice is made twice, so that a
    prompt corrected to A, to B and to A again ends at A.

    Args:
        recorded: `(prompt, target)` of every edit recorded so far, reverted ones left out.
    """
    done = Counter(recorded)
    left = []
    for request in requests:
        if done[(request.prompt, request.target)]:
            done[(request.prompt, request.target)] -= 1
        else:
            left.append(request)
    return left


def batches(requests: Sequence[EditRequest], size: int) -> list[list[EditRequest]]:
    """The requests in batches of `size` at most; a prompt comes up once a batch.

    A prompt asked for again starts a new batch: the newer edit supersedes what is already stored.
    """
    found: list[list[EditRequest]] = []
    prompts: set[str] = set()
    for request in requests:
        if not found or len(found[-1]) == size or request.prompt in prompts:
            found.append([])
            prompts = set()
        found[-1].append(request)
        prompts.add(request.prompt)
    return found
