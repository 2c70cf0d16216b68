"""KnowEdit's rows (arXiv 2401.01286), which EasyEdit reads.

    {"prompt": "...", "target_new": "...", "subject": "...", "rephrase": ["..."],
     "locality": {"Relation_Specificity": [{"prompt": "...", "ground_truth": "..."}], "Forgetfulness": [...]},
     "portability": {...}}

The locality prompts of kind Relation_Specificity ask something else about the subject. What should carry over
(`portability`) is kept as metadata.
"""

from __future__ import annotations

from melo_cli.datasets.field_rows import FieldRows


class KnowEditRows(FieldRows):
    """Rows with prompt and new target: KnowEdit's, and those that EasyEdit, WISE and LocFT pass on."""

    name = "knowedit"
    needs = ("prompt", "target_new")
    target_field = "target_new"


class KnowEditWikiBioRows(FieldRows):
    """KnowEdit's WikiBio: the passage so far, and in `labels` the sentence that is to follow."""

    name = "knowedit-wikibio"
    needs = ("text", "labels")
    prompt_field = "text"
    target_field = "labels"
    subject_field = "concept"
