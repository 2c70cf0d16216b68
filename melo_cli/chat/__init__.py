"""A conversation with an edited model, whose answers are corrected as they come."""
