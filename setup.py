"""The one thing that pyproject.toml cannot say: `recipes/`, which is no package, ships inside `melo_cli`."""

from setuptools import find_packages, setup

SHIPPED = "melo_cli.shipped_recipes"  # a folder of the wheel; melo_cli/recipes_catalog.py looks there

setup(
    packages=[*find_packages(include=["store", "store.*", "melo_cli", "melo_cli.*"]), SHIPPED],
    package_dir={SHIPPED: "recipes"},
    package_data={"store": ["py.typed"], "melo_cli": ["py.typed"], SHIPPED: ["*.yaml", "published/*.yaml"]},
)
