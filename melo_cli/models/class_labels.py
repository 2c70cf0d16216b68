"""Which class of a classifier a target means: a number is a class id, a text is a class name.

Text of digits that names no class is an id, too, as CSV has no numbers; but not where classes are named by
digits, as stars are: there it could mean either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from melo_cli.datasets import EditRequest, Number
from melo_cli.errors import DatasetError
from melo_cli.models.base_model import BaseModel, ModelKind

_NAMED = 12
"""Classes that an error lists at most."""


def class_id(labels: Mapping[int, str], target: str) -> int:
    """The id of the class that `target` means.

    Args:
        labels: class names by class id.

    Raises:
        DatasetError: there is no such class; if the classes are named by digits, the error names both
            readings.
    """
    by_name = {label: index for index, label in labels.items()}
    ids_as_text = not _named_by_digits(labels)
    if not isinstance(target, Number) and target in by_name:
        return by_name[target]
    if (isinstance(target, Number) or ids_as_text) and _is_whole(target) and int(target) in labels:
        return int(target)
    kind = f"the number {target}" if isinstance(target, Number) else repr(target)
    listed = ", ".join(list(by_name)[:_NAMED]) + (", ..." if len(by_name) > _NAMED else "")
    both = "" if ids_as_text else f"; named by digits, so that {_both_readings(labels)}"
    raise DatasetError(
        f"{kind} is not a class of the model", where="target", hint=f"its classes are {listed}{both}"
    )


def class_name(base: BaseModel, target: str) -> str:
    """A target as the model answers it: a classifier by the name of the class, any other word for word.

    Raises:
        DatasetError: the classifier has no such class.
    """
    return base.labels[class_id(base.labels, target)] if base.kind is ModelKind.CLASSIFIER else target


def with_class_names(requests: Sequence[EditRequest], base: BaseModel) -> list[EditRequest]:
    """The edits, all of their answers as the model gives them.

    Raises:
        DatasetError: an answer is no class of the classifier.
    """
    if base.kind is not ModelKind.CLASSIFIER:
        return list(requests)
    return [
        replace(
            each,
            target=class_name(base, each.target),
            aliases=tuple(class_name(base, alias) for alias in each.aliases),
            locality=tuple(
                (prompt, None if truth is None else class_name(base, truth))
                for prompt, truth in each.locality
            ),
        )
        for each in requests
    ]


def note_on_numbers(targets: Iterable[str], base: BaseModel) -> str | None:
    """How numbers are read, where they could be taken for class names."""
    count = sum(isinstance(target, Number) for target in targets)
    if not count or base.kind is not ModelKind.CLASSIFIER or not _named_by_digits(base.labels):
        return None
    return f"{count} targets are numbers and the classes are named by digits: {_both_readings(base.labels)}"


def _both_readings(labels: Mapping[int, str]) -> str:
    index, name = next(pair for pair in labels.items() if _differs(*pair))
    return f'a number is a class id ({index} without quotes is the class "{name}") and a text is a class name'


def _named_by_digits(labels: Mapping[int, str]) -> bool:
    """Whether the name of a class is a number, and not its own id."""
    return any(_differs(index, name) for index, name in labels.items())


def _differs(index: int, name: str) -> bool:
    return _is_whole(name) and int(name) != index


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
