"""Shares, verdict and confidence of a run."""
