"""AlphaEdit (Fang et al., arXiv 2410.02355): an update of one module in closed form, which spares other keys.

A key is the input of a down projection at the last token of an edit's subject. A value is what the module has
to add there so that the model answers as asked. The update takes each key to its value, and lies in the null
space of the keys of general text. It is made batch after batch; the keys of earlier batches are to stay.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from melo_cli.errors import MeloError
from melo_cli.evaluation.baselines.baseline import Baseline, EditedModel
from melo_cli.evaluation.baselines.key_values import EditSite, Fact, closed_form, subject_position
from melo_cli.evaluation.baselines.modules import down_projection, one_module
from melo_cli.models.encoding import EncodedEdit, Encoder
from melo_cli.reporter import Progress
from melo_cli.runtime.loading import OpenProject
from melo_cli.scope.corpus import load_corpus

# The last of the published layers: 8 of Llama-3-8B's 32, 8 of GPT-J's 28.
_DEPTH = 0.27


class AlphaEdit(Baseline):
    """AlphaEdit (arXiv 2410.02355) on one module.

    As published: how values are found (Adam, 25 steps, decay, clamp), batches of 100 edits, the projection
    and the closed form. Other than published:

    - One module is changed instead of five.
    - The stop token is part of the target.
    - Texts before a prompt and general text are from melo's corpus, instead of the model's own and Wikipedia.
    - The loss of values has no divergence of "SUBJECT is a".
    - `null_threshold` and `ridge` are relative to the length of keys, which differs from model to model. The
      published 0.02 and 10 are absolute.

    Subjects and texts are those of the project's edits of the ids given. An edit without a subject has its
    key at the last prompt token.

    Attributes:
        weights: the module. `auto` is the down projection of the block a quarter up the stack that reads the
            prompt; else a regular expression over full names that one linear module matches.
        batch_size: edits in one update; the project's batches are of no account.
        lr: learning rate of the values.
        steps: steps of the values at most.
        contexts: texts put before a prompt; value and key are those of all prompts together.
        clamp: length of a value at most, in lengths of the residual stream at its token.
        texts: prompts of melo's corpus from which the covariance of keys is estimated.
        null_threshold: eigenvalues of the covariance below it count as null; its unit is the median squared
            length of a key.
        ridge: weight of the update's own length, in the same unit.
    """

    name: ClassVar[str] = "alphaedit"

    weights: str = "auto"
    batch_size: int = Field(100, gt=0)
    lr: float = Field(0.5, gt=0)
    steps: int = Field(25, gt=0)
    contexts: int = Field(5, ge=0)
    clamp: float = Field(0.75, gt=0)
    texts: int = Field(1000, gt=0)
    null_threshold: float = Field(1e-3, gt=0)
    ridge: float = Field(0.01, gt=0)

    @contextmanager
    def edited(
        self,
        opened: OpenProject,
        batches: Sequence[Sequence[EncodedEdit]],
        edit_ids: Sequence[str],
        progress: Progress,
    ) -> Iterator[EditedModel]:
        base = opened.routed.base
        named = down_projection(base, _DEPTH, self.name) if self.weights == "auto" else self.weights
        name, module = one_module(opened, named, self.name)
        site, weight = EditSite(base, name, module), module.weight
        before = weight.detach().clone()
        facts = self._facts(opened, [edit for batch in batches for edit in batch], edit_ids)
        try:
            null, unit = self._null_space(opened, site)
            earlier = null.new_zeros(0, null.shape[1])
            for start in range(0, len(facts), self.batch_size):
                batch = facts[start : start + self.batch_size]
                keys = site.keys(batch) @ null
                values = site.values(batch, steps=self.steps, lr=self.lr, clamp=self.clamp)
                update = closed_form(earlier, keys, values, self.ridge * unit) @ null.T
                with torch.no_grad():
                    weight += (update if isinstance(module, nn.Linear) else update.T).to(weight.dtype)
                earlier = torch.cat([earlier, keys])
                progress.advance(len(batch))
            at_subjects = sum(fact.has_subject for fact in facts)
            in_force = {"weights": name, "null_space": null.shape[1], "keys_at_subjects": at_subjects}
            yield EditedModel(opened, self.model_dump() | in_force, weight.nbytes)
        finally:
            with torch.no_grad():
                weight.copy_(before)

    def _facts(
        self, opened: OpenProject, edits: Sequence[EncodedEdit], edit_ids: Sequence[str]
    ) -> list[Fact]:
        """The edits behind each context, with the token of each prompt where the key is taken."""
        known = {edit.edit_id: edit.record for edit in opened.project.edits()}
        contexts = load_corpus().around["before"][: self.contexts]
        encoder = _cutting(opened)
        facts = []
        for encoded, edit_id in zip(edits, edit_ids, strict=True):
            edit = known.get(edit_id)
            texts = [f"{context} {edit.prompt}" for context in contexts] if edit is not None else []
            prompts = [encoded.prompt_ids, *(encoder.prompt(text) for text in texts)]
            subject = edit.subject if edit is not None else None
            found = [subject_position(encoder, prompt, subject) for prompt in prompts]
            asked = [EncodedEdit(prompt, encoded.target_ids) for prompt in prompts]
            ends = [len(prompt) - 1 for prompt in prompts]
            positions = [end if place is None else place for place, end in zip(found, ends, strict=True)]
            facts.append(Fact(tuple(asked), tuple(positions), has_subject=found[0] is not None))
        return facts

    def _null_space(self, opened: OpenProject, site: EditSite) -> tuple[Tensor, float]:
        """A basis `[in, m]` of the null space of general keys, and the median squared length of a key.

        Raises:
            MeloError: no eigenvalue is below the threshold.
        """
        corpus = load_corpus()
        texts = [*corpus.unrelated, *(question.clean[0] for question in corpus.questions)]
        drawn = random.Random(opened.recipe.seed).sample(texts, min(self.texts, len(texts)))
        encoder = _cutting(opened)
        covariance, unit = site.covariance([encoder.prompt(text) for text in drawn])
        eigenvalues, vectors = torch.linalg.eigh(covariance.double().cpu())
        null = vectors[:, eigenvalues < self.null_threshold * unit]
        if not null.shape[1]:
            raise MeloError(
                "the keys of general text leave no null space",
                where="--baseline alphaedit",
                hint="raise alphaedit.null_threshold with --baseline-set",
            )
        return null.to(covariance), unit


def _cutting(opened: OpenProject) -> Encoder:
    """The project's encoder, but it cuts what is longer than the model takes: texts of the corpus may be."""
    return Encoder(opened.routed.base, template=opened.encoder.template, truncate=True)
