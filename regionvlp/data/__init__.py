"""From annotations and shards to batches: one captions table, a tokenizer, a dataset and its collate function.

Nothing is imported here, so that reading a captions file does not import torch.
"""
