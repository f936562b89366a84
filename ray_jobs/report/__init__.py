"""Reports of a search for people: while it runs, and after it has ended."""
