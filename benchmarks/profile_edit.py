"""Where an edit run spends its time, calibration included: functions by their own time, as a Markdown table.

    python benchmarks/profile_edit.py benchmarks/recipes/zsre_t5.yaml --set model.name_or_path=FOLDER \
        --set dataset.edits=FILE --set dataset.max_edits=100

The run is `melo edit` in this process, on a project that is removed again, under Python's profiler: what a
function calls is not in its own time, and torch's operators count as functions. Imports are done before.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import importlib
import io
import pstats
import re
import tempfile
from pathlib import Path

from melo_cli.app import main as melo

_LEAST = 0.01


def main() -> None:
    """Run, and print what takes at least a hundredth."""
    options = _options()
    for module in ("melo_cli.editing", "melo_cli.runtime.loading", "matplotlib.figure"):
        importlib.import_module(module)
    settings = [part for each in options.set for part in ("--set", each)]
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as out:
        command = ["edit", str(options.recipe), *settings, "--project", str(Path(folder) / "project")]
        code = profile.runcall(melo, command)
    if code:
        raise SystemExit(f"melo edit exited {code}\n{out.getvalue()}")
    stats = pstats.Stats(profile)
    # Not in its type hints: of each function (file, line, name) the calls, its own and its whole time.
    entries, total = stats.stats.items(), stats.total_tt  # type: ignore[attr-defined]
    print(f"{total:.0f} s under the profiler\n\n| function | calls | own time, % |\n| --- | --- | --- |")  # noqa: T201
    for (file, line, name), (_, calls, own, _, _) in sorted(entries, key=lambda entry: -entry[1][2]):
        if own < _LEAST * total:
            break
        print(f"| {_named(file, line, name)} | {calls:,} | {100 * own / total:.1f} |")  # noqa: T201


def _named(file: str, line: int, name: str) -> str:
    if file == "~":  # built in: <built-in method torch._C._nn.linear>
        return re.sub(r"^<(built-in method|method) (.*)>$", r"\2", name).replace("|", "\\|")
    location = re.sub(r"^.*/(site-packages|lib/python[\d.]+)/", "", file)
    return f"{location.removeprefix(f'{Path.cwd()}/')}:{line} {name}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], help="as of melo edit")
    return parser.parse_args()


if __name__ == "__main__":
    main()
