"""One extraction: what is planned, what a worker does with a shard, what is tried again, what it all came to."""
