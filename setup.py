"""What pyproject.toml cannot say: `recipes/` and `data/scope/`, no packages, ship inside `melo_cli`."""

from setuptools import find_packages, setup

# Folders of the wheel; melo_cli/recipe/catalogue.py and melo_cli/scope/corpus.py look there.
RECIPES = "melo_cli.shipped_recipes"
SCOPE = "melo_cli.shipped_scope"

setup(
    packages=[*find_packages(include=["store", "store.*", "melo_cli", "melo_cli.*"]), RECIPES, SCOPE],
    package_dir={RECIPES: "recipes", SCOPE: "data/scope"},
    package_data={
        "store": ["py.typed"],
        "melo_cli": ["py.typed"],
        "melo_cli.evaluation.page": ["*.jinja"],
        RECIPES: ["*.yaml", "published/*.yaml"],
        SCOPE: ["corpus.jsonl"],
    },
    exclude_package_data={SCOPE: ["templates/*", "templates_around/*"]},  # what the corpus is made of
)
