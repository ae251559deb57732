"""Measurements of sets of images, one file each; every one returns scores.Scores."""
