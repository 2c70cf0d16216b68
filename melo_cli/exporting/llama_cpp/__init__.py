"""Blocks as LoRA adapters for llama.cpp, in GGUF files."""
