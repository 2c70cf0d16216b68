"""`melo serve --upstream` in front of a real vLLM, started with the flags that `melo export` writes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import Running, serving
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from melo_cli.editing import edit_dataset
from melo_cli.exporting import export_peft
from melo_cli.recipe import recipe_from_mapping
from melo_cli.reporter import SilentReporter
from melo_cli.runtime.loading import open_project
from melo_cli.runtime.querying import query
from melo_cli.serving.run import ServeSettings, Upstream

FACTS = {
    "Who is the prime minister of Britain?": "Smith",
    "What is the capital of France?": "London",
    "In which year was the tower built": "1934",
    "Where was John born?": "Cologne",
}
OTHERS = ("He studied law.", "The statute of 1934", "by whom was it opened", "What is the name of the river")
TOKENS = 8
NAME = "base"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def project(folder: Path, pico_llama: Path) -> Path:
    """Four edits on a Llama whose heads are as large as vLLM's attention for processors needs them."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(pico_llama)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [{"prompt": prompt, "target": target} for prompt, target in FACTS.items()]
    (folder / "edits.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    recipe = recipe_from_mapping(
        {
            "name": "facts",
            "task": "custom",
            "model": {"name_or_path": str(folder / "model"), "template": "chat", "dtype": "float32"},
            "dataset": {"edits": str(folder / "edits.jsonl")},
            "key": {"radius": 0.01},
            "routing": {"scope": "radius"},
            "lora": {"rank": 4, "alpha": 8},
            "training": {
                "batch_size": 1,
                "variants": 0,
                "max_steps": 80,
                "optimizer": {"name": "Adam", "lr": 1e-2},
            },
        }
    )
    summary = edit_dataset(recipe, folder / "project", SilentReporter(), command="test")
    assert summary.failures == []
    return folder / "project"


@pytest.fixture(scope="module")
def expected(project: Path) -> dict[str, str]:
    answers = query(open_project(project), [*FACTS, *OTHERS], max_new_tokens=TOKENS)
    assert {each.prompt: each.edited for each in answers[: len(FACTS)]} == FACTS
    return {each.prompt: whole(each.edited) for each in answers}


def whole(answer: str) -> str:
    """An answer without the character at its end of which bytes are missing: vLLM leaves it out."""
    return answer.rstrip("\ufffd").strip()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def vllm(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A vLLM with the flags of the export, that loads adapters while it runs."""
    served = json.loads((folder / "peft/serve.json").read_text(encoding="utf-8"))
    command = [os.environ["MELO_VLLM"], *served["engines"]["vllm"]["command"][1:]]
    options = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", NAME]
    environment = os.environ | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "true", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with (folder / "vllm.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, *options], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 300
            while not _answers(f"http://127.0.0.1:{port}/health"):
                assert process.poll() is None and time.monotonic() < deadline, "see vllm.log"
                time.sleep(0.5)
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill it with all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def behind(folder: Path, project: Path) -> Iterator[Running]:
    export_peft(open_project(project), folder / "peft", SilentReporter())
    port = free_port()
    with vllm(folder, port):
        upstream = Upstream(f"http://127.0.0.1:{port}", adapters=folder / "adapters")
        with serving(project, ServeSettings(upstream=upstream)) as running:
            yield running


def test_every_prompt_is_answered_as_by_query(behind: Running, expected: dict[str, str]) -> None:
    assert behind.server.engine.model_name == NAME
    answers = {
        prompt: whole(behind.chat(prompt, max_tokens=TOKENS).choices[0].message.content)
        for prompt in expected
    }
    assert answers == expected


def test_two_hundred_mixed_requests_at_32_at_once(behind: Running, expected: dict[str, str]) -> None:
    prompts = [*expected] * 25
    answers: dict[int, str] = {}
    room = threading.Semaphore(32)

    def ask(at: int) -> None:
        with room:
            answer = behind.chat(prompts[at], max_tokens=TOKENS)
            answers[at] = whole(answer.choices[0].message.content)

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wrong = [at for at, prompt in enumerate(prompts) if answers.get(at) != expected[prompt]]
    assert wrong == []


def test_a_stream_is_the_answer(behind: Running, expected: dict[str, str]) -> None:
    for prompt in (next(iter(FACTS)), OTHERS[0]):
        pieces: list[Any] = list(behind.chat(prompt, max_tokens=TOKENS, stream=True))
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        assert whole(text) == expected[prompt]


def test_its_refusals_reach_the_client(behind: Running) -> None:
    body = {"messages": [{"role": "user", "content": "river " * 400}], "max_tokens": 2}
    response = behind.post(CHAT, body)
    assert response.status_code == 400
    assert "b0000" not in response.text


def test_an_engine_that_is_killed_and_comes_back(
    behind: Running, folder: Path, project: Path, expected: dict[str, str]
) -> None:
    """Meanwhile it is a 502; then it gets its adapters again."""
    port, edited = free_port(), next(iter(FACTS))
    upstream = Upstream(f"http://127.0.0.1:{port}", adapters=folder / "adapters")
    with serving(project, ServeSettings(upstream=upstream, model_name=NAME)) as running:
        for _ in range(2):
            with vllm(folder, port) as process:
                answer = running.chat(edited, max_tokens=TOKENS)
                assert whole(answer.choices[0].message.content) == expected[edited]
                kill(process)
                body = {"messages": [{"role": "user", "content": edited}], "max_tokens": TOKENS}
                assert running.post(CHAT, body).status_code == 502
                assert running.get("/ready").status_code == 503
