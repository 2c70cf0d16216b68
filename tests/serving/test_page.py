"""The page of `melo serve`, as somebody uses it in a browser, in a wide window and in one of a phone."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pico_scope import QUICK_SCOPE

pytest.importorskip("fastapi", reason="melo serve needs melo-cli[serve]")
pytest.importorskip("playwright", reason="the page is tested with playwright, which is not installed")

from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect, sync_playwright
from served import running_app

from melo_cli.datasets import EditRequest
from melo_cli.editing import edit_dataset, edit_opened
from melo_cli.editing.editor import EditOutcome
from melo_cli.errors import MeloError
from melo_cli.recipe import recipe_from_mapping
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import open_project
from melo_cli.serving.access import Access
from melo_cli.serving.app import make_app
from melo_cli.serving.openai_schema import EditBody
from melo_cli.serving.run import ServeSettings, make_server
from melo_cli.serving.server import Server
from melo_cli.serving.settings import Keys
from melo_store.evaluation import keep_evaluation
from melo_store.format.layout import EVALUATION
from melo_store.project import Project
from melo_store.records import NewEdit
from melo_store.writer import open_writer

CHROMIUM = os.environ.get("MELO_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium on the path, and $MELO_CHROMIUM names none"
)

WIDTHS = {"wide": (1280, 800), "narrow": (390, 844)}
FACTS = {
    "Who is the prime minister of Britain?": "London",
    "In which year was the tower built?": "1889",
    "Which court was it": "John",
}
FIRST = "Who is the prime minister of Britain?"
HOSTILE = "<img src=x onerror=\"document.title='taken over'\"><script>document.title='taken over'</script>"
MANY = 230
ROWS = 200
SLOW_MS = 20_000


@dataclass
class Served:
    """A running server, and where it is."""

    server: Server
    url: str
    path: Path

    @property
    def project(self) -> Project:
        return Project.open(self.path)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, pico_llama: Path) -> Path:
    """A project with edits of every status, more of them than the page shows at once."""
    folder = tmp_path_factory.mktemp("page")
    rows = [{"prompt": prompt, "target": target} for prompt, target in FACTS.items()]
    (folder / "edits.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    recipe = recipe_from_mapping(
        {
            "name": "facts",
            "task": "custom",
            "model": {"name_or_path": str(pico_llama), "device": "cpu", "template": "chat"},
            "dataset": {"edits": str(folder / "edits.jsonl"), "format": "melo"},
            "calibration": QUICK_SCOPE,
            "lora": {"rank": 4, "alpha": 8},
            "generation": {"max_new_tokens": 8},
            "training": {
                "batch_size": 1,
                "blocks_in_flight": 4,
                "variants": 0,
                "max_steps": 80,
                "optimizer": {"name": "Adam", "lr": 2e-2},
            },
        },
        where="test",
    )
    path = folder / "facts"
    summary = edit_dataset(recipe, path, SilentReporter(), command="melo edit facts.yaml")
    assert summary.count("solved") == len(FACTS)
    again = EditRequest("Which court was it", "Paris", subject="court")
    edit_opened(open_project(path), again, SilentReporter(), command="melo edit again")
    _record(
        path, [NewEdit(f"Question {number}?", f"Answer {number}", status="failed") for number in range(MANY)]
    )
    _record(
        path,
        [
            NewEdit(HOSTILE, "nothing", status="failed"),
            NewEdit("What is right?", "This is", status="already_right", subject="Cologne"),
            NewEdit("What was a mistake?", "This was", status="already_right"),
            *(NewEdit(f"To be taken back, {width}", "yes", status="already_right") for width in WIDTHS),
        ],
    )
    with open_writer(Project.open(path)) as writer:
        mistake = writer.project.edits()[-3].edit_id
        writer.revert([mistake], versions={}, command=f"melo revert {mistake}")
    return path


def _record(path: Path, edits: list[NewEdit]) -> None:
    """Commit edits that no block answers."""
    opened = Project.open(path)
    with open_writer(opened) as writer:
        staged = writer.stage(edits, {})
        staged.commit(recipe=opened.recipe, seed=0, versions={}, command="melo edit more.yaml")


@pytest.fixture(scope="module")
def served(project: Path) -> Iterator[Served]:
    server = make_server(open_project(project), ServeSettings(model_name="pico"))
    with running_app(make_app(server)) as url:
        yield Served(server, f"{url}/", project)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=WIDTHS)
def width(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def window(browser: Browser, width: str) -> Iterator[BrowserContext]:
    """A window of each width."""
    expect.set_options(timeout=SLOW_MS)
    wide, high = WIDTHS[width]
    context = browser.new_context(viewport={"width": wide, "height": high})
    context.set_default_timeout(SLOW_MS)
    yield context
    context.close()


@pytest.fixture
def page(window: BrowserContext, served: Served) -> Iterator[Page]:
    """The page in a tab of its own, with what it knows on it. It must not fail, nor leave its host."""
    page = window.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if _is_fault(line) else None)
    page.on(
        "request", lambda request: faults.append(request.url) if _is_elsewhere(request.url, served) else None
    )
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.goto(served.url)
    expect(page.locator("#snapshot")).to_have_text(re.compile("snapshot [0-9]+"))
    yield page
    with suppress(Exception):  # a test that has failed says more
        faults += [f"{page.url} scrolls sideways"] if _scrolls_sideways(page) else []
    page.close()
    assert faults == []


def _is_fault(line: Any) -> bool:
    return line.type == "error" and "Failed to load resource" not in line.text


def _is_elsewhere(url: str, served: Served) -> bool:
    return not url.startswith((served.url, "data:"))


def _scrolls_sideways(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def view(page: Page, name: str) -> None:
    page.locator("nav").get_by_role("link", name=re.compile(name)).click()
    expect(page.locator(f"#view-{name.lower()}")).to_be_visible()
    assert not _scrolls_sideways(page)


def ask(page: Page, prompt: str) -> None:
    page.fill("#max-tokens", "8")
    page.fill("#prompt", prompt)
    page.press("#prompt", "Enter")
    expect(page.locator("#route")).to_be_visible()
    expect(page.locator("#ask-button")).to_have_text("Ask")


def row(page: Page, edit_id: str) -> Locator:
    return page.locator(f'tr[data-edit="{edit_id}"]')


def edit_of(served: Served, prompt: str) -> Any:
    return next(each for each in reversed(served.project.edits()) if each.prompt == prompt)


# ---------------------------------------------------------------- ask


def test_an_answer_says_which_edit_gave_it_how_sure_and_what_the_base_says(
    page: Page, served: Served
) -> None:
    edit = edit_of(served, FIRST)
    ask(page, FIRST)
    expect(page.locator("#route")).to_have_text(f"Answered by {edit.edit_id}")
    expect(page.locator("#answer-edited")).to_have_text("London")
    expect(page.locator("#answer-base")).not_to_have_text("London")
    expect(page.locator("#sure")).to_have_text(re.compile(r"^(100|[0-9.]+)\s% sure$"))
    expect(page.locator("#nearest")).to_contain_text(FIRST)
    assert not _scrolls_sideways(page)
    page.locator("#route a").click()
    expect(row(page, edit.edit_id).locator("button")).to_have_attribute("aria-expanded", "true")


def test_where_no_edit_fires_the_answer_is_the_bases_and_says_what_spoke_against(
    page: Page, served: Served
) -> None:
    ask(page, "This is a Wikipedia passage about John Smith")
    expect(page.locator("#route")).to_contain_text("base")
    expect(page.locator("#answer-base")).to_be_visible()
    expect(page.locator("#nearest")).to_have_text(re.compile("e[0-9]{6}"))
    expect(page.locator("#against")).to_have_text(re.compile("."))


def test_an_open_request_says_which_edit_the_base_was_told(page: Page, served: Served) -> None:
    edit = edit_of(served, "Which court was it")
    ask(page, "Tell me about the court.")
    expect(page.locator("#route")).to_have_text(f"Answered by base, told {edit.edit_id}")
    told, base = (page.locator(f"#answer-{side}") for side in ("edited", "base"))
    expect(told).to_be_visible()
    assert told.inner_text() != base.inner_text()
    page.locator("#route a").click()
    expect(row(page, edit.edit_id).locator("button")).to_have_attribute("aria-expanded", "true")


def test_keys_lead_to_the_prompt_box_and_break_its_lines(page: Page) -> None:
    view(page, "Edits")
    page.press("#search", "/")
    expect(page.locator("#search")).to_have_value("/")
    page.locator("#add").focus()
    page.keyboard.press("/")
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two/")
    expect(page.locator("#prompt")).to_have_value("one\ntwo/")
    expect(page.locator("#answer")).to_be_empty()


def test_what_cannot_be_asked_is_answered_with_the_servers_words(page: Page) -> None:
    page.fill("#max-tokens", "1000000")
    page.fill("#prompt", "Who?")
    page.click("#ask-button")
    expect(page.locator("#ask-error")).to_contain_text("1024")
    page.route("**/melo/ask", lambda route: route.abort())
    page.click("#ask-button")
    expect(page.locator("#ask-error")).to_have_text("the server does not answer; is it still running?")


# ---------------------------------------------------------------- edits


def test_edits_are_listed_searched_and_filtered(page: Page, served: Served) -> None:
    edits = served.project.edits()
    view(page, "Edits")
    rows = page.locator("tr[data-edit]")
    expect(rows).to_have_count(ROWS)
    expect(page.locator("#edits-shown")).to_contain_text(f"{len(edits) - ROWS} more")
    expect(rows.first).to_contain_text(edits[-1].edit_id)

    page.fill("#search", "question 22")
    expect(rows).to_have_count(12)  # 22, 122, and 220 to 229
    page.fill("#search", "COLOGNE")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("already right")
    page.fill("#search", edits[0].edit_id)
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text(edits[0].target)
    expect(rows.locator("time")).to_have_attribute("datetime", re.compile("^20"))
    page.fill("#search", "no such edit")
    expect(rows).to_have_count(0)
    expect(page.locator("#edits-list")).to_contain_text("No edit is like this")

    page.fill("#search", "which court")
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="superseded").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("John")
    rows.get_by_role("button").click()
    expect(page.locator("tr.details")).to_contain_text(edit_of(served, "Which court was it").edit_id)
    page.get_by_role("button", name="reverted").click()
    expect(rows).to_have_count(0)
    page.fill("#search", "")
    expect(rows.first).to_contain_text("reverted")


def test_arrows_go_through_the_list(page: Page) -> None:
    view(page, "Edits")
    rows = page.locator("tr[data-edit] button.opens")
    page.focus("#search")
    page.keyboard.press("ArrowDown")
    expect(rows.nth(0)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(rows.nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(rows.nth(ROWS - 1)).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#search")).to_be_focused()


def test_an_edit_leads_to_the_commit_that_made_it(page: Page, served: Served) -> None:
    edit = edit_of(served, "Which court was it")
    made = next(
        each.number for each in served.project.history() if each.counts["edits"] >= int(edit.edit_id[1:])
    )
    view(page, "Edits")
    page.fill("#search", edit.edit_id)
    row(page, edit.edit_id).get_by_role("link", name=f"#{made}").click()
    opened = page.locator(f'li[data-commit="{made}"]')
    expect(opened.locator("button")).to_have_attribute("aria-expanded", "true")
    expect(opened.locator(".changes")).to_contain_text("live \u2192 superseded")
    expect(opened.locator(".changes li")).to_have_count(2)
    opened.get_by_role("link", name=edit.edit_id).first.click()
    expect(row(page, edit.edit_id)).to_be_visible()


def test_an_edit_is_taken_back_with_the_keyboard_and_not_before_it_is_confirmed(
    page: Page, served: Served, width: str
) -> None:
    edit = edit_of(served, f"To be taken back, {width}")
    view(page, "Edits")
    page.fill("#search", f"taken back, {width}")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    take_back = page.get_by_role("button", name="Take it back").first
    take_back.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=f"Take {edit.edit_id} back?")
    expect(dialog).to_contain_text(edit.prompt)
    expect(page.locator("#revert-keep")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert served.project.edit(edit.edit_id).status == "already_right"

    expect(take_back).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(row(page, edit.edit_id)).to_contain_text("reverted")
    expect(row(page, edit.edit_id).locator("button")).to_be_focused()
    expect(page.locator("#notice")).to_contain_text(f"{edit.edit_id} is taken back")
    assert served.project.edit(edit.edit_id).status == "reverted"


def test_what_cannot_be_taken_back_says_why_where_it_was_asked(
    page: Page, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_ids: list[str]) -> int:
        raise MeloError("another process writes", where="facts", hint="wait")

    monkeypatch.setattr(served.server.editor, "revert", refuse)
    view(page, "Edits")
    page.fill("#search", FIRST)
    page.get_by_role("button", name=re.compile("prime minister")).click()
    page.get_by_role("button", name="Take it back").click()
    page.click("#revert-do")
    expect(page.locator("#revert-error")).to_contain_text("another process writes")
    page.click("#revert-keep")
    expect(page.locator("#revert-dialog")).to_be_hidden()
    assert edit_of(served, FIRST).status == "live"


def test_an_answer_is_corrected(page: Page, served: Served, width: str) -> None:
    prompt = {"wide": "By whom was it opened?", "narrow": "who studied law"}[width]
    ask(page, prompt)
    now = page.locator("#answer-base").inner_text()
    page.get_by_role("button", name="Correct this answer").click()
    expect(page.locator("#edit-prompt")).to_have_value(prompt)
    expect(page.locator("#edit-now-text")).to_have_text(now)
    expect(page.locator("#edit-target")).to_be_focused()
    assert not _scrolls_sideways(page)
    page.keyboard.type("Smith")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#edit-outcome")).to_contain_text(re.compile("being trained|in force"))
    expect(page.locator("#edit-after")).to_have_text("Smith")
    expect(page.locator("#edit-before")).to_have_text(re.compile("."))
    edit = edit_of(served, prompt)
    assert (edit.status, edit.target) == ("live", "Smith")
    expect(page.locator("#edit-outcome")).to_contain_text(f"{edit.edit_id} is in force")
    expect(page.locator("#snapshot")).to_have_text(f"snapshot {served.project.snapshot}")
    page.keyboard.press("Enter")  # "Ask it" has the focus
    expect(page.locator("#edit-dialog")).to_be_hidden()
    expect(page.locator("#answer-edited")).to_have_text("Smith")
    view(page, "Edits")
    expect(page.locator("tr[data-edit]").first).to_contain_text(prompt)


def test_an_edit_that_did_not_take_says_why_and_its_form_is_kept(
    page: Page, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[EditBody] = []
    held = threading.Event()

    async def fail(body: EditBody) -> EditOutcome:
        asked.append(body)
        while not held.is_set():
            await asyncio.sleep(0.02)
        return EditOutcome("e000999", "failed", body.prompt, body.target, "Leeds", "Leeds")

    monkeypatch.setattr(served.server.editor, "edit", fail)
    view(page, "Edits")
    page.click("#add")
    expect(page.locator("#edit-prompt")).to_be_focused()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#edit-prompt-error")).to_be_visible()
    expect(page.locator("#edit-prompt")).to_be_focused()
    form = page.get_by_role("dialog", name="Add an edit")
    form.get_by_label("Prompt", exact=True).fill("Where is Leeds?")
    form.get_by_label("Target").fill("Here")
    form.get_by_label("Subject").fill("Leeds")
    form.get_by_label("Rephrases").fill("Where does Leeds lie?\n\n Leeds is where? ")
    form.get_by_label("Prompts that should stay").fill("Where is York?")
    page.click("#edit-save")
    expect(page.locator("#edit-outcome")).to_contain_text("being trained")
    expect(page.locator("#edit-target")).to_be_disabled()
    held.set()
    expect(page.locator("#edit-outcome")).to_contain_text(
        "e000999 did not take: the model still answers 'Leeds'"
    )
    expect(page.locator("#edit-target")).to_have_value("Here")
    expect(page.locator("#edit-target")).to_be_enabled()
    assert asked == [
        EditBody(
            prompt="Where is Leeds?",
            target="Here",
            subject="Leeds",
            rephrases=["Where does Leeds lie?", "Leeds is where?"],
            locality=["Where is York?"],
        )
    ]
    page.keyboard.press("Escape")
    expect(page.locator("#edit-dialog")).to_be_hidden()
    expect(page.locator("#add")).to_be_focused()


def test_an_edit_is_changed_from_the_list(page: Page) -> None:
    page.fill("#max-tokens", "8")
    view(page, "Edits")
    page.fill("#search", "cologne")
    page.get_by_role("button", name=re.compile("What is right")).click()
    page.get_by_role("button", name="Change it").click()
    expect(page.locator("#edit-prompt")).to_have_value("What is right?")
    expect(page.locator("#edit-target")).to_have_value("This is")
    expect(page.locator("#edit-subject")).to_have_value("Cologne")
    page.click("#edit-dialog [data-close]")
    page.get_by_role("button", name="Ask it").click()
    expect(page.locator("#prompt")).to_have_value("What is right?")
    expect(page.locator("#answer")).to_contain_text("Answered by")


def test_what_people_wrote_stays_text(page: Page) -> None:
    page.fill("#max-tokens", "8")
    view(page, "Edits")
    page.fill("#search", "onerror")
    expect(page.locator("tr[data-edit] .text").first).to_have_text(HOSTILE)
    page.locator("tr[data-edit] button").click()
    page.get_by_role("button", name="Ask it").click()
    expect(page.locator("#route")).to_be_visible()
    assert page.locator("main img, main script").count() == 0
    assert page.title() == "facts \u2013 melo"


# ---------------------------------------------------------------- history and scope


def test_history_shows_the_commits_the_newest_first_and_what_each_changed(page: Page, served: Served) -> None:
    history = served.project.history()[::-1]
    view(page, "History")
    commits = page.locator("li[data-commit]")
    expect(commits).to_have_count(len(history))
    numbers = [int(each.get_attribute("data-commit") or -1) for each in commits.all()]
    assert numbers == [each.number for each in history]
    reverted = next(each for each in history if each.command is not None and "melo revert" in each.command)
    commit = page.locator(f'li[data-commit="{reverted.number}"]')
    expect(commit).to_contain_text("revert")
    expect(commit).to_contain_text(f"{reverted.counts['live']} live")
    expect(commit).to_contain_text("1 reverted (+1)")
    expect(commit.locator("time")).to_have_attribute("datetime", re.compile("^20"))
    commit.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(commit.locator(".changes")).to_contain_text("What was a mistake?")
    expect(commit.locator(".changes")).to_contain_text("already right \u2192 reverted")
    expect(commit.get_by_role("button").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(commit.locator(".changes")).to_be_hidden()
    many = next(each for each in history if each.counts["failed"] == MANY)
    page.locator(f'li[data-commit="{many.number}"] button').click()
    expect(page.locator(".changes li")).to_have_count(ROWS)
    expect(page.locator(".changes")).to_contain_text(f"{MANY - ROWS} more changes")


def test_scope_shows_the_shares_that_calibration_kept(page: Page, served: Served) -> None:
    key_map = served.project.key_map
    assert key_map is not None
    kept: Any = key_map.settings["learnt"]
    assert kept["corpus"]
    view(page, "Scope")
    for kind, share in kept["corpus"].items():
        shown = page.locator(f'tr[data-kind="{kind}"] .share').first.inner_text()
        assert float(shown.rstrip("%\u202f")) == pytest.approx(100 * share, abs=0.51)
    groups = page.locator("tr.group")
    expect(groups.nth(0)).to_contain_text("Reach")
    expect(groups.nth(1)).to_contain_text("False fires")


def test_scope_shows_a_projects_own_shares_and_says_where_nothing_is_kept(page: Page) -> None:
    own = {"rephrase": 0.75, "unrelated": 0.015}
    corpus = {"rephrase": 0.5, "unrelated": 0.0}
    expected = {"threshold": 0.62, "corpus": corpus, "own": own, "counts": {"rephrase": 40, "unrelated": 200}}
    page.route("**/melo/status", _with(expected=expected))
    page.goto(page.url.split("#")[0] + "#scope")
    page.reload()
    expect(page.locator('tr[data-kind="rephrase"]')).to_contain_text("75\u202f%of 40")
    expect(page.locator('tr[data-kind="unrelated"]')).to_contain_text("1.5\u202f%of 200")
    expect(page.locator("#scope")).to_contain_text("62\u202f% on")
    page.unroute("**/melo/status")
    page.route("**/melo/status", _with(expected={}))
    page.reload()
    expect(page.locator("#scope")).to_contain_text("Nothing is kept")
    page.unroute("**/melo/status")


def test_scope_shows_what_the_last_evaluation_found(page: Page, served: Served) -> None:
    view(page, "Scope")
    expect(page.locator("#evaluation")).to_contain_text("not been evaluated yet")
    share = {"generation": 0.95, "teacher_forced": None, "n": 20, "ci95": [0.7, 1.0]}
    edited = {"fired_edits": 1.0, "edit_success": share, "fired_unrelated": 0.015, "locality_agreement": None}
    figures = {"snapshot": 1, "protocol": "strict", "edited": edited}
    keep_evaluation(served.path, figures)
    try:
        page.reload()
        fired = page.locator('tr[data-probe="fired_edits"]')
        expect(fired).to_contain_text("100\u202f%")
        expect(fired).to_contain_text("95\u202f%of 20")
        expect(page.locator('tr[data-probe="fired_unrelated"]')).to_contain_text("1.5\u202f%")
        expect(page.locator('tr[data-probe="fired_hard"]')).to_have_count(0)
        expect(page.locator("#evaluation")).to_contain_text("Commits made since then are not in it")
    finally:
        (served.path / EVALUATION).unlink()


def _with(**changes: Any) -> Callable[[Route], None]:
    """An answer of the server, changed."""

    def handle(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | changes)

    return handle


# ---------------------------------------------------------------- the server


def test_a_key_is_asked_for_where_the_server_wants_one(
    page: Page, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.server, "access", Access(Keys(admins=("open sesame",))))
    page.reload()
    dialog = page.get_by_role("dialog", name="This server asks for an admin key")
    expect(page.locator("#key")).to_be_focused()
    expect(page.locator("#key-why")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator("#fault")).to_contain_text("the key is missing or wrong")

    page.fill("#prompt", FIRST)
    page.press("#prompt", "Enter")
    dialog.get_by_label("Admin key").fill("sesame")
    page.keyboard.press("Enter")
    expect(page.locator("#key-why")).to_contain_text("the key is missing or wrong")
    dialog.get_by_label("Admin key").fill("open sesame")
    page.get_by_role("button", name="Use the key").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#answer-edited")).to_have_text("London")

    page.reload()  # the tab keeps it
    expect(page.locator("#snapshot")).to_have_text(re.compile("snapshot"))
    expect(dialog).to_be_hidden()
    assert page.evaluate("[Object.values(localStorage).length, document.cookie]") == [0, ""]
    page.get_by_role("button", name="Forget the key").click()
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")


def test_commits_of_other_processes_appear(browser: Browser, served: Served) -> None:
    context = browser.new_context()  # whose clock is the test's
    page = context.new_page()
    page.clock.install()
    page.goto(f"{served.url}#edits")
    rows = page.locator("tr[data-edit]")
    expect(rows.first).to_be_visible()
    _record(served.project.path, [NewEdit("Who else was here?", "they", status="failed")])
    for _ in range(50):
        page.clock.run_for(6000)
        page.wait_for_timeout(50)
        if "Who else" in rows.first.inner_text():
            break
    expect(rows.first).to_contain_text("Who else was here?")
    context.close()


def test_text_stands_out_from_its_ground(page: Page, served: Served) -> None:
    ask(page, FIRST)
    assert [page.evaluate(CONTRAST), _in_the_dark(page)] == [[], []]
    view(page, "Edits")
    page.fill("#search", edit_of(served, FIRST).edit_id)
    page.locator("tr[data-edit] button.opens").click()
    assert [page.evaluate(CONTRAST), _in_the_dark(page)] == [[], []]


def _in_the_dark(page: Page) -> Any:
    page.emulate_media(color_scheme="dark")
    faint = page.evaluate(CONTRAST)
    page.emulate_media(color_scheme="light")
    return faint


CONTRAST = """() => {
  // Text with less than 4.5 to 1, by WCAG's formula.
  const context = Object.assign(document.createElement("canvas"), {width: 1, height: 1}).getContext("2d");
  const over = (colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
  };
  const light = ([red, green, blue]) => 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || !element.getClientRects().length) continue;
    const grounds = [];
    for (let each = element; each; each = each.parentElement)
      grounds.unshift(getComputedStyle(each).backgroundColor);
    const ground = light(over(grounds));
    const text = light(over([...grounds, getComputedStyle(element).color]));
    const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    if (ratio < 4.5) faint.push([element.className, element.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return faint;
}"""
