"""Labelled photos: where they come from, what they are, and on which side each of them stands."""
