"""Read compiled datasets: samples, their order, mixtures, and the loader.

from oxcart.train.data import Frames, Loader, Mixture, Pairs, Window

loader = Loader("bridge", "train", sample=Pairs(frames=5), batch_size=64)
"""

from oxcart.train.data.batch import Batch
from oxcart.train.data.loader import Loader
from oxcart.train.data.mixture import Mixture
from oxcart.train.data.normalizer import Normalizer
from oxcart.train.data.sampling import Frames, Pairs, Seconds, Window

__all__ = ["Batch", "Frames", "Loader", "Mixture", "Normalizer", "Pairs", "Seconds", "Window"]
