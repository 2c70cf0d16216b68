"""A slightly larger T5.

An added group of attention heads in the encoder's first layer averages the prompt's token embeddings into the
added dimensions. Cross-attention passes the mean to the decoder. There a few neurons for each edit compare it
with the edit's prompt and write the edit's answer, token by token.
"""
