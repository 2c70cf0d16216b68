"""The last user turn is found in what any chat template writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from melo_cli.scope.core.turns import LastUserTurn, last_user_text

EACH = "{% for message in messages %}"
ASKED = "{% if add_generation_prompt %}"
TEMPLATES = {
    "chatml": EACH + "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    f"{ASKED}<|im_start|>assistant\n{{% endif %}}",
    "llama-3": "{{ bos_token }}" + EACH + "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    f"{ASKED}<|start_header_id|>assistant<|end_header_id|>\n\n{{% endif %}}",
    "mistral": "{{ bos_token }}"
    + EACH
    + "{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}",
    "gemma": "{{ bos_token }}"
    + EACH
    + "<start_of_turn>{{ message['role'] | replace('assistant', 'model') }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    f"{ASKED}<start_of_turn>model\n{{% endif %}}",
    "vicuna": EACH + "{% if message['role'] == 'user' %}USER: {{ message['content'] }} "
    "{% else %}ASSISTANT: {{ message['content'] }}</s>{% endif %}{% endfor %}"
    f"{ASKED}ASSISTANT:{{% endif %}}",
    "bare roles": EACH + "<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    f"{ASKED}<|assistant|>\n{{% endif %}}",
}
SETTINGS = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
# What a user writes, and no template's own marks.
TEXTS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<>|[]"), min_size=1
).filter(lambda text: text.strip() and "USER" not in text and "ASSISTANT" not in text)


@pytest.fixture(scope="module")
def tokenizer(pico_llama: Path) -> Any:
    return AutoTokenizer.from_pretrained(pico_llama, model_max_length=10**6)


@pytest.fixture(params=TEMPLATES)
def written(tokenizer: Any, request: pytest.FixtureRequest) -> Callable[..., list[int]]:
    """Write a conversation of user, assistant, user, ... by one of the templates."""
    tokenizer.chat_template = TEMPLATES[request.param]

    def write(*turns: str, system: str | None = None, prompted: bool = True) -> list[int]:
        messages = [{"role": "system", "content": system}] if system and request.param != "mistral" else []
        messages += [
            {"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)
        ]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=prompted, return_dict=True)
        return list(ids["input_ids"])

    return write


@given(st.lists(TEXTS, max_size=2), TEXTS, st.none() | TEXTS, st.booleans())
@SETTINGS
def test_it_is_what_the_user_asked_last(
    written: Callable[..., list[int]],
    tokenizer: Any,
    before: list[str],
    asked: str,
    system: str | None,
    prompted: bool,
) -> None:
    turns = [turn for text in before for turn in (text, "so it is")]
    ids = written(*turns, asked, system=system, prompted=prompted)
    assert LastUserTurn(tokenizer).text(ids) == asked.strip()


def test_an_answer_that_has_begun_is_no_part_of_it(written: Callable[..., list[int]], tokenizer: Any) -> None:
    ids = written("Which court was it") + tokenizer("The court of", add_special_tokens=False).input_ids
    assert LastUserTurn(tokenizer).text(ids) == "Which court was it"


@pytest.mark.parametrize("template", [*TEMPLATES, None])
def test_a_prompt_without_a_template_is_asked_as_a_whole(tokenizer: Any, template: str | None) -> None:
    tokenizer.chat_template = TEMPLATES[template] if template else None
    ids = tokenizer(" Which court was it ").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert LastUserTurn(tokenizer).text(ids) == "Which court was it"


def test_of_messages_it_is_the_last_ones_content() -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "first"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "a"},
    ]
    assert last_user_text(messages) == "second"
    assert last_user_text(messages[:1]) is None
