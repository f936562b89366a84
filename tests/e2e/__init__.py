"""The whole stack on a real cluster, step by step; see README.md. Not part of `make test`."""
