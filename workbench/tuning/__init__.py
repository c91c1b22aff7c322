"""Levers tried for real: experiments, sweeps and search, and the executors that run them."""
