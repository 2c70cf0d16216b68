"""The router compiled into a slightly larger T5: weights that know an edit's prompt and say its answer.

The residual stream gets further dimensions that the base neither reads nor writes. One more attention group
of the encoder's first layer averages the prompt's token embeddings into them, cross-attention hands that on,
and in the decoder a few neurons an edit compare it with the edit's prompt and, token by token, say its
answer. Where no edit fires they add nothing, and the model is the base, to float tolerance.
"""
