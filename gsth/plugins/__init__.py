"""gsth inside other people's programs. Each file is an entry point of theirs and needs them installed."""
