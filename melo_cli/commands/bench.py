"""`melo bench`: a public set on a model, for melo and for other ways to change its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melo_cli.commands._garbage_collection import collect_from_here
from melo_cli.commands._interrupt import stop_on_interrupt
from melo_cli.commands._options import JsonOption
from melo_cli.ui.bench import bench_view
from melo_cli.ui.output import make_renderer

_INTERRUPTED = 130
_METHODS = "melo,lookup,icl,rag,finetune,lora"


def bench(
    context: typer.Context,
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help="locft-zsre, locft-counterfact, locft-wikibigedit, knowedit, everyday, zsre, "
            "hallucination or scotus.",
        ),
    ],
    data: Annotated[
        str, typer.Option("--data", metavar="DATA", help="The suite's edits: a file or a hub id.")
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="A model's folder, hub id or .gguf file.")
    ],
    edits: Annotated[
        int, typer.Option("--edits", metavar="N", min=1, help="Make the first N edits of the data.")
    ] = 1000,
    ask: Annotated[
        int, typer.Option("--ask", metavar="N", min=1, help="Ask of N edits, drawn by the recipe's seed.")
    ] = 200,
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            metavar="NAMES",
            help="What is compared, with commas between: melo, lookup, icl, rag, finetune, lora, grace, "
            "alphaedit.",
        ),
    ] = _METHODS,
    method_set: Annotated[
        list[str] | None,
        typer.Option(
            "--method-set", metavar="NAME.SETTING=VALUE", help="A method's setting, as finetune.lr=1e-4."
        ),
    ] = None,
    forms: Annotated[
        bool,
        typer.Option(
            "--forms",
            help="Also ask for two sentences on the subject, after ten turns of other talk, and yes or no.",
        ),
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the suite's recipe for melo."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--to", metavar="FOLDER", help="The run's folder. Default: bench/SUITE."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare melo with other ways to change a MODEL's answers, on a public set.

    All edits are made first, then every method is asked the same questions. FOLDER
    gets table.md, report.html, and every question with every answer. The same
    command goes on where it stopped, and more --methods may be added later.
    """
    renderer = make_renderer(json=as_json)
    command: str = context.obj
    from melo_cli.bench import BenchPlan, find_suite, parse_methods, run_bench, write_report
    from melo_cli.bench.folder import BenchFolder

    plan = BenchPlan(find_suite(suite), data, model, edits, ask, forms, tuple(overrides or ()))
    chosen = parse_methods(methods, method_set or [])
    plan.recipe()
    target = folder or Path("bench") / suite
    kept = BenchFolder.of(target, plan, command)
    renderer.heading(f"bench {target}")
    collect_from_here()
    with stop_on_interrupt() as stop:
        report = run_bench(plan, chosen, kept, renderer, command=command, should_stop=stop)
    if report is None:
        renderer.warn("stopped; the same command goes on where it stopped")
        raise typer.Exit(_INTERRUPTED)
    written = write_report(report, target)
    renderer.show(bench_view(report))
    for path in written:
        renderer.info(f"wrote {path}")
