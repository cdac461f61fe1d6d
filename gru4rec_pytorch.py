"""The model and its parts under the names that scripts import."""

from gru4rec.api import GRU4Rec
from gru4rec.data.batches import SessionDataIterator
from gru4rec.data.negatives import SampleStore
from gru4rec.model.network import GRU4RecModel
from gru4rec.train.optim import IndexedAdagradM

SampleCache = SampleStore

__all__ = ["GRU4Rec", "GRU4RecModel", "IndexedAdagradM", "SampleCache", "SampleStore", "SessionDataIterator"]
