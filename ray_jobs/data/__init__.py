"""A table as trials need it: prepared, its rows parted, encoded."""
