"""A chat template writes the same tomorrow, and its end of an answer is one at which the model stops."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from melo_cli.errors import BaseMismatchError
from melo_cli.models.base_model import load_base_model
from melo_cli.models.chat_template import closing_token, on_day, writes_the_day
from melo_cli.recipe import ModelSection
from melo_cli.runtime.base_reference import base_reference

PLAIN = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DATED = [
    "Today: {{ strftime_now('%d %b %Y') }}." + PLAIN,
    'It is {{- strftime_now( "%A the %d") }}' + PLAIN,
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    '{% set date_string = strftime_now("%d %b %Y") %}{% else %}{% set date_string = "26 Jul 2024" %}'
    "{% endif %}{% endif %}Today Date: {{ date_string }}" + PLAIN,
    "{%- set today = strftime_now(format='%B %d, %Y') -%}{{ today }}" + PLAIN,
]


class _Later(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> _Later:
        return cls(2031, 5, 6, tzinfo=tz)


def written(tokenizer: Any, template: str) -> str:
    tokenizer.chat_template = template
    messages = [{"role": "user", "content": "Who?"}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@pytest.mark.parametrize("template", DATED)
def test_a_fixed_template_writes_its_own_day_for_ever(
    template: str, pico_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(pico_llama)
    fixed = on_day(template, date(2026, 3, 4))
    today = written(tokenizer, fixed)
    assert writes_the_day(template)
    assert "04" in today
    monkeypatch.setattr(chat_template_utils, "datetime", _Later)
    chat_template_utils._compile_jinja_template.cache_clear()
    assert written(tokenizer, fixed) == today
    assert written(tokenizer, template) != today


def test_a_template_without_a_day_stays_as_it_is() -> None:
    assert not writes_the_day(PLAIN)
    assert not writes_the_day(None)
    assert on_day(PLAIN, date(2026, 3, 4)) == PLAIN
    assert on_day({"default": DATED[0], "tools": PLAIN}, date(2026, 3, 4))["tools"] == PLAIN


def test_the_closing_token_is_the_one_behind_an_answer(pico_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(pico_llama)
    tokenizer.chat_template = PLAIN
    end = tokenizer.convert_tokens_to_ids("</s>")
    assert closing_token(tokenizer, {end, 7}) == end
    assert closing_token(tokenizer, {7}) is None
    tokenizer.chat_template = None
    assert closing_token(tokenizer, {end}) is None


@pytest.fixture
def dated_llama(pico_llama: Path, tmp_path: Path) -> Path:
    import shutil

    folder = tmp_path / "dated"
    shutil.copytree(pico_llama, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = DATED[0]
    tokenizer.save_pretrained(folder)
    return folder


def section(folder: Path, day: str | None = None) -> ModelSection:
    return ModelSection(name_or_path=str(folder), template="chat", device="cpu", template_day=day)


def test_a_project_keeps_the_day_on_which_it_was_made(
    dated_llama: Path, recipe_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from melo_cli.runtime.loading import resolve_recipe

    recipe = recipe_for(dated_llama, "custom", {"model": section(dated_llama).model_dump()})
    first = load_base_model(recipe.model, "custom")
    kept = resolve_recipe(recipe, first).model
    assert kept.template_day == first.template_day
    monkeypatch.setattr("melo_cli.models.base_model.datetime", _Later)
    later = load_base_model(kept, "custom")
    assert later.tokenizer.chat_template == first.tokenizer.chat_template
    base_reference(first).require_same(base_reference(later))
    assert load_base_model(recipe.model, "custom").tokenizer.chat_template != first.tokenizer.chat_template


def test_a_template_that_changed_on_disk_is_noticed(dated_llama: Path) -> None:
    first = base_reference(load_base_model(section(dated_llama, "2026-03-04"), "custom"))
    tokenizer = AutoTokenizer.from_pretrained(dated_llama)
    tokenizer.chat_template = "You are kind. " + DATED[0]
    tokenizer.save_pretrained(dated_llama)
    second = base_reference(load_base_model(section(dated_llama, "2026-03-04"), "custom"))
    with pytest.raises(BaseMismatchError, match="differs in chat template"):
        first.require_same(second)


def test_auto_asks_in_the_template_where_there_is_one(pico_llama: Path, pico_gpt2: Path) -> None:
    auto = {"template": "auto", "device": "cpu"}
    assert load_base_model(ModelSection(name_or_path=str(pico_llama), **auto), "custom").template == "chat"
    assert load_base_model(ModelSection(name_or_path=str(pico_gpt2), **auto), "custom").template == "none"
