"""Scores of a bundle with their intervals, its calibration, and what the figures are worth."""
