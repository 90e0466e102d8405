"""Generators: whoever answers a request with a stream of frames. Weights and their configurations are in `lodestar.models`."""
