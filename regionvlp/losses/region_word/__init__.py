"""Bidirectional region-word alignment (DemoVLP, section 3.2): ``alignment`` says what it is, and is where to start.

``settings`` has its choices and costs no torch; ``lean`` computes it cheaply anywhere, ``fused`` and ``kernels`` on a
GPU.
"""
