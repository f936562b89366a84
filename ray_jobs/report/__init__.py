"""What a person sees of a search: while it runs, and when it has ended."""
