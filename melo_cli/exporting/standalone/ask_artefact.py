"""Asks an artefact prompts without importing melo; `melo export` runs this as a check.

Reads one JSON request from stdin and writes the answers to the file that it names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers

Question = dict[str, Any]


def main() -> None:
    """Open the folder and answer every question."""
    request = json.load(sys.stdin)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    ask = {"routed": _routed_answers, "peft": _adapter_answers, "gguf": _gguf_answers}[request["format"]]
    answers = ask(request)
    Path(request["answers"]).write_text(json.dumps(answers), encoding="utf-8")


def _load(request: dict[str, Any], folder: str, *, trust: bool) -> Any:
    auto_class = getattr(transformers, request["auto_class"])
    model = auto_class.from_pretrained(
        folder, trust_remote_code=trust, dtype=getattr(torch, request["dtype"])
    )
    return model.eval().to(request["device"])


def _routed_answers(request: dict[str, Any]) -> list[dict[str, Any]]:
    model = _load(request, request["folder"], trust=True)
    answers = []
    for question in request["questions"]:
        answer = _answer(model, question)
        answers.append({"adapter": _adapter(model.routes[0]), "answer": answer})
    return answers


def _adapter_answers(request: dict[str, Any]) -> list[dict[str, Any]]:
    from peft import PeftModel

    folder = Path(request["folder"])
    base = _load(request, request["base"], trust=request["trust_remote_code"])
    adapters = _routed_adapters(request, folder, base)
    model = base
    for name in dict.fromkeys(adapter for adapter in adapters if adapter is not None):
        path = str(folder / "adapters" / name)
        if model is base:
            model = PeftModel.from_pretrained(base, path, adapter_name=name).eval()
        else:
            model.load_adapter(path, adapter_name=name)
    answers = []
    for adapter, question in zip(adapters, request["questions"], strict=True):
        with _under(model, adapter):
            answers.append({"adapter": adapter, "answer": _answer(model, question)})
    return answers


def _gguf_answers(request: dict[str, Any]) -> list[dict[str, Any]]:
    folder = Path(request["folder"])
    base = _load(request, request["base"], trust=request["trust_remote_code"])
    adapters = _routed_adapters(request, folder, base)
    answers: list[dict[str, Any]] = [{"adapter": adapter, "answer": None} for adapter in adapters]
    if request["gguf"] is None:  # routes alone
        return answers
    for adapter in dict.fromkeys(adapters):
        asked = [at for at, each in enumerate(adapters) if each == adapter]
        questions = [request["questions"][at] for at in asked]
        for at, written in zip(
            asked, _llama_answers(request["gguf"], folder, adapter, questions), strict=True
        ):
            answers[at]["answer"] = written
    return answers


def _llama_answers(
    base: str, folder: Path, adapter: str | None, questions: list[Question]
) -> Iterator[list[int]]:
    from llama_cpp import Llama

    path = None if adapter is None else str(folder / "adapters" / f"{adapter}.gguf")
    longest = max(len(each["ids"]) + each["options"]["max_new_tokens"] for each in questions)
    llama = Llama(base, lora_path=path, n_ctx=longest + 1, verbose=False)
    for question in questions:
        stops, most = question["options"]["eos_token_id"] or [], question["options"]["max_new_tokens"]
        written = list(question["ids"])
        for token in islice(llama.generate(question["ids"], temp=0.0), most):
            written.append(token)
            if token in stops:
                break
        yield written


def _routed_adapters(request: dict[str, Any], folder: Path, base: Any) -> list[str | None]:
    sys.path.insert(0, str(folder))
    from router.exported import open_router  # type: ignore[import-not-found]  # the one in the folder
    from router.turns import LastUserTurn  # type: ignore[import-not-found]

    tokenizer = transformers.AutoTokenizer.from_pretrained(
        request["tokenizer"], trust_remote_code=request["trust_remote_code"]
    )
    router, turns = open_router(folder / "router", base, tokenizer), LastUserTurn(tokenizer)
    # One at a time, as the project was asked.
    return [_adapter(router.routes([turns.text(each["ids"])])[0]) for each in request["questions"]]


def _adapter(route: Any) -> str | None:
    return None if route.fired is None else str(route.fired.block)


def _under(model: Any, adapter: str | None) -> AbstractContextManager[None]:
    if adapter is not None:
        model.set_adapter(adapter)
        return nullcontext()
    disabled: AbstractContextManager[None] = (
        model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
    )
    return disabled


@torch.no_grad()
def _answer(model: Any, question: Question) -> list[int]:
    ids = torch.tensor([question["ids"]], device=model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if not question["options"]:
        return [int(model(**inputs).logits.argmax())]
    options = transformers.GenerationConfig(**question["options"])
    written: list[int] = model.generate(**inputs, generation_config=options)[0].tolist()
    return written


if __name__ == "__main__":
    main()
