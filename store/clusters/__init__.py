"""The paper's clusters of neurons, in memory: how they form, change and are searched."""
