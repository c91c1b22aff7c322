"""What a person reads of a run: one HTML file that opens offline, and a summary for a terminal."""
