"""`melo eval --report`: one page for readers who have never seen the tool, whole in one file."""

from melo_cli.evaluation.page.page import render_page, write_page

__all__ = ["render_page", "write_page"]
