"""The first screens of a page as a picture, by Debian's Chromium.

python benchmarks/page_picture.py runs/NAME/report.html docs/images/report-digits.png [--width 1100 --height 1960]
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--height", type=int, default=1960)
    given = parser.parse_args()
    with sync_playwright() as playwright:
        # Root, as in a container, has no sandbox.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": given.width, "height": given.height})
        started = time.monotonic()
        page.goto(given.page.resolve().as_uri())
        print(f"{given.page}: {given.page.stat().st_size / 1000:.0f} kB, open after {time.monotonic() - started:.2f} s")
        page.screenshot(path=given.out)
        browser.close()


if __name__ == "__main__":
    main()
