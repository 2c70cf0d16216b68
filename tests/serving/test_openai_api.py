"""OpenAI's API, by OpenAI's own client: the edited model's answers, however they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
from served import FACTS, OTHERS, Running, serving

from melo_cli.runtime.loading import open_project
from melo_cli.runtime.querying import query
from melo_cli.serving.run import ServeSettings

EDITED = "What is the capital of France?"
CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def expected(chat_project: Path) -> dict[str, str]:
    """What `melo query` answers."""
    answers = query(open_project(chat_project), [*FACTS, *OTHERS], max_new_tokens=8)
    return {answer.prompt: answer.edited for answer in answers}


@pytest.fixture(scope="module")
def plain(plain_project: Path) -> Iterator[Running]:
    with serving(plain_project) as running:
        yield running


class TestAnswers:
    def test_every_edit_and_other_prompts_are_answered_as_by_query(
        self, served: Running, expected: dict[str, str]
    ) -> None:
        answers = {prompt: served.chat(prompt).choices[0].message.content.strip() for prompt in expected}
        assert answers == expected
        assert {prompt: answers[prompt] for prompt in FACTS} == FACTS

    def test_many_at_once_are_answered_as_alone(self, served: Running, expected: dict[str, str]) -> None:
        prompts = [*expected] * 5
        answers: dict[int, str] = {}

        def ask(at: int) -> None:
            answers[at] = served.chat(prompts[at]).choices[0].message.content.strip()

        threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answers[at] for at in range(len(prompts))] == [expected[prompt] for prompt in prompts]

    def test_a_stream_gives_the_whole_answer_in_pieces(self, served: Running) -> None:
        for prompt in (EDITED, OTHERS[0]):
            whole = served.chat(prompt)
            pieces = list(served.chat(prompt, stream=True, stream_options={"include_usage": True}))
            texts = [piece.choices[0].delta.content or "" for piece in pieces if piece.choices]
            assert "".join(texts) == whole.choices[0].message.content
            assert pieces[-2].choices[0].finish_reason == whole.choices[0].finish_reason
            assert pieces[-1].usage == whole.usage
            assert len({piece.id for piece in pieces}) == 1
        assert len(texts) > 2, "a long answer comes in pieces"

    def test_the_last_user_turn_is_routed(self, served: Running) -> None:
        messages = [
            {"role": "system", "content": "He studied law."},
            {"role": "user", "content": OTHERS[0]},
            {"role": "assistant", "content": "law"},
            {"role": "user", "content": [{"type": "text", "text": EDITED}]},
        ]
        response = served.post(CHAT, {"messages": messages, "max_tokens": 4})
        assert response.headers["x-melo-route"] == "e000002"
        earlier = served.post(CHAT, {"messages": [messages[3], messages[2], messages[1]], "max_tokens": 4})
        assert earlier.headers["x-melo-route"] == "base"

    def test_a_prompt_list_is_answered_in_order_with_a_route_each(self, plain: Running) -> None:
        prompts = [OTHERS[0], *FACTS]
        response = plain.post(PLAIN, {"prompt": prompts, "max_tokens": 8, "temperature": 0, "n": 2})
        choices = response.json()["choices"]
        assert [choice["index"] for choice in choices] == list(range(2 * len(prompts)))
        assert [choice["text"].strip() for choice in choices[2::2]] == list(FACTS.values())
        assert choices[2::2] == [{**each, "index": each["index"] - 1} for each in choices[3::2]]
        assert response.headers["x-melo-route"] == "base, e000001, e000002, e000003, e000004"

    def test_tokens_go_to_the_base(self, plain: Running) -> None:
        ids = open_project(plain.project).routed.tokenizer(EDITED).input_ids
        response = plain.post(PLAIN, {"prompt": ids, "max_tokens": 4, "temperature": 0})
        (answer,) = query(open_project(plain.project), [EDITED], max_new_tokens=4)
        assert response.headers["x-melo-route"] == "base"
        assert response.json()["choices"][0]["text"].strip() == answer.base != answer.edited


class TestSettings:
    def test_a_stop_text_ends_the_answer_before_it(self, served: Running) -> None:
        whole = served.chat(OTHERS[0], max_tokens=12).choices[0].message.content
        stop = whole[4:6]
        for stream in (False, True):
            answer = served.chat(OTHERS[0], max_tokens=12, stop=[stop, "never there"], stream=stream)
            if stream:
                pieces = list(answer)
                text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
                reason = pieces[-1].choices[0].finish_reason
            else:
                text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
            assert (text, reason) == (whole[: whole.index(stop)], "stop")

    def test_a_seed_repeats_draws_and_choices_differ(self, served: Running) -> None:
        def drawn(seed: int) -> list[str]:
            answer = served.chat(OTHERS[1], temperature=1.5, n=3, seed=seed, top_p=0.95)
            return [choice.message.content for choice in answer.choices]

        assert drawn(1) == drawn(1) != drawn(2)
        assert len(set(drawn(1))) > 1

    def test_a_narrow_nucleus_is_greedy(self, served: Running, expected: dict[str, str]) -> None:
        answer = served.chat(OTHERS[0], temperature=1.0, top_p=1e-6)
        assert answer.choices[0].message.content.strip() == expected[OTHERS[0]]

    def test_logprobs_of_greedy_tokens_are_the_largest(self, served: Running, plain: Running) -> None:
        answer = served.chat(OTHERS[0], logprobs=True, top_logprobs=3)
        content = answer.choices[0].logprobs.content
        assert len(content) == answer.usage.completion_tokens
        assert bytes(content[-1].bytes).decode() == content[-1].token
        assert all(each.top_logprobs[0].logprob == each.logprob <= 0 for each in content)
        assert all(len(each.top_logprobs) == 3 for each in content)
        plainly = plain.client().completions.create(
            model=plain.server.engine.model_name, prompt=EDITED, max_tokens=4, temperature=0, logprobs=2
        )
        given = plainly.choices[0].logprobs
        assert plainly.choices[0].text.startswith(given.tokens[0])
        assert given.text_offset[0] == 0
        assert all(
            max(top.values()) == own
            for top, own in zip(given.top_logprobs, given.token_logprobs, strict=True)
        )

    def test_the_length_is_a_reason_and_counted(self, served: Running) -> None:
        answer = served.chat(OTHERS[0], max_tokens=3)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 3
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 3


class TestErrors:
    def test_another_model_is_not_found(self, served: Running) -> None:
        with pytest.raises(openai.NotFoundError, match="is not served here") as error:
            served.client().chat.completions.create(
                model="gpt-4", messages=[{"role": "user", "content": "a"}]
            )
        assert error.value.code == "model_not_found"

    @pytest.mark.parametrize(
        ("path", "body", "message"),
        [
            (CHAT, {"messages": []}, "messages: "),
            (CHAT, {}, "messages: "),
            (CHAT, {"messages": [{"role": "user", "content": " "}]}, "the prompt is empty"),
            (CHAT, {"messages": [{"role": "user", "content": "a"}], "temperature": -1}, "temperature: "),
            (
                CHAT,
                {"messages": [{"role": "user", "content": "a"}], "max_tokens": 10**6},
                "max_tokens may be",
            ),
            (
                CHAT,
                {"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function"}]},
                "tools is not",
            ),
            (
                CHAT,
                {"messages": [{"role": "user", "content": "a " * 500}]},
                "tokens, but the model takes 128",
            ),
            (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not text alone"),
            (PLAIN, {"prompt": []}, "prompt"),
            (PLAIN, {"prompt": [10**9]}, "the model has no token 1000000000"),
            (PLAIN, {"prompt": "a", "n": 1000}, "n: "),
            (PLAIN, {"prompt": ["a"] * 200}, "at most 128 answers"),
            (PLAIN, {"prompt": "a", "stop": ""}, "stop: "),
        ],
    )
    def test_a_bad_request_says_what_is_wrong(
        self, served: Running, path: str, body: dict[str, object], message: str
    ) -> None:
        for stream in (False, True):
            response = served.post(path, body | {"stream": stream})
            error = response.json()["error"]
            assert (response.status_code, error["type"]) == (400, "invalid_request_error")
            assert message in error["message"]

    def test_unknown_paths_and_bodies_that_are_no_json(self, served: Running) -> None:
        assert served.get("/v1/embeddings").status_code == 404
        assert served.post("/v1/load_lora_adapter", {"lora_name": "a", "lora_path": "/"}).status_code == 404
        text = httpx.post(f"{served.url}{CHAT}", content="{", headers={"content-type": "application/json"})
        assert text.status_code == 400 and "JSON" in text.json()["error"]["message"]

    def test_no_route_is_shown_where_it_is_switched_off(self, chat_project: Path) -> None:
        with serving(chat_project, ServeSettings(shows_route=False)) as running:
            body = {"messages": [{"role": "user", "content": EDITED}], "max_tokens": 2}
            response = running.post(CHAT, body)
            assert response.status_code == 200 and "x-melo-route" not in response.headers


def test_other_shapes_of_prompts_and_encoder_decoders(
    make_project: Callable[..., Path], pico_t5: Path
) -> None:
    project = make_project(pico_t5, task="zsre")
    expected = {
        each.prompt: each.edited for each in query(open_project(project), [*FACTS, *OTHERS], max_new_tokens=6)
    }
    with serving(project) as running:
        body = {"prompt": [*expected], "max_tokens": 6, "temperature": 0}
        choices = running.post(PLAIN, body).json()["choices"]
        assert [choice["text"].strip() for choice in choices] == [*expected.values()]
