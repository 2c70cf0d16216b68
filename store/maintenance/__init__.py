"""Maintenance: verify, repair, compact, migrate, and remove files that are no longer needed."""
