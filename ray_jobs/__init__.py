"""What runs as a job on a Ray cluster: data, training, trials, search, evaluation."""
