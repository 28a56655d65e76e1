"""The video side of a sample, read a whole batch at a time: ``base`` says how, ``regions`` reads shards."""
