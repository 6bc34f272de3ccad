"""The same model in other forms: made from its graph, measured on held-out photos, and put into the bundle."""
