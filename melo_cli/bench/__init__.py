"""`melo bench`: a project and rival editors, measured on public sets."""
