"""Code that `melo export` lays into what it writes, verbatim: it imports nothing of melo."""
