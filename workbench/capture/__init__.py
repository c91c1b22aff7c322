"""Fills a run folder; light enough for a bare GPU host."""
