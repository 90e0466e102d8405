"""Generators, which answer a request with a stream of frames. Weights and configurations are in `lodestar.models`."""
