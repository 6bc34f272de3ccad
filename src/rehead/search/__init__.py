"""What is left to the photos to decide: which backbone, and how deep to tune. Tries on the training side alone."""
