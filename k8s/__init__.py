"""What talks to the Kubernetes API."""
