"""One module for each strategy, named after it."""
