"""Quantization: what the activations of a graph show, where INT8 goes, and what it costs."""
