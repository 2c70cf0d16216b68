"""What the upkeep of a store did: `melo gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from melo_cli.terminal import Table, Terminal, human_bytes

if TYPE_CHECKING:
    from store.gc import Collected


def show_collected(terminal: Terminal, done: Collected, *, dry_run: bool) -> None:
    """`melo gc`: what was merged, dropped and removed; `--dry-run` lists every file."""
    size = human_bytes(sum(each.size for each in done.garbage))
    pairs = [
        *(
            (f"merged {merge.role}", f"{len(merge.files)} files, {human_bytes(merge.size)}")
            for merge in done.merged
        ),
        *((("snapshots dropped", f"{done.dropped}, those before {done.oldest}"),) if done.dropped else ()),
        ("files removed", f"{len(done.garbage)}, {size}"),
    ]
    if dry_run and done.garbage:
        rows = [(each.path, str(each.size)) for each in done.garbage]
        terminal.table(Table(("file", "bytes"), rows, right=frozenset(("bytes",))))
    terminal.fields(pairs)
    if dry_run:
        terminal.note("a dry run: nothing has been changed")


def collected_document(done: Collected, *, dry_run: bool) -> dict[str, Any]:
    """`melo gc --json`."""
    return {
        "dry_run": dry_run,
        "merged": [
            {"role": merge.role, "files": [entry.path for entry in merge.files], "bytes": merge.size}
            for merge in done.merged
        ],
        "snapshots_dropped": done.dropped,
        "oldest_snapshot": done.oldest,
        "removed": [{"path": each.path, "bytes": each.size} for each in done.garbage],
        "bytes": sum(each.size for each in done.garbage),
    }
