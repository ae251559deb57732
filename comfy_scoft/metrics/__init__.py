"""Metrics of image sets, one file each; `measure` returns scores.Scores."""
