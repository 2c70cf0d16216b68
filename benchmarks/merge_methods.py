"""Compares the ways to merge: what each keeps, its seconds and its peak memory.

    python benchmarks/merge_methods.py PROJECT [--edits 10 100] [--methods sum closed-form distill]

Each line is one run of `melo export --merge` in a process of its own on the first so many edits of the
project; the folder is measured in another process and removed. Hard negatives are prompts of other subjects:
JSONL rows with `prompt`, given by --hard, and counted as unchanged where merged and base model answer alike.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COLUMNS = ("edits", "method", "ES", "generality", "agreement", "hard unchanged", "find s", "all s", "peak GB")


def main() -> None:
    """Run every method at every size, and print a Markdown table."""
    arguments = _arguments()
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)  # noqa: T201
    for count in arguments.edits:
        for method in arguments.methods:
            row = _run(arguments, count, method)
            print(f"| {' | '.join(str(cell) for cell in row)} |", flush=True)  # noqa: T201


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("--edits", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--methods", nargs="+", default=["sum", "closed-form", "distill"])
    parser.add_argument("--hard", type=Path, help="JSONL rows with prompts of other subjects")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="passed on to melo export")
    return parser.parse_args()


def _run(arguments: argparse.Namespace, count: int, method: str) -> list[Any]:
    from melo_cli.projects import open_store

    live = [edit.edit_id for edit in open_store(arguments.project).edits() if edit.status == "live"][:count]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "merged"
        command = [sys.executable, "-m", "melo_cli", "export", "--merge", "--merge-method", method, "--json"]
        command += ["--project", str(arguments.project), "--to", str(folder), "--edits", ",".join(live)]
        started = time.monotonic()
        done = subprocess.run([*command, *arguments.options], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        seconds = time.monotonic() - started
        document = json.loads(done.stdout)
        hard = _unchanged(folder, document["base"], arguments.hard) if arguments.hard else None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    return [
        len(live),
        method,
        *(_of_routed(document, metric) for metric in ("edit_success", "generality")),
        _share(document["merged"]["locality_agreement"]),
        "" if hard is None else f"{hard:.3f}",
        f"{document['seconds']:.0f}",
        f"{seconds:.0f}",
        f"{peak:.2f}",
    ]


def _of_routed(document: dict[str, Any], metric: str) -> str:
    merged, routed = document["merged"][metric], document["routed"][metric]
    return f"{_share(merged)} of {_share(routed)}" if merged else ""


def _share(figure: dict[str, Any] | None) -> str:
    return "" if figure is None else f"{figure['generation']:.3f}"


def _unchanged(merged: Path, base: str, prompts: Path) -> float:
    """Share of prompts that two checkpoints answer alike, greedily."""
    import torch
    import transformers

    rows = [json.loads(line)["prompt"] for line in prompts.read_text(encoding="utf-8").splitlines()]
    answers = []
    for folder in (str(merged), base):
        config = transformers.AutoConfig.from_pretrained(folder)
        auto = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
        model = getattr(transformers, auto).from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(merged))
        said = []
        for prompt in rows:
            inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            with torch.no_grad():
                said.append(model.generate(**inputs, max_new_tokens=16, do_sample=False)[0].tolist())
        answers.append(said)
    return sum(ours == theirs for ours, theirs in zip(*answers, strict=True)) / len(rows)


if __name__ == "__main__":
    main()
