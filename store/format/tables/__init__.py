"""The tables of a project, a module for each kind of data file: its schema, writing and reading."""
