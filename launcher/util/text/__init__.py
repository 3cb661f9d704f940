"""Text that people read and write: quoted, cleaned, counted, compared."""
