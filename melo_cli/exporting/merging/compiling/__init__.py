"""The router compiled into a slightly larger model: weights that know an edit's prompt and say its answer.

The residual stream gets further dimensions that the base neither reads nor writes. Added attention heads of
the first layer gather into them what tells one prompt from another, and in the feed-forwards a few neurons an
edit compare that with the edit's prompt and, token by token, say its answer. Where no edit fires they add
nothing, and the model is the base, to float tolerance.

`methods/compile.py` chooses the architecture; `t5` and `gpt2` know one each, and the files here are what they
share.
"""
