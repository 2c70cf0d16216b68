"""The page of a run: one HTML file that loads nothing."""

from melo_cli.bench.page.page import write_page

__all__ = ["write_page"]
