"""A slightly larger GPT-2.

There is one stream for prompt and answer. Added heads of the first layer give each position the mean of all
tokens up to it, the mean of the first of them, and the two tokens before it. A neuron for each token of an
edit's answer fires where its score of the means is above zero, counted as at the prompt's end whatever of the
answer stands behind it, and the last three tokens are those before its own.
"""
