"""melo's own rows: a prompt, a target, and whatever else belongs to the edit.

    {"prompt": "...", "target": "...", "rephrases": ["..."], "subject": "...",
     "locality": [{"prompt": "...", "target": "..."}, "..."], "metadata": {}}

Only prompt and target are required. `locality_prompt` and `locality_target` are a shorter way to give one
pair. A list as target gives answers that are all right; the first is trained. A CSV cell holds a list or an
object as JSON. Other fields become metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from melo_cli.datasets.answers import true_answer
from melo_cli.datasets.field_rows import FieldRows
from melo_cli.datasets.formats import RowFormat
from melo_cli.datasets.reading_notes import ReadingNotes
from melo_cli.datasets.related_prompts import LOCALITY, locality
from melo_cli.datasets.rows import Row


class MeloRows(FieldRows):
    """Rows with prompt and target; cuts of zsRE, CounterFact and KnowEdit come so, too."""

    name = "melo"
    needs = ("prompt", "target")
    target_field = "target"
    tasks = RowFormat.tasks | {"scotus"}

    def unrelated(self, rows: Iterable[Row], notes: ReadingNotes) -> Iterator[tuple[str, str | None]]:
        """The locality pairs of rows that have such fields, else the prompt and (if given) the target."""
        for row in rows:
            if any(name in LOCALITY for name in row.fields):
                yield from locality(row, notes)
            else:
                target = row.fields.get(self.target_field)
                truth = true_answer(row, target, self.target_field)
                notes.empty_answers += truth is None and target is not None
                yield row.text(self.prompt_field), truth
