"""One program a claim, each beside a peer in the same run."""
