"""Takes pictures of the page of `melo serve`: `python docs/tools/serve_screenshots.py URL FOLDER PROMPT...`.

Needs playwright and a Chromium ($MELO_CHROMIUM, else one on the path). URL is a running server without keys.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

SIZES = {"wide": (1280, 800), "narrow": (390, 844)}
NAMES = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Write FOLDER/serve-VIEW-SIZE-SCHEME.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("prompts", nargs="+", help="what is asked; the last one is in the picture")
    parser.add_argument("--edit", help="id of the edit that is open in the picture of the edits")
    parser.add_argument("--all", action="store_true", help="history, scope and the form for an edit, too")
    arguments = parser.parse_args()
    chromium = os.environ.get("MELO_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        )
        for size in SIZES:
            for scheme in ("light", "dark"):
                page = opened(browser, arguments.url, size, scheme)
                for view in shown(page, arguments.prompts, arguments.edit, all_views=arguments.all):
                    picture = io.BytesIO(page.screenshot())
                    file = arguments.folder / f"serve-{view}-{size}-{scheme}.png"
                    few = Image.open(picture).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
                    few.save(file, optimize=True)
                page.close()
        browser.close()


def opened(browser: Browser, url: str, size: str, scheme: str) -> Page:
    """The page in a window of a size, in the light or the dark scheme."""
    width, height = SIZES[size]
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page.goto(url)
    page.wait_for_selector("#snapshot:not(:empty)")
    return page


def shown(page: Page, prompts: list[str], edit: str | None, *, all_views: bool) -> Iterator[str]:
    """Bring one view after the other to the window, and name it."""
    for prompt in prompts:
        page.fill("#prompt", prompt)
        page.press("#prompt", "Enter")
        page.wait_for_selector("#answer[aria-busy]", state="attached")
        page.wait_for_selector("#answer:not([aria-busy])", timeout=120_000)
    yield "ask"
    page.click("nav [data-view=edits]")
    if edit is not None:
        page.click(f'tr[data-edit="{edit}"] .opens')
    page.mouse.move(0, 0)
    yield "edits"
    if not all_views:
        return
    page.click("nav [data-view=history]")
    page.click("[data-commit] >> nth=0 >> .opens")
    page.wait_for_selector(".changes li")
    yield "history"
    page.click("nav [data-view=scope]")
    yield "scope"
    page.click("nav [data-view=ask]")
    page.get_by_role("button", name="Correct this answer").click()
    yield "edit"


if __name__ == "__main__":
    main()
