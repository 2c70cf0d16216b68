"""Recipes, corpus and bench texts are found: from a checkout, and from a wheel built from an sdist."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from melo_cli.errors import RecipeError
from melo_cli.recipe.catalogue import find_recipe, shipped_recipes
from melo_cli.scope.corpus import corpus_digest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "recipes",
    "data/scope",
    "data/bench",
    "store",
    "melo_cli",
]

LIST_SHIPPED = """
import json, melo_cli
from melo_cli.recipe.catalogue import shipped_recipes
from melo_cli.scope.corpus import corpus_digest
from melo_cli.bench import own_data as own
recipes = {recipe.name: str(recipe.path) for recipe in shipped_recipes()}
bench = [len(part()) for part in (own.held_out_text, own.choice_questions, own.small_talk, own.translations)]
print(json.dumps([melo_cli.__file__, recipes, corpus_digest(), bench]))
"""


def test_a_checkout_lists_every_recipe_with_what_it_is_for() -> None:
    recipes = shipped_recipes()
    assert {recipe.path for recipe in recipes} == set((ROOT / "recipes").rglob("*.yaml"))
    assert {"llama", "scotus_bert", "zsre_t5small", "published/zsre_t5small"} <= {r.name for r in recipes}
    assert all(len(recipe.summary) > 20 and not recipe.summary.startswith("#") for recipe in recipes)


def test_a_name_means_a_shipped_recipe_and_a_path_means_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("llama") == ROOT / "recipes" / "llama.yaml"
    published = ROOT / "recipes" / "published" / "zsre_t5small.yaml"
    assert find_recipe("published/zsre_t5small") == published
    assert find_recipe("mine/llama") == Path("mine/llama")
    assert find_recipe("llama.yml") == Path("llama.yml")
    (tmp_path / "llama").touch()
    assert find_recipe("llama") == Path("llama")


@pytest.mark.parametrize(
    ("name", "hint"), [("lama", "did you mean llama?"), ("xyz", "list the shipped ones")]
)
def test_an_unknown_name_is_an_error_with_a_way_on(name: str, hint: str) -> None:
    with pytest.raises(RecipeError) as error:
        find_recipe(name)
    assert name in str(error.value) and hint in str(error.value)


def test_a_wheel_built_from_an_sdist_finds_its_recipes_its_corpus_and_its_bench_texts(
    tmp_path: Path,
) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, checkout / name)
    with tarfile.open(build("sdist", checkout)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    site = tmp_path / "site"
    with zipfile.ZipFile(build("wheel", unpacked)) as wheel:
        wheel.extractall(site)
        names = wheel.namelist()
    assert {"melo_cli/py.typed", "melo_store/py.typed"} <= set(names)
    page = "melo_cli/evaluation/page"
    assert {f"{page}/report.html.jinja", f"{page}/style.css.jinja"} <= set(names)
    others = ("tests/", "recipes/", "data/", "benchmarks/", "store/")
    assert not [name for name in names if name.startswith(others)]
    assert not [name for name in names if "templates" in name or "families" in name]
    tunings = {path.name for path in (ROOT / "data" / "scope").glob("*.safetensors")}
    assert {f"melo_cli/shipped_scope/{name}" for name in tunings} <= set(names)

    # Without the environment's own melo (-S), and so without its libraries: their paths are passed on.
    paths = json.dumps([str(site), *(path for path in sys.path if path and Path(path) != ROOT)])
    run = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {paths}\n{LIST_SHIPPED}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=60,
    )
    imported, recipes, corpus, bench = json.loads(run.stdout)
    assert Path(imported).is_relative_to(site)
    assert set(recipes) == {recipe.name for recipe in shipped_recipes()}
    assert all(Path(path).is_relative_to(site) and Path(path).is_file() for path in recipes.values())
    assert corpus == corpus_digest()
    assert bench == [30, 60, 10, 36]


def build(kind: str, folder: Path) -> Path:
    """Build an sdist or wheel of `folder` with the setuptools of this environment; the file it made."""
    code = f"import setuptools.build_meta as b; print(b.build_{kind}('dist'))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder, timeout=120
    )
    return folder / "dist" / run.stdout.split()[-1]
