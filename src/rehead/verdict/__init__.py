"""Arrays in, numbers out: what held-out photos say of a model."""
