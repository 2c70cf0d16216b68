"""Compiles the router into a slightly larger model, whose weights detect an edit's prompt and write its
answer.

The residual stream gets additional dimensions that the base neither reads nor writes. Added attention heads
of the first layer write features of the prompt into them. In the feed-forwards, a few neurons for each edit
compare these features with the edit's prompt and write the edit's answer, token by token. If no edit fires,
the neurons add nothing, and the model equals the base to float tolerance.

`methods/compile.py` chooses the architecture. `t5` and `gpt2` hold one architecture each; the files here are
shared.
"""
