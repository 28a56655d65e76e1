"""Other layouts of region features, read into shards and written from them."""
