"""What runs as Ray Serve deployments: the application, predictor, protocol and metrics."""
