"""Predictions of files, from storage to storage: the plan, what Ray Data runs, and its driver."""
