"""Which weights keep a fact?  Learn a sparse mask whose removal deletes the fact and nothing else.

The method is that of Bayazit et al., *Discovering Knowledge-Critical Subnetworks in Pretrained Language Models* (2024).
"""

from lens.mask.config import Config, config_for
from lens.mask.storage import all_shipped, load, save, shipped
from lens.mask.subnetwork import Subnetwork
from lens.mask.training import TrainingStopped, train
from lens.mask.variants import grown, random_like, shrunk

__all__ = [
    "Config", "Subnetwork", "TrainingStopped", "all_shipped", "config_for", "grown", "load", "random_like", "save",
    "shipped", "shrunk", "train",
]  # fmt: skip
