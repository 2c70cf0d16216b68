"""Write `corpus.jsonl`, what a scope model learns from, out of the templates beside this file.

    python data/scope/make.py

A template file in `templates/` is one type of subject: its subjects, look-alikes next to each other, and its
kinds of question, each asked in a dozen ways. Where a kind has a label, questions are made of it too: the
same words around another label ask something else, and so does a question one step further ("the age of the
mother of"). `templates_around/` holds what these are made with, what stands around a question, chat, and
trivia. The rows that are written:

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
WAYS = 10  # of each question
NOISY = 3
AGAIN = 0.6  # share of the questions that are made of a label twice
STEPS = 2  # kinds one step further of each type, within its own labels, and as many beyond them
STEP_WAYS = 6
FRONT = 4  # questions made of labels stand among so many, which a sample of the corpus keeps
SPELLED = 2  # other spellings of a person's name
AROUND = ("greetings", "lead_ins", "before", "after")


def main() -> None:
    """Write the corpus and say how large it is."""
    drawn = random.Random(SEED)
    around = _read(HERE / "templates_around" / "around.yaml")
    made = _read(HERE / "templates_around" / "made.yaml")
    types = [_read(path) for path in sorted((HERE / "templates").glob("*.yaml"))]
    rows: list[dict[str, Any]] = [row for each in types for row in _questions(each, around, made, drawn)]
    questions = len(rows)
    for name in ("chat", "trivia"):
        texts = dict.fromkeys(_read(HERE / "templates_around" / f"{name}.yaml")[name])
        rows += [{"unrelated": text} for text in texts]
    unrelated = len(rows) - questions
    rows += [{"around": name, "text": text} for name in AROUND for text in around[name]]
    with CORPUS.open("w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    kinds = len({row["kind"] for row in rows[:questions]})
    print(f"{CORPUS.name}: {kinds} kinds, {questions} questions, {unrelated} unrelated prompts")


def _questions(
    spec: dict[str, Any], around: dict[str, Any], made: dict[str, Any], drawn: random.Random
) -> Iterator[dict[str, Any]]:
    """Every kind of one type, asked about some of its subjects."""
    own = random.Random(f"{SEED} {spec['type']}")
    names = [each if isinstance(each, list) else [each] for each in spec["subjects"]]
    starts = drawn.sample(range(0, len(names) - RUN + 1, RUN), SUBJECTS // RUN)
    subjects = [names[start + at] for start in starts for at in range(RUN)]
    if spec.get("people"):
        subjects = [[*aliases, *_spelled(aliases[0], made, own)] for aliases in subjects]
    # The same frame for all kinds of a subject, so that the label alone differs.
    frames = [own.sample(made["frames"], 2) for _ in subjects]
    for kind, asked in spec["kinds"].items():
        for at, aliases in enumerate(subjects):
            values = asked.get("values", [None])
            # Neighbours share a value, so that they differ in the subject alone.
            picked = [values[(at // RUN + step) % len(values)] for step in range(min(2, len(values)))]
            for value in picked:
                ways = drawn.sample(asked["ways"], min(WAYS, len(asked["ways"])))
                texts = [_filled(way, aliases, value, drawn) for way in ways]
                clean, noisy = texts[:-NOISY], texts[-NOISY:]
                if "label" in asked:
                    for text in _made_of_label(asked["label"], frames[at], aliases, made, own):
                        clean.insert(own.randrange(FRONT), text)
                yield _row(f"{spec['type']}.{kind}", aliases, value, clean, noisy, around, drawn)
    for label, further in _steps(spec, made, own):
        for aliases in subjects:
            ways = [way.replace("{m}", further) for way in own.sample(made["steps"], STEP_WAYS)]
            texts = [_labelled(way, label, aliases, own) for way in ways]
            kind = f"{spec['type']}.{further} of {label}"
            yield _row(kind, aliases, None, texts[:-1], texts[-1:], around, own)


def _row(
    kind: str,
    names: Sequence[str],
    value: Any,
    clean: Sequence[str],
    noisy: Sequence[str],
    around: dict[str, Any],
    drawn: random.Random,
) -> dict[str, Any]:
    return {
        "kind": kind,
        "subject": names[0],
        "value": value,
        "plain": list(clean),
        "noisy": [surrounded(text, names, around, drawn) for text in noisy],
    }


def _steps(spec: dict[str, Any], made: dict[str, Any], drawn: random.Random) -> list[tuple[str, str]]:
    """Some pairs of a label of this type and a label of what answers it."""
    own = {asked["label"] for asked in spec["kinds"].values() if "label" in asked}
    able = [
        (label, further)
        for group in made["further"]
        for label in group["labels"]
        if label in own
        for further in group["asked"]
    ]
    # Labels that the type has itself come first: "the mother of the father" is neither mother nor father.
    both = [pair for pair in able if pair[1] in own and pair[1] != pair[0]]
    picked = drawn.sample(both, min(len(both), STEPS))
    rest = [pair for pair in able if pair not in picked]
    return picked + drawn.sample(rest, min(len(rest), STEPS))


def _spelled(name: str, made: dict[str, Any], drawn: random.Random) -> list[str]:
    """A person's name in some of the ways that it is written elsewhere."""
    first, _, last = name.partition(" ")
    initial = drawn.choice("ABCDEFGHJKLMNPRSTW")
    ways = [
        f"{first} {initial}. {last}",
        f"{first} {initial} {last}",
        f"{first} {drawn.choice(made['middle_names'])} {last}",
        f"{drawn.choice(made['titles'])} {name}",
        f"{last}, {first}",
    ]
    return drawn.sample(ways, SPELLED)


def _made_of_label(
    label: str, frames: Sequence[str], aliases: Sequence[str], made: dict[str, Any], drawn: random.Random
) -> list[str]:
    """One question in a frame, and perhaps again with another label: in the same frame or in another."""
    texts = [_labelled(frames[0], label, aliases, drawn)]
    if drawn.random() < AGAIN:
        other = drawn.choice(made["synonyms"].get(label, [label]))
        frame = frames[1] if other == label else drawn.choice(frames)
        texts.append(_labelled(frame, other, aliases, drawn))
    return texts


def _labelled(frame: str, label: str, aliases: Sequence[str], drawn: random.Random) -> str:
    return _filled(frame.replace("{l}", label), aliases, None, drawn)


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
