"""Applications for a notebook over runs, figures and experiments; they need the extra `lab`."""
