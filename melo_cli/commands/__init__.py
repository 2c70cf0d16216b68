"""The subcommands of `melo`, one a file: options, one call into the work, output."""
