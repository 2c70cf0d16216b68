"""What is shown of the work's results: as tables and lines, drawn by rich, and as JSON."""
