"""The benchmarks by name, one module each; ``base`` says what a benchmark is.

Nothing is imported here, so that a command line can list them for nothing.
"""
