"""The base model and the encoder beside it: loading, architectures, tokens, fingerprint."""
