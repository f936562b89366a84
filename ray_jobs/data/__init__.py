"""From a file to canonical columns: read it, clean it, infer its types, part its rows."""
