"""A conversation with an edited model, whose answers are put right as they come."""
