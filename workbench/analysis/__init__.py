"""Pure functions on the tables of a run: intervals, gaps, attribution, work, roofline."""
