"""Merging: finds, writes and measures the weights of one checkpoint that holds the edits."""
