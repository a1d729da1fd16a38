"""The language of the business: commands, result events, errors, and the fold that decides. No I/O, no framework."""
