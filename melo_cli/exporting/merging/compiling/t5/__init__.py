"""A slightly larger T5.

One more attention group of the encoder's first layer averages the prompt's token embeddings into the added
dimensions, cross-attention hands that on, and in the decoder a few neurons an edit compare it with the edit's
prompt and, token by token, say its answer.
"""
