"""Makes the picture in docs/looking.md: `python -m tests.report_picture`.

Rule: it is the page of a run that never was, so that it is much the same each time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.launcher.report_page.test_browser import Page, start_chrome, write_small

PICTURE = Path(__file__).parents[1] / "docs" / "report.webp"


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        chrome = start_chrome(Path(folder) / "chromium")
        try:
            page = Page(chrome)
            page.open(write_small(Path(folder) / "run"), width=1200, height=1010)
            page.draw("parallel")
            page("scrollTo(0, 0)")
            PICTURE.write_bytes(page.picture())
        finally:
            chrome.quit()


if __name__ == "__main__":
    main()
