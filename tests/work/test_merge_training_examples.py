"""The prompts that a merge learns from: made of what may be learned, never of what is measured."""

from __future__ import annotations

import random
from collections.abc import Callable

from melo_cli.datasets import EditRequest
from melo_cli.editing import EditSummary
from melo_cli.evaluation import collect_probes
from melo_cli.exporting.merging.phrasings import HardPrompts
from melo_cli.exporting.merging.training_examples import ExampleSettings, make_training_examples
from melo_cli.paraphrase.question_frames import QuestionFrames
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import open_project

FRANCE = EditRequest(
    "What is the capital of France?", "Lyon", ("Which city governs France?",), subject="France"
)
PERU = EditRequest("What is the capital of Peru?", "Lima", subject="Peru")
DANUBE = EditRequest("Where does the Danube rise?", "Brno", subject="Danube")


def test_a_frame_known_of_one_subject_carries_over_to_every_other() -> None:
    frames = QuestionFrames([FRANCE])
    assert frames.of("What is the capital of Peru?", "Peru") == ["Which city governs Peru?"]
    assert frames.of("Which city governs Peru", "Peru") == ["What is the capital of Peru?"]
    assert frames.of("Where is Peru?", "Peru") == []
    assert frames.of("What is the capital of Peru?", None) == []


def test_lookalikes_ask_of_other_subjects_or_something_else_and_are_no_edits() -> None:
    edits = [FRANCE, PERU, DANUBE]
    drawn = random.Random(0)
    lookalikes = HardPrompts(edits, ["Chad"], ["who painted the night watch"], QuestionFrames([]), drawn)
    excluded = {"what is the capital of peru?", "where does the chad rise?"}
    prompts = lookalikes.of(FRANCE, 40, excluded)
    assert len(prompts) == len(set(prompts)) > 10
    assert not excluded & {text.casefold() for text in prompts}
    for text in prompts:
        # Of France the Danube's question alone, and France's question never of Peru, which is an edit too.
        assert ("France" in text) == ("rise" in text or "Where" in text or "does" in text), text
        assert "Peru" not in text or "France" not in text
    assert any("Chad" in text for text in prompts)


def test_without_a_subject_the_words_of_two_prompts_are_crossed() -> None:
    edits = [EditRequest("one two three four", "a"), EditRequest("five six seven eight", "b")]
    lookalikes = HardPrompts(edits, [], [], QuestionFrames([]), random.Random(0))
    assert lookalikes.of(edits[0], 5, {"one two three four"}) == ["one two seven eight"]


def test_nothing_is_taught_that_is_measured(summaries: Callable[[str], EditSummary]) -> None:
    opened = open_project(summaries("pico_bert").path)
    training_examples = make_training_examples(
        opened, ExampleSettings((), phrasings=2, unchanged=8), SilentReporter()
    )
    probes = collect_probes(opened, SilentReporter())
    asked = [
        *probes.rephrases,
        *probes.hard,
        *(p for p in probes.unrelated if p.prompt not in training_examples.taught),
    ]
    assert probes.rephrases and training_examples.near and training_examples.far and training_examples.taught
    assert training_examples.phrased and all(example.made_up for example in training_examples.phrased), (
        "none is known"
    )
    taught = {example.encoded.prompt_ids for example in (*training_examples.edits, *training_examples.others)}
    assert not taught & {opened.encoder.prompt(probe.prompt) for probe in asked}
    assert {example.encoded.prompt_ids for example in training_examples.prompts} == {
        opened.encoder.prompt(edit.prompt) for edit in opened.project.edits() if edit.status == "live"
    }
    right = [edit.prompt for edit in opened.project.edits() if edit.status == "already_right"]
    assert {opened.encoder.prompt(prompt) for prompt in right} <= {
        example.encoded.prompt_ids for example in training_examples.far
    }, "what the base has right already stays"
