"""Asks an artefact prompts without importing melo; `melo export` runs this as a check.

Reads one JSON request from stdin and writes the answers to the file that it names.
"""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
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
    answers = {"routed": _routed_answers, "peft": _adapter_answers}[request["format"]](request)
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
