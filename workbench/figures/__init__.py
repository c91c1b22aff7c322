"""Tables in, plotly figure out: every figure is a pure function and works offline."""
