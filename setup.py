"""What pyproject.toml cannot say: the folder `store/` is the package `melo_store`, and `recipes/`,
`data/scope/` and `data/bench/`, no packages, ship inside `melo_cli`.

A checkout has the link `melo_store` to `store/`, so that what reads files, such as mypy, finds the package.
"""

from setuptools import find_packages, setup

# Folders of the wheel, in which melo_cli/recipe/catalogue.py, melo_cli/scope/corpus.py and
# melo_cli/bench/own_data.py look.
RECIPES = "melo_cli.shipped_recipes"
SCOPE = "melo_cli.shipped_scope"
BENCH = "melo_cli.shipped_bench"
STORE = ["melo_store", *(f"melo_store.{name}" for name in find_packages("store"))]

setup(
    packages=[*find_packages(include=["melo_cli", "melo_cli.*"]), *STORE, RECIPES, SCOPE, BENCH],
    package_dir={"melo_store": "store", RECIPES: "recipes", SCOPE: "data/scope", BENCH: "data/bench"},
    package_data={
        "melo_store": ["py.typed"],
        "melo_cli": ["py.typed"],
        "melo_cli.evaluation.page": ["*.jinja"],
        "melo_cli.serving": ["page/*"],
        RECIPES: ["*.yaml", "published/*.yaml"],
        SCOPE: ["corpus.jsonl", "*.safetensors"],
        BENCH: ["*.jsonl", "*.txt"],
    },
    # What the corpus and the tunings are made of.
    exclude_package_data={SCOPE: ["templates/*", "templates_around/*", "families/*"]},
)
