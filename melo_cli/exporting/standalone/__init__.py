"""Code that `melo export` copies unchanged into an artefact; it imports nothing of melo."""
