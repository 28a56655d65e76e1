"""``regionvlp profile``: what a configuration costs."""
