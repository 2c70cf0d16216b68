"""Prompts made from prompts: the same question in other words, or about another subject."""
