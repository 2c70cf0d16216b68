"""From the work's results to tables, lines and JSON documents; `melo_cli.terminal` prints them."""
