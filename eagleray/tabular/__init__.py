"""Files to tables: read one, clean it, infer its types; canonical columns come out."""
