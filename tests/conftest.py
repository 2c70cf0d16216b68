"""Tiny models of every supported kind, built from config: random weights, seeded, no network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

# A slow machine is no failure.
settings.register_profile("melo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("melo")
# Before anything imports huggingface_hub, which reads it once: no test may reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

VOCAB_SIZE = 400
MAX_LENGTH = 128
SEED = 7
TEXT = [
    "Who is the prime minister of Britain? The capital of France is Paris.",
    "In which year was the tower built, and by whom? It was opened in 1889.",
    "This is a Wikipedia passage about John Smith. He was born in London and studied law.",
    "The court holds that the statute of 1934 does not apply to the petitioner.",
    "what is the name of the river that runs through the city of Cologne",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(autouse=True)
def _no_project_from_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that the developer has chosen in their shell must not leak into a test."""
    monkeypatch.delenv("MELO_PROJECT", raising=False)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is learnt of scope is kept for the run alone, and shared by its workers and child processes."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("MELO_CACHE", str(folder / "melo-cache"))
        yield


@pytest.fixture(scope="session")
def pico_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T5: 4 + 4 blocks, d_model 32, ReLU feed-forward of 64; the tokenizer puts `</s>` after each text."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCAB_SIZE,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_heads=4,
        num_layers=4,
        num_decoder_layers=4,
        feed_forward_proj="relu",
        initializer_factor=2.0,  # at 1.0 the tied embeddings drown the blocks, and every answer is padding
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,  # type: ignore[call-arg]
    )
    folder = tmp_path_factory.mktemp("models") / "pico-t5"
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    _save(folder, T5ForConditionalGeneration, config, special, pattern="$A </s>")
    return folder


@pytest.fixture(scope="session")
def pico_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2: 4 blocks, d_model 32 (its projections are Conv1D); the pad token is the eos token, id 0."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=MAX_LENGTH,
        n_embd=32,
        n_layer=4,
        n_head=4,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    end = "<|endoftext|>"
    folder = tmp_path_factory.mktemp("models") / "pico-gpt2"
    special = {"eos_token": end, "bos_token": end, "unk_token": end, "pad_token": end}
    _save(folder, GPT2LMHeadModel, config, special, pattern="$A")
    return folder


@pytest.fixture(scope="session")
def pico_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT with a head of three named classes: 4 blocks, d_model 32, `[CLS]` text `[SEP]`."""
    from transformers import BertConfig, BertForSequenceClassification

    labels = ["civil", "criminal", "tax"]
    config = BertConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.2,
        pad_token_id=0,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    folder = tmp_path_factory.mktemp("models") / "pico-bert"
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    _save(folder, BertForSequenceClassification, config, special, pattern="[CLS] $A [SEP]")
    return folder


@pytest.fixture(scope="session")
def pico_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama: 4 blocks, d_model 32, grouped key-value heads, gated feed-forward of 64, a chat template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    folder = tmp_path_factory.mktemp("models") / "pico-llama"
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    _save(folder, LlamaForCausalLM, config, special, pattern="<s> $A", chat_template=CHAT_TEMPLATE)
    return folder


@pytest.fixture(scope="session")
def pico_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with `<pad>`, `<s>` (before each text) and `</s>` as ids 0, 1 and 2."""
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(list(special.values()), "<s> $A"),
        model_max_length=MAX_LENGTH,
        **special,
    )


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, pico_tokenizer: Any) -> Callable[[str], Path]:
    """`built("gemma2")`: the folder of a pico model of `ARCHITECTURES`."""
    from pico_architectures import build

    made: dict[str, Path] = {}

    def model(name: str) -> Path:
        if name not in made:
            made[name] = build(name, tmp_path_factory.mktemp("architectures") / name, pico_tokenizer)
        return made[name]

    return model


def _save(
    folder: Path,
    kind: type[PreTrainedModel],
    config: PretrainedConfig,
    special: dict[str, str],
    *,
    pattern: str,
    **tokenizer_options: Any,
) -> None:
    """Write the model and a byte-level BPE tokenizer; its special tokens have the ids 0, 1, 2 in order."""
    import torch
    from transformers import PreTrainedTokenizerFast

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        kind(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(list(dict.fromkeys(special.values())), pattern),
        model_max_length=MAX_LENGTH,
        **special,
        **tokenizer_options,
    ).save_pretrained(folder)


def _byte_level_bpe(special: list[str], pattern: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    named = [(token, tokenizer.token_to_id(token)) for token in special if token in pattern]
    tokenizer.post_processor = processors.TemplateProcessing(single=pattern, special_tokens=named)
    return tokenizer
