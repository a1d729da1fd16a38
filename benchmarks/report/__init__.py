"""What a result file says, as tables, as a plot and as a page."""
