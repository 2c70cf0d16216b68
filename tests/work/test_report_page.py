"""The report page: nothing loaded from elsewhere, every text escaped, every figure right."""

from __future__ import annotations

import dataclasses
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melo_cli.errors import MeloError
from melo_cli.evaluation import EvalReport, Result, write_page
from melo_cli.evaluation.decision_measures import measure_of
from melo_cli.evaluation.failures import worst_failures
from melo_cli.evaluation.frontier import best_within, ceiling, frontier
from melo_cli.evaluation.page import render_page
from melo_cli.evaluation.report import BaselineReport

VOID = {"meta", "br"}


def result(kind: str, **fields: Any) -> Result:
    """A probe that nothing fired on, one and a half radii from the nearest edit, which is the right one."""
    values: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Result))
    values |= {
        "kind": kind,
        "prompt": "Who?",
        "base": "old",
        "edited": "old",
        "agrees": True,
        "fired": False,
        "nearest_edit": "e000001",
        "nearest_right": True,
        "distance": 3.0,
        "center_distance": 3.0,
        "radius": 2.0,
        "made": False,
    }
    if kind in ("edit", "rephrase"):
        values |= {"truth": "new", "base_right": False, "edited_right": False, "edit_id": "e000001"}
    return Result(**(values | fields))


def reached(kind: str, distance: float = 1.0, **fields: Any) -> Result:
    """A probe that an edit's block answered as asked."""
    right = {
        "fired": True,
        "fired_edit": "e000001",
        "fired_right": True,
        "edited": "new",
        "edited_right": True,
    }
    return result(kind, center_distance=distance, **(right | fields))


def share(generation: float, n: int) -> dict[str, Any]:
    return {"generation": generation, "teacher_forced": 0.875, "n": n, "ci95": [0.125, 0.75]}


def figures(**changes: Any) -> dict[str, Any]:
    names = (
        *("locality_truth", "hard_truth", "same_subject_truth"),
        *("perplexity_edits", "perplexity_unrelated", "arr"),
    )
    return dict.fromkeys(names) | {
        "edit_success": share(0.5, 2),
        "generality": share(0.25, 4),
        "locality_agreement": share(1.0, 2),
        "hard_agreement": share(0.666, 3),
        "same_subject_agreement": share(0.75, 4),
        "fired_edits": 0.5,
        "fired_rephrases": 0.75,
        "fired_unrelated": 0.0,
        "fired_hard": 0.333,
        "fired_same_subject": 0.25,
        "nearest_right": 0.777,
        "unfired_checked": 3,
        "unfired_agree": 2,
        **changes,
    }


EVIL = "<script>alert('x')</script> & \"quoted\" \x1b[31m"


@pytest.fixture
def report() -> EvalReport:
    return EvalReport(
        project="<b>facts</b>",
        task="zsre",
        snapshot=3,
        protocol="strict",
        model="/models/t5 & co",
        edits=2,
        base=figures(hard_agreement=None, nearest_right=None, fired_same_subject=None),
        edited=figures(),
        seconds=1.5,
        results=[
            reached("edit", 0.0),
            result("edit", edit_id="e000002", prompt=EVIL, edited=EVIL),
            reached("rephrase"),
            reached("rephrase", fired_right=False, edited="astray", edited_right=False, prompt="Astray?"),
            reached("rephrase", edited="unlearnt", edited_right=False, prompt="Unlearnt?"),
            result("rephrase", prompt="Too far?"),
            result("unrelated", prompt="Is it?"),
            result("hard", prompt="Who else?"),
            reached("hard", agrees=False, prompt="Nearly who?", edited="<i>changed</i>"),
            result("same_subject", prompt="Who is it about?", made=True),
        ],
    )


class Page(HTMLParser):
    """Reads a page strictly: every element closed, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_is_whole_and_loads_nothing(report: EvalReport, tmp_path: Path) -> None:
    write_page(report, tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(html)
    tags = {tag for tag, _, _ in page.attributes} | set(re.findall(r"<(\w+)", html))
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "image"})
    assert {name for _, name, _ in page.attributes}.isdisjoint({"src", "href", "srcset", "onload"})
    # Charts refer to their own parts alone.
    assert all(value and value[0] == "#" for _, name, value in page.attributes if name == "xlink:href")
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html
    assert html.count("<svg") == 3


def test_the_page_of_a_report_is_the_same_each_time(report: EvalReport) -> None:
    assert render_page(report) == render_page(report)


def test_charts_have_the_colours_of_the_theme_and_say_their_figures(report: EvalReport) -> None:
    html = render_page(report)
    for chart in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert "var(--" in chart
        assert not re.search(r"(fill|stroke): #", chart), "black or white would be lost in one of the themes"
    text = Page(html).text
    assert "edits 1 to 1: 1 of 1 answered as asked edits 2 to 2: 0 of 1 answered as asked" in text
    assert "1 of 4 rephrases: 1.50 to 1.55 radii" in text
    assert "as it is, hard negatives: 50.0% reached, 50.0% fire" in text


def test_texts_of_data_and_models_are_escaped(report: EvalReport) -> None:
    page = Page(render_page(report))
    assert "<script>alert('x')</script> & \"quoted\"" in page.text
    assert "<i>changed</i>" in page.text
    assert "<b>facts</b>" in page.text
    assert "The language model t5 & co was given 2 edits" in page.text


def test_two_sentences_say_what_was_measured(report: EvalReport) -> None:
    html = render_page(report)
    lead = re.sub(r"<[^>]+>", "", re.search(r"<p class=lead>(.*?)</p>", html, re.DOTALL)[1])  # type: ignore[index]
    assert lead.count(". ") == 1
    assert "the 2 edited prompts, 4 of their rephrases, 1 unrelated prompts, 1 other questions about" in lead
    assert "edited subjects and 2 hard negatives" in lead


def test_figures_stand_beside_each_other_with_intervals(report: EvalReport) -> None:
    text = Page(render_page(report)).text
    assert "Rephrases follow the same questions in other words, answered as asked 25.0%" in text
    label = "look-alike prompts answered as before 95% interval 12.5% to 75.0%, n = 3"
    assert f"Hard negatives unchanged 66.6% {label}" in text
    assert "Ceiling for rephrases rephrases whose nearest edit is the right one - 77.7%" in text
    label = "other questions about edited subjects answered as before 95% interval 12.5% to 75.0%, n = 4"
    assert f"Same subject unchanged 75.0% {label}" in text
    label = "other questions about edited subjects that an edit's block answered - 25.0%"
    assert f"Same subject reached by mistake {label}" in text
    assert "Perplexity" not in text
    assert "Protocol strict : after all edits" in text


def test_it_says_how_prompts_were_made_and_what_agrees_by_construction(report: EvalReport) -> None:
    assert report.made == {
        "same_subject": "1 made: another edit's question, asked about this edit's subject, of which no edit "
        "asks it",
        "hard": "2 given by the data",
        "unrelated": "1 given by the data",
    }
    text = Page(render_page(report)).text
    assert "Same subject: 1 made: another edit's question" in text
    assert "agrees by construction; 3 of them were asked again, in batches with prompts that edits" in text
    assert "answer, and 2 of these were answered as before." in text
    nothing = dataclasses.replace(report, edited=figures(unfired_checked=0, unfired_agree=0))
    assert "by construction" not in Page(render_page(nothing)).text


def test_under_the_rule_verified_charts_and_failures_are_in_probabilities(report: EvalReport) -> None:
    near = {"center_distance": None, "radius": None, "threshold": 0.25}
    rows = [
        dataclasses.replace(row, probability=0.75 if row.fired else 0.125, **near) for row in report.results
    ]
    html = render_page(dataclasses.replace(report, results=rows))
    text = Page(html).text
    assert "How sure the router is" in text and "How far prompts are from edits" not in text
    assert "From 0.25 on, the edit answers" in text
    assert "What another threshold would give" in text
    assert "can be reached (from a probability of 0.75 on)" in text
    assert "Too far? new old old Who? not reached, 12% sure" in text
    assert "radii" not in text and "radius" not in text
    assert html.count("<svg") == 3


def test_baselines_have_columns_and_settings(report: EvalReport) -> None:
    other = BaselineReport(figures(edit_success=share(0.111, 2)), {"lr": 0.5, "layer": "mlp"}, 12.5, 3.25)
    text = Page(render_page(dataclasses.replace(report, baselines={"grace": other}))).text
    assert "base edited grace Edits hold edited prompts answered as asked 50.0%" in text
    assert "11.1%" in text
    assert "grace 12.5 3.2 lr 0.5, layer mlp" in text
    assert "The other editors" not in Page(render_page(report)).text


def test_the_paper_protocol_shows_its_measure(report: EvalReport) -> None:
    published = {"measure": "F1", "edit_success": 0.123, "generality": None, "locality": 1.0, "arr": None}
    paper = dataclasses.replace(
        report,
        protocol="paper",
        base=figures(published=published),
        edited=figures(published=published | {"edit_success": 0.876}),
    )
    text = Page(render_page(paper)).text
    assert "Edits 87.6% F1; unedited model: 12.3%" in text
    assert "Edits F1 12.3% 87.6%" in text
    assert "Rephrases F1" not in text


def test_a_project_with_no_neuron_and_edits_alone_has_a_page(report: EvalReport) -> None:
    bare = {
        "distance": None,
        "center_distance": None,
        "radius": None,
        "nearest_edit": None,
        "nearest_right": None,
    }
    text = Page(render_page(dataclasses.replace(report, results=[result("edit", **bare)]))).text
    assert "How far prompts are from edits" not in text
    assert "What another radius would give" not in text
    assert "Do early edits survive later ones?" in text


def test_a_page_that_cannot_be_written_is_one_line(report: EvalReport, tmp_path: Path) -> None:
    with pytest.raises(MeloError, match="the report cannot be written") as caught:
        write_page(report, tmp_path / "no" / "r.html")
    assert caught.value.where == str(tmp_path / "no" / "r.html")


# Failures


def test_failures_are_listed_by_kind(report: EvalReport) -> None:
    groups = {group.title: [row.prompt for row in group.rows] for group in worst_failures(report)}
    assert groups == {
        "Edits that do not hold": [EVIL],
        "Rephrases answered by another edit": ["Astray?"],
        "Rephrases that reached their edit and are wrong all the same": ["Unlearnt?"],
        "Rephrases that no edit reached": ["Too far?"],
        "Other questions about an edit's subject that changed": [],
        "Hard negatives that changed": ["Nearly who?"],
        "Unrelated prompts that changed": [],
    }
    text = Page(render_page(report)).text
    assert "Unrelated prompts that changed: none" in text
    assert "Too far? new old old Who? not reached, 1.50 radii" in text


def test_the_worst_come_first_and_the_rest_are_counted(report: EvalReport) -> None:
    changed = [reached("hard", distance, agrees=False, prompt=f"p{distance}") for distance in range(20)]
    group = next(
        group
        for group in worst_failures(dataclasses.replace(report, results=[reached("edit"), *changed]))
        if group.title == "Hard negatives that changed"
    )
    assert (group.count, [row.prompt for row in group.rows]) == (20, [f"p{n}" for n in range(8)])


# The frontier


def at(kind: str, radii: float, *, right: bool = True) -> Result:
    fired = radii <= 1
    fields = {"fired": fired, "fired_right": right if fired else None, "nearest_right": right}
    return result(kind, center_distance=2 * radii, radius=2.0, **fields)


def test_the_frontier_scales_all_radii_together() -> None:
    rephrases = [
        at("rephrase", 0.5),
        at("rephrase", 0.8, right=False),
        at("rephrase", 1.5),
        at("rephrase", 3),
    ]
    points = frontier(rephrases, [at("hard", 0.9), at("hard", 2)])
    assert [(point.limit, point.reached, point.fired) for point in points] == [
        (0.5, 0.25, 0.0),
        (0.8, 0.25, 0.0),
        (0.9, 0.25, 0.5),
        (1.0, 0.25, 0.5),
        (1.5, 0.5, 0.5),
        (2.0, 0.5, 1.0),
        (3.0, 0.75, 1.0),
    ]
    best = best_within(points, 0.5)
    assert best is not None
    assert (best.limit, best.reached) == (1.5, 0.5)
    assert best_within(points, -1) is None
    assert ceiling(rephrases) == 0.75


def test_without_rephrases_negatives_or_neurons_there_is_no_frontier() -> None:
    assert frontier([], [at("hard", 1)]) == []
    assert frontier([at("rephrase", 1)], []) == []
    assert frontier([result("rephrase", radius=None)], [at("hard", 1)]) == []


def test_a_radius_of_nothing_is_far_from_everything_but_itself() -> None:
    assert result("hard", center_distance=1.0, radius=0.0).radii == float("inf")
    assert result("hard", center_distance=0.0, radius=0.0).radii == 0.0
    points = frontier([result("rephrase", center_distance=1.0, radius=0.0)], [at("hard", 1)])
    assert [(point.limit, point.reached) for point in points] == [(1.0, 0.0)]


DISTANCES = st.lists(st.tuples(st.floats(0, 50), st.booleans()), min_size=1, max_size=400)


@settings(max_examples=50)
@given(DISTANCES, DISTANCES)
def test_a_frontier_rises_and_passes_the_present_radii(
    ours: list[tuple[float, bool]], theirs: list[tuple[float, bool]]
) -> None:
    rephrases = [at("rephrase", radii, right=right) for radii, right in ours]
    negatives = [at("hard", radii) for radii, _ in theirs]
    points = frontier(rephrases, negatives)
    for one, next_one in itertools.pairwise(points):
        assert one.limit < next_one.limit
        assert one.reached <= next_one.reached
        assert one.fired <= next_one.fired
    [now] = [point for point in points if point.present]
    assert now.limit == 1.0
    assert now.reached == pytest.approx(sum(bool(row.fired_right) for row in rephrases) / len(rephrases))
    assert now.fired == pytest.approx(sum(bool(row.fired) for row in negatives) / len(negatives))
    assert points[-1].reached <= ceiling(rephrases) + 1e-12


def sure(kind: str, probability: float, threshold: float, *, right: bool = True) -> Result:
    fired = probability >= threshold
    fields = {"fired": fired, "fired_right": right if fired else None, "nearest_right": right}
    near = {"center_distance": None, "radius": None, "probability": probability, "threshold": threshold}
    return result(kind, **near, **fields)


def test_the_frontier_of_the_rule_verified_moves_the_threshold() -> None:
    rephrases = [sure("rephrase", probability, 0.5) for probability in (0.9, 0.4, 0.1)]
    rephrases.append(sure("rephrase", 0.95, 0.5, right=False))
    negatives = [sure("hard", probability, 0.5) for probability in (0.6, 0.05)]
    points = frontier(rephrases, negatives, measure_of(rephrases))
    assert [(point.limit, point.reached, point.fired, point.present) for point in points] == [
        (0.95, 0.0, 0.0, False),
        (0.9, 0.25, 0.0, False),
        (0.6, 0.25, 0.5, False),
        (0.5, 0.25, 0.5, True),
        (0.4, 0.5, 0.5, False),
        (0.1, 0.75, 0.5, False),
        (0.05, 0.75, 1.0, False),
    ]
    assert best_within(points, 0.5) == points[5]
    assert ceiling(rephrases) == 0.75


PROBABILITIES = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=400)


@settings(max_examples=50)
@given(PROBABILITIES, PROBABILITIES, st.floats(0, 1))
def test_a_frontier_rises_and_passes_the_present_threshold(
    ours: list[tuple[float, bool]], theirs: list[tuple[float, bool]], threshold: float
) -> None:
    rephrases = [sure("rephrase", probability, threshold, right=right) for probability, right in ours]
    negatives = [sure("hard", probability, threshold) for probability, _ in theirs]
    points = frontier(rephrases, negatives, measure_of(negatives))
    for one, next_one in itertools.pairwise(points):
        assert one.limit > next_one.limit
        assert one.reached <= next_one.reached
        assert one.fired <= next_one.fired
    [now] = [point for point in points if point.present]
    assert now.reached == pytest.approx(sum(bool(row.fired_right) for row in rephrases) / len(rephrases))
    assert now.fired == pytest.approx(sum(bool(row.fired) for row in negatives) / len(negatives))
