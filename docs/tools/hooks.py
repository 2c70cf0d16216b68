"""What mkdocs calls while it builds: it adds the generated reference pages to the site."""

from __future__ import annotations

from typing import Any

from mkdocs.structure.files import File, Files
from reference import commands_page, recipe_page

GENERATED = {"reference/commands.md": commands_page, "reference/recipe.md": recipe_page}


def on_files(files: Files, config: Any) -> Files:
    """Add every generated page."""
    for name, page in GENERATED.items():
        files.append(File.generated(config, name, content=page()))
    return files
