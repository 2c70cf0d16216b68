"""Verify, repair, compact, migrate, and remove what is needed no more."""
