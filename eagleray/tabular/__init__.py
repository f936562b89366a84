"""From files to tables, and from tables to canonical columns and a schema."""
