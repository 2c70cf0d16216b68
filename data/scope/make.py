"""Write `corpus.jsonl`, what a scope model learns from, out of the templates beside this file.

    python data/scope/make.py

A template file in `templates/` is one type of subject: its subjects, look-alikes next to each other, and its
kinds of question, each asked in a dozen ways. `templates_around/` holds what stands around a question, chat,
and trivia. The rows that are written:

    {"kind": "company.ceo", "subject": "...", "value": null, "plain": ["...", ...], "noisy": ["...", ...]}
    {"unrelated": "..."}
    {"around": "before", "text": "..."}

A row of the first form is one question: `plain` asks it in different words, `noisy` in the middle of other
text, in lower case, or with typos. Two rows of one kind ask the same about others; two rows of one subject
ask something else about it. A row of the last form is what may stand around a question. The run is
deterministic by seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus.jsonl"

SEED = 0
SUBJECTS = 6  # of each type, in runs of neighbours, since those look alike
RUN = 3
WAYS = 8  # of each question
NOISY = 3
AROUND = ("greetings", "lead_ins", "before", "after")


def main() -> None:
    """Write the corpus and say how large it is."""
    drawn = random.Random(SEED)
    around = _read(HERE / "templates_around" / "around.yaml")
    types = [_read(path) for path in sorted((HERE / "templates").glob("*.yaml"))]
    rows: list[dict[str, Any]] = [row for each in types for row in _questions(each, around, drawn)]
    questions = len(rows)
    for name in ("chat", "trivia"):
        texts = dict.fromkeys(_read(HERE / "templates_around" / f"{name}.yaml")[name])
        rows += [{"unrelated": text} for text in texts]
    unrelated = len(rows) - questions
    rows += [{"around": name, "text": text} for name in AROUND for text in around[name]]
    with CORPUS.open("w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    kinds = sum(len(each["kinds"]) for each in types)
    print(f"{CORPUS.name}: {kinds} kinds, {questions} questions, {unrelated} unrelated prompts")


def _questions(
    spec: dict[str, Any], around: dict[str, Any], drawn: random.Random
) -> Iterator[dict[str, Any]]:
    """Every kind of one type, asked about some of its subjects."""
    names = [each if isinstance(each, list) else [each] for each in spec["subjects"]]
    starts = drawn.sample(range(0, len(names) - RUN + 1, RUN), SUBJECTS // RUN)
    subjects = [names[start + at] for start in starts for at in range(RUN)]
    for kind, asked in spec["kinds"].items():
        for at, aliases in enumerate(subjects):
            values = asked.get("values", [None])
            # Neighbours share a value, so that they differ in the subject alone.
            picked = [values[(at // RUN + step) % len(values)] for step in range(min(2, len(values)))]
            for value in picked:
                ways = drawn.sample(asked["ways"], min(WAYS, len(asked["ways"])))
                texts = [_filled(way, aliases, value, drawn) for way in ways]
                clean, noisy = texts[:-NOISY], texts[-NOISY:]
                yield {
                    "kind": f"{spec['type']}.{kind}",
                    "subject": aliases[0],
                    "value": value,
                    "plain": clean,
                    "noisy": [surrounded(text, aliases, around, drawn) for text in noisy],
                }


def _filled(way: str, aliases: Sequence[str], value: Any, drawn: random.Random) -> str:
    name = aliases[0] if drawn.random() < 0.7 else drawn.choice(aliases)
    text = way.replace("{s}", name)
    text = text if value is None else text.replace("{x}", str(value))
    return text[:1].upper() + text[1:] if way.startswith("{s}") and drawn.random() < 0.5 else text


def surrounded(text: str, names: Sequence[str], around: dict[str, Any], drawn: random.Random) -> str:
    """A question as it stands in a longer message, or as a hurried hand types it."""
    kind = drawn.choices(
        ("before", "before and after", "greeting", "lead-in", "middle", "lower case", "typo", "after"),
        (4, 2, 2, 2, 2, 3, 3, 1),
    )[0]
    if kind == "lower case":
        return text.rstrip("?.").lower()
    if kind == "typo":
        return _mistyped(text, names, drawn)
    if kind == "greeting":
        return f"{drawn.choice(around['greetings'])} {text}"
    if kind == "lead-in":
        return f"{drawn.choice(around['lead_ins'])} {text}"
    if kind == "middle":
        before, after = drawn.choice(around["middle"])
        return f"{before} {text} {after}"
    if kind == "after":
        return f"{text} {drawn.choice(around['after'])}"
    before = " ".join(drawn.sample(around["before"], drawn.choice((1, 1, 2))))
    joint = drawn.choice((" ", " ", "\n"))
    whole = f"{before}{joint}{text}"
    return f"{whole} {drawn.choice(around['after'])}" if kind == "before and after" else whole


def _mistyped(text: str, names: Sequence[str], drawn: random.Random) -> str:
    """One or two slips of the fingers, outside the subject's name."""
    named = {word for name in names for word in name.split()}
    words = text.split(" ")
    able = [at for at, word in enumerate(words) if len(word) > 3 and word.isalpha() and word not in named]
    for at in drawn.sample(able, min(len(able), drawn.choice((1, 2)))):
        word, cut = words[at], drawn.randrange(1, len(words[at]) - 2)
        words[at] = drawn.choice(
            (
                word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :],
                word[:cut] + word[cut + 1 :],
                word[:cut] + word[cut] + word[cut:],
            )
        )
    return " ".join(words)


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    main()
