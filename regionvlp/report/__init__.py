"""One-file HTML pages: everything inside, nothing fetched, every text escaped."""
