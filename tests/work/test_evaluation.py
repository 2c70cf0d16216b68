"""What an evaluation counts: against counts by hand, transformers alone, and known intervals."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from melo_cli.datasets import EditRequest
from melo_cli.editing import EditSummary
from melo_cli.errors import MeloError, ProjectError
from melo_cli.evaluation import Result, evaluate, metrics, plot_retention, write_results
from melo_cli.evaluation.probes import Probe, collect_probes
from melo_cli.evaluation.probing import ProbeAnswers
from melo_cli.evaluation.protocols import published
from melo_cli.evaluation.report import AnswerSets, EvalReport
from melo_cli.evaluation.same_subject import questions_of_others
from melo_cli.evaluation.statistics import token_f1, wilson_interval
from melo_cli.models.base_model import ModelKind
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.inference import TokenScores
from melo_cli.runtime.loading import OpenProject, open_project
from melo_cli.runtime.querying import query
from melo_cli.scope.core.rules import Candidate, Route

Shared = Callable[[str], OpenProject]
Edit = Callable[..., EditSummary]
Rows = dict[str, list[dict[str, Any]]]
NAMES = {
    "edit_success",
    "generality",
    "locality_truth",
    "locality_agreement",
    "hard_truth",
    "hard_agreement",
    "same_subject_truth",
    "same_subject_agreement",
    "fired_edits",
    "fired_rephrases",
    "fired_same_subject",
    "fired_hard",
    "fired_unrelated",
    "nearest_right",
    "perplexity_edits",
    "perplexity_unrelated",
    "arr",
    "unfired_checked",
    "unfired_agree",
}
SHARE_NAMES = {"generation", "teacher_forced", "n", "ci95"}
NEURON = Candidate("e000001", "b000001", 0.1, cluster=1, radius=0.5, center_distance=0.1)
ANSWERS = st.text(alphabet="ab the,A\n", max_size=20)
ACCURATE = [
    {"prompt": "He was born in Cologne, and", "target": "studied"},
    {"prompt": "by whom was it opened", "target": "in the year of 1889, when the court of London was built"},
]


@pytest.fixture(scope="module")
def reports(shared: Shared) -> Callable[[str], EvalReport]:
    """`reports(kind)`: the evaluation of the shared project."""
    made: dict[str, EvalReport] = {}

    def get(kind: str) -> EvalReport:
        if kind not in made:
            made[kind] = evaluate(shared(kind), SilentReporter())
        return made[kind]

    return get


def with_data(opened: OpenProject, **files: str) -> OpenProject:
    """The same project with other data to measure it against."""
    assert opened.recipe.dataset is not None
    dataset = opened.recipe.dataset.model_copy(update=files)
    return dataclasses.replace(opened, recipe=opened.recipe.model_copy(update={"dataset": dataset}))


# Counts


def row(
    truth: str | None,
    base: str,
    edited: str,
    *,
    fired: bool,
    right: tuple[int, int] = (0, 0),
    nats: float = 0.0,
) -> ProbeAnswers:
    """An answered probe of four target tokens; `right` of them are each model's first choice."""
    choices = ((1, 2, 3, 4), (1, 2, 3, 4) if base == edited else (1, 2, 3, 5))
    scores = [
        TokenScores(-nats, 3, chosen, count) if truth is not None else None
        for chosen, count in zip(choices, right, strict=True)
    ]
    route = Route(NEURON if fired else None, NEURON)
    return ProbeAnswers(Probe("prompt", truth), route, base, edited, *scores, nearest_target="the old town")


SETS = AnswerSets(
    edits=[
        row("Paris", "Rome", "Paris", fired=True, right=(1, 4)),
        row("Paris", "Rome", "Paris  ", fired=True, right=(2, 4)),
        row("Paris", "Paris", "Paris", fired=False, right=(4, 4)),
        row("Paris", "Rome", "Paris Paris", fired=True, right=(0, 3)),
        row("Paris", "Rome", "paris", fired=False, right=(1, 1)),
    ],
    rephrases=[
        row("the old town", "Rome", "old town", fired=True, right=(0, 2)),
        row("the old town", "Rome", "Rome", fired=False, right=(0, 0)),
    ],
    same_subject=[
        row("Bonn", "Bonn", "Bonn", fired=False, right=(4, 4)),
        row("Bonn", "Bonn", "Paris", fired=True, right=(4, 1)),
        row("Bonn", "Rome", "Rome", fired=False, right=(0, 0)),
        row(None, "Rome", "Paris", fired=True),
        row(None, "Rome", "Rome", fired=True),
    ],
    unrelated=[
        row("Bonn", "Bonn", "Paris", fired=True, right=(4, 1)),
        row("Bonn", "Bonn", "Bonn", fired=False, right=(4, 4)),
        row("Bonn", "Rome", "Rome", fired=False, right=(2, 2)),
        row(None, "Rome", "Paris", fired=True),
    ],
    hard=[
        row(None, "Rome", "Rome", fired=True),
        row(None, "Rome", "Paris", fired=True),
        row(None, "Rome", "Rome", fired=False),
        row("Bonn", "Bonn", "Bonn", fired=False),
    ],
    accurate=[],
)


def test_shares_are_counts_over_counts() -> None:
    base = metrics(SETS, ModelKind.SEQ2SEQ, edited=False)
    edited = metrics(SETS, ModelKind.SEQ2SEQ, edited=True)
    assert _figures(base["edit_success"]) == (1 / 5, pytest.approx((1 + 2 + 4 + 0 + 1) / 20), 5)
    assert _figures(edited["edit_success"]) == (3 / 5, pytest.approx((4 + 4 + 4 + 3 + 1) / 20), 5)
    assert _figures(base["generality"]) == (0.0, 0.0, 2)
    assert _figures(edited["generality"]) == (0.0, pytest.approx(2 / 8), 2)
    # Truth is known of three of the four unrelated prompts; agreement is asked of all of them.
    assert _figures(base["locality_truth"]) == (2 / 3, pytest.approx(10 / 12), 3)
    assert _figures(edited["locality_truth"]) == (1 / 3, pytest.approx(7 / 12), 3)
    assert base["locality_agreement"] is None
    assert _figures(edited["locality_agreement"]) == (2 / 4, pytest.approx(2 / 3), 4)
    assert edited["edit_success"]["ci95"] == list(wilson_interval(3, 5))
    assert edited["locality_agreement"]["ci95"] == list(wilson_interval(2, 4))
    assert edited["edit_success"]["f1"] == pytest.approx((1 + 1 + 1 + 2 / 3 + 1) / 5)
    assert edited["generality"]["f1"] == pytest.approx((1 + 0) / 2)


def _figures(share: dict[str, Any]) -> tuple[float, float, int]:
    return share["generation"], share["teacher_forced"], share["n"]


def test_what_fires_is_reported_of_the_edited_model_alone() -> None:
    base = metrics(SETS, ModelKind.SEQ2SEQ, edited=False)
    edited = metrics(SETS, ModelKind.SEQ2SEQ, edited=True)
    fired = ("fired_edits", "fired_rephrases", "fired_same_subject", "fired_hard", "fired_unrelated")
    assert [base[name] for name in fired] == [None] * 5
    assert [edited[name] for name in fired] == [3 / 5, 1 / 2, 3 / 5, 2 / 4, 2 / 4]


def test_hard_negatives_are_counted_by_agreement_with_the_base() -> None:
    edited = metrics(SETS, ModelKind.SEQ2SEQ, edited=True)
    assert _figures(edited["hard_agreement"]) == (3 / 4, 1.0, 4)
    assert metrics(SETS, ModelKind.SEQ2SEQ, edited=False)["hard_agreement"] is None
    assert _figures(edited["hard_truth"])[::2] == (1.0, 1)


def test_other_questions_about_a_subject_are_counted_by_truth_and_by_agreement() -> None:
    edited = metrics(SETS, ModelKind.SEQ2SEQ, edited=True)
    assert _figures(edited["same_subject_truth"])[::2] == (1 / 3, 3)
    assert _figures(edited["same_subject_agreement"])[::2] == (3 / 5, 5)


def test_the_ceiling_of_generality_is_the_nearest_neuron() -> None:
    other = dataclasses.replace(SETS.rephrases[1], nearest_target="the new town")
    sets = dataclasses.replace(SETS, rephrases=[*SETS.rephrases, other])
    assert metrics(sets, ModelKind.SEQ2SEQ, edited=True)["nearest_right"] == pytest.approx(2 / 3)
    assert metrics(sets, ModelKind.SEQ2SEQ, edited=False)["nearest_right"] is None


def test_a_model_without_a_router_fires_nothing_and_has_no_nearest() -> None:
    bare = AnswerSets(*([dataclasses.replace(row, route=None) for row in group] for group in SETS.groups()))
    edited = metrics(bare, ModelKind.SEQ2SEQ, edited=True)
    assert {name for name in edited if name.startswith("fired") and edited[name] is not None} == set()
    assert edited["nearest_right"] is None
    assert edited["edit_success"] == metrics(SETS, ModelKind.SEQ2SEQ, edited=True)["edit_success"]


def test_where_there_is_nothing_to_ask_there_is_no_figure() -> None:
    empty = AnswerSets(SETS.edits, [], [], [], [], [])
    edited = metrics(empty, ModelKind.CAUSAL, edited=True)
    assert {name for name, figure in edited.items() if figure is None} == NAMES - {
        "edit_success",
        "fired_edits",
        "perplexity_edits",
    }


# A classifier


def test_a_classifier_is_counted_by_its_answers(reports: Callable[[str], EvalReport]) -> None:
    report = reports("pico_bert")
    # The base says criminal to everything: the targets of two edits and the truth of one unrelated prompt.
    assert _answers(report.base) == {
        "edit_success": (2 / 6, 6),
        "generality": (0.0, 2),
        "locality_truth": (1 / 2, 2),
        "locality_agreement": None,
    }
    assert _answers(report.edited) == {
        "edit_success": (1.0, 6),
        "generality": (1 / 2, 2),
        "locality_truth": (1 / 2, 2),
        "locality_agreement": (3 / 4, 4),
    }
    fired = [report.edited[name] for name in ("fired_edits", "fired_rephrases", "fired_unrelated")]
    assert fired == [pytest.approx(4 / 6), 1 / 2, 1 / 4]
    for side in (report.base, report.edited):
        assert all(side[name]["teacher_forced"] is None for name in _answers(side) if side[name])
        assert side["perplexity_edits"] is side["perplexity_unrelated"] is side["arr"] is None


def _answers(side: dict[str, Any]) -> dict[str, tuple[float, int] | None]:
    names = ("edit_success", "generality", "locality_truth", "locality_agreement")
    return {name: (side[name]["generation"], side[name]["n"]) if side[name] else None for name in names}


# Generating models


@pytest.mark.parametrize("kind", ["pico_t5", "pico_gpt2", "pico_llama"])
def test_a_generating_model_is_counted_by_what_it_writes(
    reports: Callable[[str], EvalReport], shared: Shared, kind: str
) -> None:
    report, opened = reports(kind), shared(kind)
    rephrases = [("Who is prime minister of Britain?", "London"), ("law was studied by whom", "Britain")]
    results = [query(opened, [prompt], max_new_tokens=8)[0] for prompt, _ in rephrases]
    right = sum(result.edited == target for result, (_, target) in zip(results, rephrases, strict=True))
    assert (report.edits, report.task, report.snapshot) == (6, opened.recipe.task, 2)
    assert _answers(report.base)["edit_success"] == (0.0, 6)
    assert _answers(report.edited)["edit_success"] == (1.0, 6)
    assert report.edited["edit_success"]["teacher_forced"] == 1.0
    assert _answers(report.edited)["generality"] == (right / 2, 2)
    assert _answers(report.edited)["locality_agreement"] == (3 / 4, 4)
    assert [report.edited[name] for name in ("fired_edits", "fired_rephrases", "fired_unrelated")] == [
        1,
        0.5,
        0.25,
    ]


def test_every_edit_has_its_row_in_the_order_made(
    reports: Callable[[str], EvalReport], shared: Shared
) -> None:
    results = reports("pico_gpt2").of_kind("edit")
    views = shared("pico_gpt2").project.edits()
    assert [(row.edit_id, row.prompt, row.truth) for row in results] == [
        (view.edit_id, view.prompt, view.target) for view in views
    ]
    for result in results:
        assert result.edited == result.truth != result.base
        assert (result.fired, result.base_right, result.edited_right) == (True, False, True)
        assert result.edited_teacher_forced == 1.0


def test_teacher_forcing_is_that_of_transformers(
    reports: Callable[[str], EvalReport], rows: Rows, models: Callable[[str], Path]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models("pico_t5"))
    model = AutoModelForSeq2SeqLM.from_pretrained(models("pico_t5")).eval()
    shares = []
    for row in rows["pico_t5"]:
        ids = tokenizer(row["prompt"], return_tensors="pt").input_ids
        labels = tokenizer(text_target=row["target"], return_tensors="pt").input_ids  # `</s>` is in it
        with torch.no_grad():
            choices = model(input_ids=ids, labels=labels).logits.argmax(-1)
        shares.append((choices == labels).float().mean().item())
    assert reports("pico_t5").base["edit_success"]["teacher_forced"] == pytest.approx(
        sum(shares) / 6, abs=1e-6
    )
    assert reports("pico_t5").base["perplexity_edits"] is None


# Perplexity


@pytest.fixture(scope="module")
def measured(
    shared: Shared, write_rows: Callable[[Path, Any], Path], tmp_path_factory: pytest.TempPathFactory
) -> EvalReport:
    """The GPT-2 project with accurate text; neither text has a prompt that fires."""
    path = write_rows(tmp_path_factory.mktemp("accurate") / "accurate.jsonl", ACCURATE)
    return evaluate(with_data(shared("pico_gpt2"), accurate=str(path)), SilentReporter())


def test_perplexity_is_weighted_by_token(
    measured: EvalReport, rows: Rows, models: Callable[[str], Path]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models("pico_gpt2"))
    model = AutoModelForCausalLM.from_pretrained(models("pico_gpt2")).eval()

    def nats(prompt: str, target: str) -> Tensor:
        before = tokenizer(prompt, return_tensors="pt").input_ids.shape[1]
        ids = tokenizer(f"{prompt} {target}", return_tensors="pt").input_ids
        with torch.no_grad():
            logits = model(ids).logits[0, before - 1 : -1]
        return torch.nn.functional.cross_entropy(logits, ids[0, before:], reduction="none")

    texts = [nats(text["prompt"], text["target"]) for text in ACCURATE]
    assert len(texts[0]) < len(texts[1])
    weighted = torch.cat(texts).mean().exp().item()
    averaged = sum(text.mean().exp().item() for text in texts) / 2
    assert abs(weighted - averaged) > 0.02 * weighted
    assert measured.base["arr"] == pytest.approx(weighted, rel=1e-4)
    edits = torch.cat([nats(row["prompt"], row["target"]) for row in rows["pico_gpt2"]])
    assert measured.base["perplexity_edits"] == pytest.approx(edits.mean().exp().item(), rel=1e-4)
    unrelated = torch.cat([nats("He was born in Cologne", "criminal"), nats("by whom was it opened", "tax")])
    assert measured.base["perplexity_unrelated"] == pytest.approx(unrelated.mean().exp().item(), rel=1e-4)


def test_perplexity_of_the_edited_model_is_that_of_the_routed_one(
    measured: EvalReport, rows: Rows, shared: Shared
) -> None:
    model = shared("pico_gpt2").routed
    nats = []
    for row in rows["pico_gpt2"]:
        before = model.tokenizer(row["prompt"], return_tensors="pt").input_ids.shape[1]
        ids = model.tokenizer(f"{row['prompt']} {row['target']}", return_tensors="pt").input_ids
        labels = ids.clone()
        labels[:, :before] = -100
        with torch.no_grad():
            logits = model(ids, labels=labels).logits[0, before - 1 : -1]
        nats.append(torch.nn.functional.cross_entropy(logits, ids[0, before:], reduction="none"))
    expected = torch.cat(nats).mean().exp().item()
    assert measured.edited["perplexity_edits"] == pytest.approx(expected, rel=1e-3)
    assert measured.edited["perplexity_edits"] < 0.1 * measured.base["perplexity_edits"]


def test_prompts_that_do_not_fire_are_answered_as_the_base_answers(measured: EvalReport) -> None:
    assert measured.edited["arr"] == measured.base["arr"] > 1
    # The unrelated prompts with a truth do not fire either.
    assert measured.edited["perplexity_unrelated"] == measured.base["perplexity_unrelated"]
    assert measured.edited["locality_truth"] == measured.base["locality_truth"]


# What is asked


def test_unrelated_prompts_come_from_the_data_too_and_those_of_edits_are_left_out(
    shared: Shared, write_rows: Callable[[Path, Any], Path], reporter: Any, tmp_path: Path
) -> None:
    data = [
        {"prompt": "Which court was it", "target": "tax"},  # an edit's prompt
        {"prompt": "law was studied by whom", "target": "tax"},  # a rephrase
        {"prompt": "Is it Paris?", "target": "criminal"},  # an edit's own unrelated prompt
        {"prompt": "The tower was opened in", "target": "criminal"},
    ]
    opened = with_data(shared("pico_bert"), locality=str(write_rows(tmp_path / "locality.jsonl", data)))
    report = evaluate(opened, reporter)
    assert "2 unrelated prompts are prompts of edits too and are left out" in reporter.infos
    assert report.edited["locality_agreement"]["n"] == 5
    assert report.edited["fired_unrelated"] == 1 / 5
    job = reporter.jobs[-1]
    assert (job.label, job.unit, job.done) == ("asking", "prompts", job.total)
    assert job.total == 6 + 2 + 5


def test_an_evaluation_of_plain_data_says_nothing(shared: Shared, reporter: Any) -> None:
    evaluate(shared("pico_bert"), reporter)
    assert (reporter.infos, reporter.warnings) == ([], [])


def test_superseded_edits_are_not_asked(edit: Edit, copied: Callable[[str], Path], reporter: Any) -> None:
    path = copied("pico_bert")
    prompt = "Where does the river end"
    data = [{"prompt": prompt, "target": target} for target in ("civil", "tax", "civil")]
    assert [outcome.edit_id for outcome in edit("pico_bert", data, path).outcomes] == ["e000007", "e000008"]
    report = evaluate(open_project(path), reporter)
    assert [row.edit_id for row in report.of_kind("edit") if row.prompt == prompt] == ["e000008"]
    assert (report.edits, report.edited["edit_success"]["generation"]) == (6, 1.0)
    # The unrelated prompt of the first went with it.
    assert report.edited["locality_agreement"]["n"] == 3


def test_a_prompt_that_was_right_already_is_asked_for_its_newest_target(
    edit: Edit, copied: Callable[[str], Path], reporter: Any
) -> None:
    path = copied("pico_bert")
    edit("pico_bert", [{"prompt": "What was built in 1889?", "target": "tax"}], path)
    report = evaluate(open_project(path), reporter)
    assert [row.truth for row in report.of_kind("edit") if row.prompt == "What was built in 1889?"] == ["tax"]
    assert (report.edits, report.edited["edit_success"]["generation"]) == (6, 1.0)


def test_a_failed_edit_counts_against_the_project(
    edit: Edit, copied: Callable[[str], Path], reporter: Any
) -> None:
    path = copied("pico_bert")
    hopeless = {"max_steps": 1, "optimizer": {"name": "SGD", "lr": 1e-9}}
    failed = {"prompt": "The tower was opened in", "target": "tax"}
    assert edit("pico_bert", [failed], path, training=hopeless).count("failed") == 1
    report = evaluate(open_project(path), reporter)
    assert report.of_kind("edit")[-1].edited_right is False
    assert (report.edits, report.edited["edit_success"]["generation"]) == (7, pytest.approx(6 / 7))


def test_a_project_without_edits_has_nothing_to_measure(
    edit: Edit, rows: Rows, tmp_path: Path, reporter: Any
) -> None:
    edit("pico_bert", rows["pico_bert"], tmp_path / "p", should_stop=lambda: True)
    with pytest.raises(ProjectError, match="the project has no live edit; make edits with `melo edit`"):
        evaluate(open_project(tmp_path / "p"), reporter)


# Hard negatives


@pytest.fixture(scope="module")
def near(edit: Edit, tmp_path_factory: pytest.TempPathFactory) -> OpenProject:
    """A project of edits with subjects, most of which the base answers right: little of it needs training."""
    data = [
        {
            "prompt": "Which court is in Paris?",
            "subject": "Paris",
            "rephrases": ["Paris has which court?", "In Paris which court is it?"],
            "locality": ["Which court is in Rome?", "who studied law"],
        },
        {"prompt": "Who was born in London?", "subject": "London", "locality": ["He was born in Cologne"]},
        {"prompt": "What is the law?", "locality": ["What is the river?"]},
    ]
    path = tmp_path_factory.mktemp("near") / "p"
    edit("pico_bert", [row | {"target": "criminal"} for row in data], path)
    return open_project(path)


def texts(probes: list[Probe]) -> list[str]:
    return [probe.prompt for probe in probes]


def test_hard_negatives_have_the_words_of_an_edit_and_another_subject(
    near: OpenProject, reporter: Any
) -> None:
    probes = collect_probes(near, reporter)
    # The first edit's own look-alike, the second's with the first's subject; the third has no subject.
    assert texts(probes.hard) == ["Which court is in Rome?", "Who was born in Paris?"]
    assert [probe.edit_id for probe in probes.hard] == ["e000001", "e000002"]
    assert texts(probes.unrelated) == ["who studied law", "He was born in Cologne", "What is the river?"]
    assert reporter.infos == []


def test_in_counterfact_every_locality_prompt_of_an_edit_is_hard(near: OpenProject, reporter: Any) -> None:
    recipe = near.recipe.model_copy(update={"task": "counterfact"})
    probes = collect_probes(dataclasses.replace(near, recipe=recipe), reporter)
    own = ["Which court is in Rome?", "who studied law", "He was born in Cologne", "What is the river?"]
    assert (texts(probes.hard), probes.unrelated) == (own, [])


def test_what_is_hard_is_not_unrelated_too(
    near: OpenProject, write_rows: Callable[[Path, Any], Path], reporter: Any, tmp_path: Path
) -> None:
    data = [
        {"prompt": text} for text in ("Who was born in Paris?", "Is it Paris?", "Which court is in Rome?")
    ]
    opened = with_data(near, locality=str(write_rows(tmp_path / "locality.jsonl", data)))
    probes = collect_probes(opened, reporter)
    assert texts(probes.unrelated)[-1] == "Is it Paris?"
    assert set(texts(probes.unrelated)).isdisjoint(texts(probes.hard))


def test_hard_negatives_are_asked_and_counted(near: OpenProject) -> None:
    report = evaluate(near, SilentReporter())
    assert report.edited["hard_agreement"]["n"] == 2
    assert report.edited["hard_agreement"]["generation"] == 1.0
    assert report.edited["fired_hard"] == 0.0
    assert [row.prompt for row in report.of_kind("hard")] == [
        "Which court is in Rome?",
        "Who was born in Paris?",
    ]


def test_what_calibration_has_seen_is_left_out_but_edits_never_are(
    near: OpenProject, reporter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = collect_probes(near, reporter)
    seen = {
        "Which court is in Paris?",
        "Paris has which court?",
        "Who was born in Paris?",
        "He was born in Cologne",
        "What is the river?",
    }
    probes = collect_probes(near, reporter, seen=seen.__contains__)
    assert texts(probes.edits) == texts(every.edits)
    assert texts(probes.rephrases) == ["In Paris which court is it?"]
    assert texts(probes.unrelated) == ["who studied law"]
    assert set(texts(probes.seen_unrelated)) == {"He was born in Cologne", "What is the river?"}
    assert texts(probes.hard) == ["Which court is in Rome?"]
    message = "left out, because calibration has seen them: 1 rephrases, 2 unrelated prompts"
    assert reporter.infos == [message]
    monkeypatch.setattr("melo_cli.evaluation.run.SeenPrompts", lambda key_map: seen.__contains__)
    assert evaluate(near, SilentReporter()).edited["generality"]["n"] == 1
    assert evaluate(near, SilentReporter(), protocol="paper").edited["generality"]["n"] == 2


def test_hard_negatives_of_the_data_come_in_place_of_swaps(
    near: OpenProject, write_rows: Callable[[Path, Any], Path], reporter: Any, tmp_path: Path
) -> None:
    rows = [
        {"prompt": "Which court is in Lyon?", "target": "x", "subject": "Lyon"},
        {"prompt": "Which river is in Paris?", "target": "x", "subject": "Paris"},
    ]
    opened = with_data(near, hard=str(write_rows(tmp_path / "hard.jsonl", rows)))
    assert texts(collect_probes(opened, reporter).hard) == [
        "Which court is in Rome?",
        "Which court is in Lyon?",
    ]


# Other questions about an edit's subject


@pytest.fixture(scope="module")
def about(edit: Edit, tmp_path_factory: pytest.TempPathFactory) -> OpenProject:
    """Edits with subjects; the first one's data ask something else about its own."""
    data = [
        {
            "prompt": "Which court is in Paris?",
            "subject": "Paris",
            "locality": [
                {"prompt": "When was Paris built?", "target": "criminal"},
                "Which court is in Paris the older?",
                "Is Parisian law old?",
            ],
        },
        {"prompt": "Who was born in London?", "subject": "London"},
        {"prompt": "The law of Cologne, who studied it?", "subject": "Cologne"},
    ]
    path = tmp_path_factory.mktemp("about") / "p"
    edit("pico_bert", [row | {"target": "criminal"} for row in data], path)
    return open_project(path)


def test_other_questions_about_a_subject_are_the_datas_or_those_of_other_edits(
    about: OpenProject, reporter: Any
) -> None:
    probes = collect_probes(about, reporter)
    given, *made = probes.same_subject
    assert given == Probe("When was Paris built?", "criminal", "e000001")
    subjects = {"e000002": "London", "e000003": "Cologne"}
    questions = ("Which court is in {}?", "Who was born in {}?", "The law of {}, who studied it?")
    assert [probe.edit_id for probe in made] == list(subjects)
    for probe in made:
        assert probe.made and probe.truth is None
        assert probe.prompt in {question.format(subjects[str(probe.edit_id)]) for question in questions}
    # A longer name is another subject's, and part of a word is none.
    assert probes.hard[0].prompt == "Which court is in Paris the older?"
    assert texts(probes.unrelated) == ["Is Parisian law old?"]
    every = texts([*probes.edits, *probes.same_subject, *probes.hard, *probes.unrelated])
    assert len(every) == len(set(every))
    assert collect_probes(about, reporter) == probes, "the same project is asked the same"


def test_a_question_that_an_edit_of_the_subject_asks_in_other_words_is_not_made() -> None:
    edits = [
        EditRequest("Which court is in Paris?", "a", subject="Paris"),
        EditRequest("Who was born in London?", "b", subject="London"),
        EditRequest("In Paris, who was born?", "c", subject="Paris"),
        EditRequest("What is the law?", "d"),
    ]
    made = [None, "Which court is in London?", None, None]
    assert all(questions_of_others(edits, [], seed=seed) == made for seed in range(8))
    assert questions_of_others(edits, ["which court is in  london?"], seed=0) == [None] * 4


def test_in_counterfact_a_question_about_the_same_subject_is_not_hard(
    about: OpenProject, reporter: Any
) -> None:
    recipe = about.recipe.model_copy(update={"task": "counterfact"})
    probes = collect_probes(dataclasses.replace(about, recipe=recipe), reporter)
    assert probes.same_subject[0].prompt == "When was Paris built?"
    assert texts(probes.hard)[:2] == ["Which court is in Paris the older?", "Is Parisian law old?"]


def test_what_calibration_saw_of_a_subject_is_not_asked_and_not_made(
    about: OpenProject, reporter: Any
) -> None:
    seen = {"When was Paris built?", "Who was born in London?"}
    probes = collect_probes(about, reporter, seen=seen.__contains__)
    assert [probe.edit_id for probe in probes.same_subject] == ["e000003"]
    assert "born" not in " ".join(texts([*probes.same_subject, *probes.hard]))


def test_the_report_says_for_every_kind_how_its_prompts_were_made(about: OpenProject) -> None:
    report = evaluate(about, SilentReporter())
    for metric in ("fired_same_subject", "fired_hard", "fired_unrelated"):
        assert report.edited[metric] == 0.0, "the base is right, and no block is made"
    assert report.edited["same_subject_truth"]["n"] == 1
    assert report.edited["same_subject_agreement"]["n"] == 3
    made = report.to_json()["made"]
    assert made["same_subject"].startswith("1 given by the data, 2 made: another edit's question")
    assert made["hard"].startswith("1 given by the data, 2 made: an edit's own question")
    assert made["unrelated"] == "1 given by the data"


# What no edit answers


@pytest.mark.parametrize("kind", ["pico_t5", "pico_gpt2", "pico_bert"])
def test_prompts_that_no_edit_answers_are_asked_again_in_batches_with_others(
    reports: Callable[[str], EvalReport], kind: str
) -> None:
    report = reports(kind)
    unfired = [row for row in report.results if row.fired is False]
    assert report.edited["unfired_checked"] == len(unfired) > 0
    assert report.edited["unfired_agree"] == len(unfired)
    assert report.base["unfired_checked"] is None


def test_a_block_that_reaches_other_rows_shows(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = shared("pico_gpt2")
    using = opened.routed.using

    def leaking(block_ids: Any) -> Any:
        fired = next((block for block in block_ids if block is not None), None)
        return using([fired] * len(block_ids))

    monkeypatch.setattr(opened.routed, "using", leaking)
    report = evaluate(opened, SilentReporter())
    assert report.edited["unfired_agree"] < report.edited["unfired_checked"]
    # What was not asked again does not show it.
    assert report.edited["locality_agreement"]["generation"] == 3 / 4


# Under the rule `verified`


@pytest.mark.parametrize("kind", ["pico_t5", "pico_gpt2"])
def test_a_verified_project_is_measured_by_probabilities(
    shared: Callable[..., OpenProject], kind: str
) -> None:
    opened = shared(kind, "verified")
    report = evaluate(opened, SilentReporter())
    assert report.edited["edit_success"]["generation"] == 1.0
    assert report.edited["fired_edits"] == 1.0
    for row in report.results:
        assert (row.radius, row.center_distance) == (None, None)
        assert row.probability is not None and row.threshold is not None
        assert row.fired == (row.probability >= row.threshold)
    assert all(row.probability == 1.0 for row in report.of_kind("edit"))


# Protocols


@pytest.mark.parametrize(
    ("task", "measure", "expected"),
    [
        ("zsre", "F1", {"edit_success": 0.3, "generality": 0.6, "locality": 0.9, "arr": None}),
        ("scotus", "accuracy", {"edit_success": 0.1, "generality": 0.4, "locality": 0.7, "arr": None}),
        ("hallucination", "perplexity", {"edit_success": 2, "generality": None, "locality": 3, "arr": 4}),
        (
            "counterfact",
            "teacher-forced accuracy",
            {"edit_success": 0.2, "generality": 0.5, "locality": 0.8, "arr": None},
        ),
    ],
)
def test_each_task_has_its_published_measure(task: str, measure: str, expected: dict[str, Any]) -> None:
    def share(first: float) -> dict[str, float]:
        return {"generation": first, "teacher_forced": first + 0.1, "f1": first + 0.2}

    figures = {
        "edit_success": share(0.1),
        "generality": share(0.4),
        "locality_truth": share(0.7),
        "perplexity_edits": 2,
        "perplexity_unrelated": 3,
        "arr": 4,
    }
    document = published(task, figures)
    assert document == {
        "measure": measure,
        **{name: value and pytest.approx(value) for name, value in expected.items()},
    }
    assert published(task, figures | dict.fromkeys(("generality", "arr")))["generality"] is None


def test_the_paper_protocol_says_what_it_measures_and_asks_no_hard_negatives(near: OpenProject) -> None:
    paper = evaluate(near, SilentReporter(), protocol="paper")
    assert paper.edited["published"] == {
        "measure": "accuracy",
        "edit_success": 1.0,
        "generality": 1.0,
        "locality": None,
        "arr": None,
    }
    assert (paper.protocol, paper.of_kind("hard")) == ("paper", [])
    assert "2312.11795" in paper.to_json()["measures"]
    strict = evaluate(near, SilentReporter())
    assert "published" not in strict.edited
    assert "greedy answers that match exactly" in strict.to_json()["measures"]


# One pass


def test_a_classifier_reads_a_document_once(near: OpenProject) -> None:
    read: list[int] = []
    hook = near.routed.base.model.register_forward_hook(
        lambda _model, _args, output: read.append(len(output.logits))
    )
    try:
        report = evaluate(near, SilentReporter())
    finally:
        hook.remove()
    # Once by the base, once more where an edit's block answers; then all again, in mixed batches.
    fired = sum(bool(row.fired) for row in report.results)
    assert report.edited["unfired_checked"] == len(report.results) - fired
    assert sum(read) == len(report.results) + fired + len(report.results)


# Results


def test_results_are_one_row_a_probe(reports: Callable[[str], EvalReport], tmp_path: Path) -> None:
    report = reports("pico_gpt2")
    write_results(report.results, tmp_path / "r.parquet")
    table = pq.read_table(tmp_path / "r.parquet")
    assert table.column_names == [field.name for field in dataclasses.fields(Result)]
    rows = table.to_pylist()
    assert [row["kind"] for row in rows] == ["edit"] * 6 + ["rephrase"] * 2 + ["unrelated"] * 4
    first = rows[0]
    assert (first["edit_id"], first["truth"], first["edited"]) == ("e000001", "London", "London")
    assert (first["fired"], first["fired_edit"], first["nearest_edit"]) == (True, "e000001", "e000001")
    assert (first["base_right"], first["edited_right"], first["nearest_right"]) == (False, True, True)
    assert first["distance"] == pytest.approx(0, abs=1e-4)
    assert first["edited_teacher_forced"] == 1.0
    assert first["tokens"] == 2
    assert 0 < 5 * first["edited_nats"] < first["base_nats"]
    missed = next(row for row in rows if row["prompt"] == "law was studied by whom")
    assert (missed["fired"], missed["fired_edit"], missed["edited"]) == (False, None, missed["base"])
    assert missed["center_distance"] > missed["radius"] > 0
    unknown = next(row for row in rows if row["prompt"] == "Is it Paris?")
    assert (unknown["truth"], unknown["base_right"], unknown["base_nats"]) == (None, None, None)
    assert unknown["agrees"] is True


def test_accurate_text_is_scored_but_not_judged(measured: EvalReport) -> None:
    for row in measured.of_kind("accurate"):
        assert (row.base, row.base_right, row.edited_right) == ("", None, None)
        assert row.base_nats is not None


def test_results_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(MeloError, match="the results cannot be written") as caught:
        write_results([], tmp_path / "no" / "r.parquet")
    assert caught.value.where == str(tmp_path / "no" / "r.parquet")


# The document


@pytest.mark.parametrize("kind", ["pico_t5", "pico_gpt2", "pico_bert"])
def test_the_document_has_the_names_that_readers_rely_on(
    reports: Callable[[str], EvalReport], kind: str
) -> None:
    document = json.loads(json.dumps(reports(kind).to_json(), allow_nan=False))
    named = [
        "project",
        "task",
        "snapshot",
        "protocol",
        "measures",
        "made",
        "edits",
        "sampled_from",
        "base",
        "edited",
    ]
    assert list(document) == [*named, "seconds", "baselines"]
    assert (document["project"], document["protocol"], document["edits"]) == (kind, "strict", 6)
    for side in ("base", "edited"):
        assert set(document[side]) == NAMES
        for name in ("edit_success", "generality", "locality_truth"):
            assert set(document[side][name]) >= SHARE_NAMES
            low, high = document[side][name]["ci95"]
            assert 0 <= low <= document[side][name]["generation"] <= high <= 1
    assert set(document["edited"]["locality_agreement"]) >= SHARE_NAMES
    assert document["base"]["locality_agreement"] is None


# Intervals and word overlap


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (0, 0, 0.0, 1.0),
    ],
)
def test_the_interval_is_wilsons(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@settings(max_examples=60)
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_its_share_mirrors_and_narrows(counted: tuple[int, int]) -> None:
    successes, n = counted
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    other_low, other_high = wilson_interval(n - successes, n)
    assert (low, high) == (pytest.approx(1 - other_high), pytest.approx(1 - other_low))
    wider = wilson_interval(successes, n)
    narrower = wilson_interval(4 * successes, 4 * n)
    assert narrower[1] - narrower[0] < wider[1] - wider[0]


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ("Paris", "Paris", 1.0),
        ("The Paris!", "a paris", 1.0),
        ("in Paris", "Paris", 2 / 3),
        ("old old town", "old town", 0.8),
        ("Rome", "Paris", 0.0),
        ("", "Paris", 0.0),
        ("the", "a", 1.0),
    ],
)
def test_f1_is_the_overlap_of_words(answer: str, target: str, score: float) -> None:
    assert token_f1(answer, target) == pytest.approx(score)


@settings(max_examples=60)
@given(ANSWERS, ANSWERS)
def test_f1_is_a_share_and_knows_no_order(answer: str, target: str) -> None:
    score = token_f1(answer, target)
    assert 0 <= score <= 1
    assert score == token_f1(target, answer)
    assert token_f1(answer, answer) == 1
    assert math.isclose(score, token_f1(" ".join(reversed(answer.split())), target))


# Plot


def test_the_plot_is_a_picture(reports: Callable[[str], EvalReport], tmp_path: Path) -> None:
    plot_retention(reports("pico_gpt2"), tmp_path / "retention.png")
    assert (tmp_path / "retention.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("name", "message"), [("no/such/folder.png", "cannot be written"), ("plot.xyz", "xyz")]
)
def test_a_plot_that_cannot_be_written_is_one_line(
    reports: Callable[[str], EvalReport], tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(MeloError, match=message) as caught:
        plot_retention(reports("pico_gpt2"), tmp_path / name)
    assert caught.value.where == str(tmp_path / name)
    assert "\n" not in str(caught.value)
