"""Programs that measure each claim beside a peer; their last line is one JSON object."""
