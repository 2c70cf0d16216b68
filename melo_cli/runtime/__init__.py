"""A project opened on a model: the routed model, its block cache, answering, scoring, query."""
