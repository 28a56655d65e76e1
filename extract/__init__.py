"""The factory: from video files to region shards."""
