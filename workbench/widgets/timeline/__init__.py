"""A timeline and a table as a small anywidget package: plotly cannot redraw thousands of marks in a tenth of a second.

Python holds the data and sends what is in view; the JavaScript draws, and tells what was picked and where one looks.
"""
