"""What a classifier's targets mean where classes are named by words, and where by digits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melo_cli.datasets import Number
from melo_cli.errors import DatasetError
from melo_cli.models.class_labels import class_id

WORDS = dict(enumerate(["civil", "criminal", "tax"]))
STARS = dict(enumerate("12345"))


@pytest.mark.parametrize(
    ("labels", "target", "expected"),
    [
        (WORDS, "tax", 2),
        (WORDS, Number(1), 1),
        (WORDS, "1", 1),
        (STARS, Number(1), 1),
        (STARS, Number(0), 0),
        (STARS, "1", 0),
        (STARS, "5", 4),
        ({0: "0", 1: "1"}, "1", 1),
        ({0: "0", 1: "1"}, Number(1), 1),
    ],
)
def test_a_number_is_an_id_and_a_text_a_name(labels: dict[int, str], target: str, expected: int) -> None:
    assert class_id(labels, target) == expected


@pytest.mark.parametrize(
    ("labels", "target", "line"),
    [
        (WORDS, "3", "'3' is not a class of the model; its classes are civil, criminal, tax"),
        (WORDS, "²", "'²' is not a class"),
        (WORDS, Number(-1), "the number -1 is not a class"),
        (STARS, "0", "'0' is not a class of the model; its classes are 1, 2, 3, 4, 5; named by digits"),
        (STARS, Number(5), "the number 5 is not a class of the model; its classes are 1, 2, 3, 4, 5"),
    ],
)
def test_what_is_no_class_is_refused(labels: dict[int, str], target: str, line: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(line)):
        class_id(labels, target)


def test_the_error_names_both_readings_where_digits_are_names() -> None:
    with pytest.raises(DatasetError) as caught:
        class_id(STARS, Number(5))
    assert 'a number is a class id (0 without quotes is the class "1") and a text is a class name' in str(
        caught.value
    )


@given(st.permutations(range(6)))
def test_every_class_is_reached_by_its_id_and_by_its_name(order: list[int]) -> None:
    labels = {index: str(name) for index, name in enumerate(order)}
    for index, name in labels.items():
        assert class_id(labels, Number(index)) == class_id(labels, name) == index
