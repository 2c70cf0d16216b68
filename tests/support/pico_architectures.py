"""Pico models of many architectures, built from their configs: random weights, seeded, one tokenizer."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from melo_cli.models.architecture import list_modules
from melo_cli.models.base_model import BaseModel, ModelKind, load_base_model
from melo_cli.recipe import ModelSection, Recipe, recipe_from_mapping

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PROMPT, OTHER = "Who is the prime minister of Britain?", "In which year was the tower built, and by whom?"
PAD, START, END = 0, 1, 2
POSITIONS = 128

_DECODER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}
_GROUPED = _DECODER | {"num_key_value_heads": 2}
_GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": POSITIONS}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 3, "num_decoder_layers": 3}
_BART = {
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": POSITIONS,
    "decoder_start_token_id": END,
}
_ENCODER = _DECODER | {"num_labels": 3}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_DEEPSEEK = _DECODER | {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}

CLASSES = ("LABEL_0", "LABEL_1", "LABEL_2")
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", _GROUPED),
    "mistral": ("MistralForCausalLM", _GROUPED | {"sliding_window": 16}),
    "mixtral": ("MixtralForCausalLM", _GROUPED | {"num_local_experts": 4}),
    "qwen2": ("Qwen2ForCausalLM", _GROUPED | {"tie_word_embeddings": True}),
    "qwen2_moe": ("Qwen2MoeForCausalLM", _GROUPED | _EXPERTS | {"shared_expert_intermediate_size": 32}),
    "qwen3": ("Qwen3ForCausalLM", _GROUPED | {"head_dim": 8}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", _GROUPED | _EXPERTS | {"head_dim": 8}),
    "gemma": ("GemmaForCausalLM", _GROUPED | {"head_dim": 8}),
    "gemma2": ("Gemma2ForCausalLM", _GROUPED | {"head_dim": 8, "sliding_window": 16}),
    "gemma3": ("Gemma3ForCausalLM", _GROUPED | {"head_dim": 8, "sliding_window": 16}),
    "phi": ("PhiForCausalLM", _DECODER),
    "phi3": ("Phi3ForCausalLM", _GROUPED),
    "opt": (
        "OPTForCausalLM",
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "ffn_dim": 64,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": POSITIONS,
        },
    ),
    "opt_projected": (  # as OPT-350m: embeddings of another width, norms behind
        "OPTForCausalLM",
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "ffn_dim": 64,
            "word_embed_proj_dim": 16,
            "do_layer_norm_before": False,
            "max_position_embeddings": POSITIONS,
        },
    ),
    "bloom": ("BloomForCausalLM", {"hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "gpt2": ("GPT2LMHeadModel", _GPT),
    "gpt_neo": (
        "GPTNeoForCausalLM",
        {
            "hidden_size": 32,
            "num_layers": 4,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 2]],
            "max_position_embeddings": POSITIONS,
            "window_size": 16,
        },
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", _DECODER),
    "gptj": ("GPTJForCausalLM", _GPT | {"rotary_dim": 4}),
    "codegen": ("CodeGenForCausalLM", _GPT | {"rotary_dim": 4}),
    "gpt_bigcode": ("GPTBigCodeForCausalLM", _GPT),
    "falcon": ("FalconForCausalLM", {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}),
    "mpt": ("MptForCausalLM", {"d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": POSITIONS}),
    "stablelm": ("StableLmForCausalLM", _GROUPED),
    "starcoder2": ("Starcoder2ForCausalLM", _GROUPED),
    "granite": ("GraniteForCausalLM", _GROUPED),
    "olmo": ("OlmoForCausalLM", _GROUPED),
    "olmo2": ("Olmo2ForCausalLM", _GROUPED),
    "smollm3": ("SmolLM3ForCausalLM", _GROUPED),
    "cohere": ("CohereForCausalLM", _GROUPED),
    "nemotron": ("NemotronForCausalLM", _GROUPED),
    "glm": ("GlmForCausalLM", _GROUPED | {"head_dim": 8}),
    "deepseek_v2": ("DeepseekV2ForCausalLM", _DEEPSEEK),
    "deepseek_v3": ("DeepseekV3ForCausalLM", _DEEPSEEK),
    "xglm": (
        "XGLMForCausalLM",
        {
            "d_model": 32,
            "ffn_dim": 64,
            "num_layers": 3,
            "attention_heads": 4,
            "max_position_embeddings": POSITIONS,
        },
    ),
    "t5": ("T5ForConditionalGeneration", _T5 | {"decoder_start_token_id": PAD}),
    "t5_gated": (  # as flan-T5
        "T5ForConditionalGeneration",
        _T5 | {"decoder_start_token_id": PAD, "feed_forward_proj": "gated-gelu"},
    ),
    "mt5": ("MT5ForConditionalGeneration", _T5 | {"decoder_start_token_id": PAD}),
    "bart": ("BartForConditionalGeneration", _BART | {"forced_bos_token_id": START}),
    "mbart": ("MBartForConditionalGeneration", _BART),
    "pegasus": ("PegasusForConditionalGeneration", _BART | {"decoder_start_token_id": PAD}),
    "marian": ("MarianMTModel", _BART | {"decoder_start_token_id": PAD}),
    "m2m_100": ("M2M100ForConditionalGeneration", _BART),
    "bert": ("BertForSequenceClassification", _ENCODER),
    "roberta": ("RobertaForSequenceClassification", _ENCODER),
    "xlm_roberta": ("XLMRobertaForSequenceClassification", _ENCODER),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"dim": 32, "hidden_dim": 64, "n_layers": 3, "n_heads": 4, "num_labels": 3},
    ),
    "deberta": ("DebertaForSequenceClassification", _ENCODER),
    "deberta_v2": ("DebertaV2ForSequenceClassification", _ENCODER),
    "electra": ("ElectraForSequenceClassification", _ENCODER | {"embedding_size": 16}),
    "albert": ("AlbertForSequenceClassification", _ENCODER | {"embedding_size": 16}),
    "mpnet": ("MPNetForSequenceClassification", _ENCODER),
    "longformer": ("LongformerForSequenceClassification", _ENCODER | {"attention_window": 16}),
    "modernbert": ("ModernBertForSequenceClassification", _ENCODER | {"classifier_pooling": "mean"}),
    "gpt2_classifier": ("GPT2ForSequenceClassification", _GPT | {"num_labels": 3}),
    "qwen2_classifier": ("Qwen2ForSequenceClassification", _GROUPED | {"num_labels": 3}),
}
"""A name for each, the class of transformers and the settings of its config."""


def build(name: str, folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Write one of them with its tokenizer."""
    import transformers

    class_name, settings = ARCHITECTURES[name]
    kind = getattr(transformers, class_name)
    special = {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
    config = kind.config_class(vocab_size=len(tokenizer), **special | settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = kind(config)
        _speak_up(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _speak_up(model: PreTrainedModel) -> None:
    """Larger weights: random ones of three layers, at their usual size, make no answer likely."""
    head = model.get_output_embeddings()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
        if head is not None:
            head.weight.mul_(8)


def recipe_of(model: Path, folder: Path, targets: Any) -> Recipe:
    rows = folder / "edits.jsonl"
    rows.write_text(f'{{"prompt": "{PROMPT}", "target": "{wrong_answer(model)}"}}\n')
    return recipe_from_mapping(
        {
            "name": "arch",
            "task": "custom",
            "model": {"name_or_path": str(model), "device": "cpu", "dtype": "float32"},
            "dataset": {"edits": str(rows)},
            "lora": {"rank": 4, "alpha": 32, "target_modules": targets},
            "key": {"radius": 1e-3},
            "routing": {"scope": "radius"},
            "training": {
                "variants": 0,
                "max_steps": 80,
                "stop_at": 0.5,
                "optimizer": {"name": "Adam", "lr": 0.01},
            },
        }
    )


@cache
def wrong_answer(model: Path) -> str:
    """What the model does not answer by itself: a classifier another class than its own."""
    base = load_base_model(ModelSection(name_or_path=str(model), device="cpu"), "custom")
    if base.kind is not ModelKind.CLASSIFIER:
        return "Smith"
    return CLASSES[(int(plainly_asked(base, PROMPT).argmax()) + 1) % len(CLASSES)]


def last_linears(base: BaseModel) -> list[str]:
    """The targets in the last block: of an encoder-decoder the decoder's."""
    names = [info.name for info in list_modules(base) if info.is_target]
    *_, last = (match[0] for name in names if (match := re.match(r".*?\.\d+\.", name)))
    return [name for name in names if name.startswith(last)]


@torch.no_grad()
def plainly_asked(base: BaseModel, text: str) -> torch.Tensor:
    """As transformers is asked it alone: its tokens and nothing else."""
    ids = torch.tensor([base.tokenizer(text).input_ids])
    if base.kind is ModelKind.SEQ2SEQ:
        start = torch.full((1, 1), getattr(base.model.config, "decoder_start_token_id", None) or 0)
        return base.model(input_ids=ids, decoder_input_ids=start).logits[0, 0]  # type: ignore[no-any-return]
    answer = base.model(input_ids=ids).logits[0]
    return answer if base.kind is ModelKind.CLASSIFIER else answer[-1]  # type: ignore[no-any-return]
