"""Nets: graphs, arrays, files, inference, training."""
