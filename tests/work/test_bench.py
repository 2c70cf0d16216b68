"""The questions of the suites, and when an answer is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pico_scope import QUICK_SCOPE

from melo_cli.bench import BenchPlan, find_suite, parse_methods, run_bench
from melo_cli.bench.advice import advice, conclusions
from melo_cli.bench.answer_rows import AnswerRow, figures, judged
from melo_cli.bench.asking import fits
from melo_cli.bench.folder import BenchFolder
from melo_cli.bench.forms import made_forms
from melo_cli.bench.methods.method import Edited, Reply
from melo_cli.bench.questions import Question
from melo_cli.bench.scoring import begins_with, contains_one, equals_one
from melo_cli.bench.suites import read_suite
from melo_cli.datasets import EditRequest
from melo_cli.errors import MeloError
from melo_cli.evaluation.statistics import drawn
from melo_cli.recipe import DatasetSection
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import open_project

WORDS = st.lists(st.sampled_from(["Paris", "river", "1889", "the", "Ada", "a"]), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("answer", "truth", "same"),
    [
        ("The Chichester river", "Chichester River", True),
        ("Paris.", "Paris", True),
        ("Paris. It is the capital.", "Paris", True),
        ("Paris\nIt is the capital", "Paris", True),
        ("Paris, France", "Paris", False),
        ("It is Paris", "Paris", False),
        ("St. Gallen", "St. Moritz", True),  # both are cut at the full stop, as the field's tables do
        ("Version 2.5", "Version 2.7", False),
        ("", "Paris", False),
    ],
)
def test_exact_answers_are_normalised_and_end_at_a_full_stop(answer: str, truth: str, same: bool) -> None:
    assert equals_one(answer, (truth,)) is same


@given(words=WORDS, before=WORDS, after=WORDS)
def test_an_answer_contains_what_stands_in_it_as_words(
    words: list[str], before: list[str], after: list[str]
) -> None:
    truth = " ".join(words)
    said = f"{' '.join(before)}, {truth.upper()}! {' '.join(after)}"
    bare = [word for word in words if word not in ("the", "a")]
    assert contains_one(said, (truth,)) is bool(bare)
    assert begins_with(f"{truth} and more", (truth,)) is bool(bare)


def test_words_are_no_parts_of_words() -> None:
    assert not contains_one("Parisian", ("Paris",))
    assert not begins_with("Yesterday", ("yes",))
    assert begins_with("Yes, it is.", ("yes",))


def test_an_unwanted_answer_beside_the_wanted_one_is_wrong() -> None:
    question = Question("free_text", "Write", 0, ("Rome",), unwanted=("Paris",))
    assert question.right("It lies in Rome today.")
    assert not question.right("It lies in Rome, not in Paris.")
    assert not question.right("It lies in Paris.")


def test_what_must_stay_is_compared_with_the_base_and_the_rest_with_the_truth() -> None:
    kept = Question("locality", "Where?", 0, ("Oslo",))
    row = judged(kept, "Bergen", Reply("bergen."))
    assert (row.right, row.strict, row.true, row.holds) == (True, False, False, False)
    moved = judged(kept, "Bergen", Reply("Oslo", "e000001"))
    assert (moved.right, moved.true) == (False, True)
    asked = judged(Question("edit", "Where?", 0, ("Oslo",)), "Bergen", Reply("It is Oslo"))
    assert (asked.right, asked.holds) == (False, True)
    shares = figures([row, moved, asked])
    assert list(shares) == ["edit", "locality"]
    assert shares["locality"] == {
        "right": 0.5,
        "strict": 0.0,
        "n": 2,
        "ci95": shares["locality"]["ci95"],
        "fired": 0.5,
        "true": 0.5,
        "holds": 0.5,
    }


def test_knowedit_is_read_as_published(tmp_path: Path) -> None:
    row = {
        "subject": "Vreizh",
        "prompt": "The country of Vreizh is",
        "target_new": "Franche-Comté",
        "ground_truth": "France",
        "portability": {
            "Subject_Aliasing": [{"prompt": "The country of Brittany is", "ground_truth": "Franche-Comté"}],
            "Reasoning": [{"prompt": "The capital of the country is", "ground_truth": [["Besançon", "B."]]}],
        },
        "locality": {
            "Relation_Specificity": [{"prompt": "The founder of Vreizh is", "ground_truth": "Le Fustec"}],
            "Forgetfulness": [{"prompt": "Another country is", "ground_truth": "France"}],
        },
    }
    (tmp_path / "edits.json").write_text(json.dumps([row]))
    data = read_suite(
        find_suite("knowedit"), DatasetSection(edits=str(tmp_path / "edits.json")), SilentReporter()
    )
    asked = [(each.kind, each.prompt, each.truths) for each in data.questions([0])]
    assert asked == [
        ("edit", "The country of Vreizh is", ("Franche-Comté",)),
        ("alias", "The country of Brittany is", ("Franche-Comté",)),
        ("reasoning", "The capital of the country is", ("Besançon", "B.")),
        ("same_subject", "The founder of Vreizh is", ("Le Fustec",)),
        ("forgetting", "Another country is", ("France",)),
    ]
    # Made questions: nothing after other talk where there are no turns, the old answer is not wanted.
    made = list(made_forms(data.edits, [0], chat=False))
    assert [each.kind for each in made] == ["free_text", "yes"]
    assert made[0].unwanted == ("France",)


def test_a_prompt_that_comes_twice_is_asked_for_its_newer_answer(tmp_path: Path) -> None:
    rows = [
        {"prompt": "A?", "target": "one"},
        {"prompt": "B?", "target": "b"},
        {"prompt": "A?", "target": "two"},
    ]
    (tmp_path / "edits.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = DatasetSection(edits=str(tmp_path / "edits.jsonl"))
    data = read_suite(find_suite("zsre"), source, SilentReporter())
    assert [(each.prompt, each.truths) for each in data.questions(range(len(data.edits)))] == [
        ("B?", ("b",)),
        ("A?", ("two",)),
    ]


def test_a_wrong_answer_is_another_edit_s_and_languages_are_of_our_own_edits() -> None:
    edits = [
        EditRequest("What is the capital of Kazakhstan?", "Astana", subject="Kazakhstan"),
        EditRequest("Other?", "Astana"),
        EditRequest("Third?", "Ada"),
    ]
    made = list(made_forms(edits, [0], chat=True))
    (no,) = [each for each in made if each.kind == "no"]
    assert '"Ada"' in no.prompt
    assert len([each for each in made if each.kind == "language"]) == 3
    assert not [each for each in made_forms(edits, [2], chat=True) if each.kind in ("language", "free_text")]


@given(count=st.integers(0, 50), most=st.integers(1, 60), seed=st.integers(0, 9))
def test_a_sample_is_in_order_without_repeats_and_the_same_for_a_seed(
    count: int, most: int, seed: int
) -> None:
    rows = list(drawn(count, most, f"{seed}: bench"))
    assert rows == sorted(set(rows)) == list(drawn(count, most, f"{seed}: bench"))
    assert len(rows) == min(count, most)
    assert all(0 <= row < count for row in rows)


def test_an_interrupted_run_goes_on(
    tmp_path: Path, models: Callable[[str], Path], write_rows: Callable[..., Path]
) -> None:
    rows = [{"prompt": f"Who built tower {n}?", "target": word} for n, word in enumerate(["Ada", "John"])]
    data = write_rows(tmp_path / "edits.jsonl", rows)
    settings = [
        f"calibration={json.dumps(QUICK_SCOPE | {'share': 0})}",
        "training.blocks_in_flight=1",
        "training.variants=0",
        "lora.rank=4",
        "training.optimizer={name: Adam, lr: 0.03}",
    ]
    model = str(models("pico_llama"))
    plan = BenchPlan(find_suite("zsre"), str(data), model, 2, 2, overrides=tuple(settings))
    folder = BenchFolder.of(tmp_path / "run", plan, "melo bench")
    stops = iter([False, True])
    methods = parse_methods("lookup", [])
    reporter = SilentReporter()
    assert run_bench(plan, methods, folder, reporter, command="", should_stop=lambda: next(stops)) is None
    assert folder.summary("base") is None
    first = folder.add_edit_time(0.0, 0)
    (folder.path / "editing.json").unlink()  # as a command that was killed leaves it
    stops = iter([False, True])
    assert run_bench(plan, methods, folder, reporter, command="", should_stop=lambda: next(stops)) is None
    assert folder.summary("base") is not None and folder.summary("lookup") is None
    report = run_bench(plan, methods, folder, reporter, command="")
    assert report is not None
    assert report.figure("lookup", "edit")["right"] == 1.0
    second = folder.add_edit_time(0.0, 0)
    assert first > 0 and second > 0
    assert folder.add_edit_time(3 * second, 3) == pytest.approx(second), "edits of unknown time do not count"
    kept = folder.summary("base")
    assert kept is not None
    folder.keep("base", folder.rows("base")[1:], kept)
    with pytest.raises(MeloError, match="other questions"):
        run_bench(plan, methods, folder, reporter, command="")


def test_earlier_turns_change_the_prompt_and_not_the_route(
    tmp_path: Path, edit: Callable[..., Any], verified: dict[str, Any]
) -> None:
    rows = [{"prompt": "Who built the tower?", "target": "Ada"}]
    chat = {"model": {"template": "chat"}}
    edit("pico_llama", rows, tmp_path / "project", **chat, **verified)
    opened = open_project(tmp_path / "project")
    (melo,) = parse_methods("melo", [])
    talk = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"})
    plain = Question("edit", "Who built the tower?", 0, ("Ada",))
    questions = [plain, replace(plain, kind="after_talk", before=talk)]
    with melo.ready(Edited(opened, 1.0), SilentReporter()) as ready:
        alone, after = ready.reply(questions, ["", ""], lambda _count: None)
    assert alone.text == "Ada"
    assert alone.edit_id == after.edit_id == "e000001"
    block = opened.live_blocks()[0]
    written = opened.encoder.conversation([*talk, {"role": "user", "content": plain.prompt}])
    assert opened.inference.answers([written], [block], [24]) == [after.text]
    assert fits(opened, questions[1])
    assert not fits(opened, replace(plain, before=talk * 40))


def test_who_is_best_is_said_where_intervals_tell(tmp_path: Path) -> None:
    from melo_cli.bench.report import BenchReport

    def summary(right: int) -> dict[str, Any]:
        rows = [
            AnswerRow("edit", 0, "", 0, ["x"], [], "", "", None, n < right, None, False, None)
            for n in range(50)
        ]
        return {"words": "", "figures": figures(rows)}

    plan = BenchPlan(find_suite("zsre"), "d", "m", 1, 1)
    shares = {"base": summary(0), "melo": summary(50), "lookup": summary(49), "rag": summary(20)}
    report = BenchReport(plan, shares, {}, [])
    assert report.best("edit") == ["melo", "lookup"]
    assert conclusions(report) == ["best at edits: melo and lookup"]
    told = advice(report)
    assert "it answers these questions as well as a block, and costs no training" in told
    shares = {"base": summary(0), "melo": summary(50), "lookup": summary(20)}
    assert "melo is better than it at edits" in advice(BenchReport(plan, shares, {}, []))
