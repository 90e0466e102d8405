"""Kills at random moments of training, checkpoint writing, sampling and evaluation: nothing is lost, nothing is done twice."""
