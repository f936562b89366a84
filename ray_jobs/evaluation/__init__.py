"""How good a model is: metrics, and what a person looks at to trust them."""
