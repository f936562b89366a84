"""The data of an experiment: prepared, split and encoded."""
