"""Measurements of sets of pictures, one file each; every one returns scores.Scores."""
