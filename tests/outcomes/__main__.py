"""`python -m tests.outcomes` writes docs/outcomes.md."""

from tests.outcomes.table import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
