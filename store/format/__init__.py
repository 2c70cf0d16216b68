"""The project's files: where they lie, how they are written, and what is in them."""
