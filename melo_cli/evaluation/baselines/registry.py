"""Which baselines run, and with what settings: `--baseline finetune,grace --baseline-set grace.steps=50`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from melo_cli.errors import MeloError
from melo_cli.evaluation.baselines.alphaedit import AlphaEdit
from melo_cli.evaluation.baselines.baseline import Baseline
from melo_cli.evaluation.baselines.finetune import Finetune
from melo_cli.evaluation.baselines.grace import Grace
from melo_cli.evaluation.baselines.lora import Lora
from melo_cli.suggest import did_you_mean

BASELINES: Mapping[str, type[Baseline]] = {each.name: each for each in (Finetune, Lora, Grace, AlphaEdit)}
# The bounds that a setting may have, in words.
_BOUNDS = {"gt": "above", "ge": "of at least", "lt": "below"}
# It is measured in every evaluation; naming it asks for nothing more.
_BASE = "base"


def parse_baselines(
    names: str | None,
    assignments: Sequence[str],
    *,
    option: str = "--baseline",
    setting: str = "--baseline-set",
) -> list[Baseline]:
    """Read `--baseline` and `--baseline-set`, or what another command calls these two.

    Returns:
        The baselines to run beside the base, each once, with their settings.

    Raises:
        MeloError: an unknown baseline or setting, a value of the wrong kind, a setting without its baseline.
    """
    known = (_BASE, *BASELINES)
    wanted = [name.strip() for name in (names or "").split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            hint = did_you_mean(name, known) or f"known are {', '.join(known)}"
            raise MeloError(f"{name!r} is not a baseline", where=option, hint=hint)
    run = {name: BASELINES[name]() for name in wanted if name != _BASE}
    for assignment in assignments:
        _assign(run, assignment, option, setting)
    return list(run.values())


def _assign(run: dict[str, Baseline], assignment: str, selected: str, setting: str) -> None:
    dotted, equals, value = assignment.partition("=")
    name, _, option = dotted.strip().partition(".")
    where = f"{setting} {assignment}"
    if not equals or name not in BASELINES:
        raise MeloError(
            "the option needs the form NAME.SETTING=VALUE", where=where, hint="for example finetune.lr=1e-4"
        )
    if name not in run:
        raise MeloError(f"the baseline {name} is not selected", where=where, hint=f"add {selected} {name}")
    options = list(BASELINES[name].model_fields)
    if option not in options:
        hint = did_you_mean(option, options) or f"it has {', '.join(options)}"
        raise MeloError(f"{name} has no setting {option!r}", where=where, hint=hint)
    try:
        run[name] = BASELINES[name].model_validate({**run[name].model_dump(), option: value.strip()})
    except ValidationError as error:
        raise _wrong(BASELINES[name], option, value.strip(), error, where) from error


def _wrong(baseline: type[Baseline], option: str, text: str, error: ValidationError, where: str) -> MeloError:
    if error.errors()[0]["type"].endswith("_parsing"):
        return MeloError(f"{text!r} is not a number", where=where)
    bounds = baseline.model_fields[option].metadata
    allowed = " and ".join(
        f"{words} {getattr(bound, side)}"
        for bound in bounds
        for side, words in _BOUNDS.items()
        if hasattr(bound, side)
    )
    return MeloError(f"{text} is out of range", where=where, hint=f"give a number {allowed}")
