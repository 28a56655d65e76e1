"""The trainer: settings, optimizer, loaders, checkpoints, logs. It trains any task and knows no model and no loss.

``trainer.Trainer`` is where to start reading. Importing this package imports no torch.
"""
