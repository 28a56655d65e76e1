"""The shipped configurations, by stage, and how to find one by name."""
