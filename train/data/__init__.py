"""Read compiled datasets: samples, their order, mixtures, and the loader.

from oxcart.train.data import CompiledDataset, Frames, Loader, Mixture, Pairs

dataset = CompiledDataset.open("bridge")
loader = Loader(dataset, "train", sample=Pairs(frames=5), batch_size=64)
"""

from oxcart.manifests.dataset import Dataset as CompiledDataset
from oxcart.train.data.batch import Batch
from oxcart.train.data.loader import Loader
from oxcart.train.data.mixture import Mixture
from oxcart.train.data.sampling import Frames, Pairs

__all__ = ["Batch", "CompiledDataset", "Frames", "Loader", "Mixture", "Pairs"]
