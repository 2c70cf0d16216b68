"""A slightly larger GPT-2.

Prompt and answer share one residual stream. Added heads of the first layer give each position the mean of all
tokens up to it, the mean of the first tokens, and the two tokens before it. Each token of an edit's answer
has a neuron. The neuron fires under two conditions: the edit's detector scores above zero for the prompt,
also when part of the answer follows the prompt already; and the last three tokens are those before the
neuron's token.
"""
