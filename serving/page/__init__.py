"""The page at `/`: a form made from the schema, and the values of this moment."""
