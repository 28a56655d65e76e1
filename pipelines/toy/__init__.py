"""Toy worlds of moving shapes: rendering, the tiny detector that reads them, and the demo made of both."""
