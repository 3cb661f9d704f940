"""Write docs/faults.md."""

from tests.faults import test_faults
from tests.faults.table import table

test_faults.TABLE.write_text(table(test_faults.FAULTS), encoding="utf-8")
