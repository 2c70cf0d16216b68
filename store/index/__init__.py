"""The index of the neurons, by which the nearest to a key are found, and its file."""
