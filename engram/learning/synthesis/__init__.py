"""Images of old classes made out of a trained model, without any data: for exemplar-free algorithms."""

from engram.learning.synthesis.network import ImageGenerator
from engram.learning.synthesis.priors import Layer, Watched

__all__ = ["ImageGenerator", "Layer", "Watched"]
