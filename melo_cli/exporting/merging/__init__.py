"""One dense checkpoint that holds the edits: how its weights are found, written and measured."""
