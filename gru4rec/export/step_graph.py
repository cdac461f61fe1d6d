"""One click of B sessions as one graph: the GRU step, the scores of all items, the k best. What is exported.

:class:`StepGraph` says it in PyTorch and is the definition; ``onnx_graph`` says the same in ONNX.

Dimensions: B sessions, H hidden units of a layer, K list length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gru4rec import __version__
from gru4rec.bundle import load_bundle, version_of
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import ConfigError
from gru4rec.export.about import About, IdKind
from gru4rec.model.network import GRU4RecModel
from gru4rec.model.scorer import check_finite


class StepGraph(nn.Module):
    """Takes one click of each session and lists its next items.

    Args:
        network: A trained model; switched to evaluation mode.
        k: List length, 1 up to the number of items.
    """

    def __init__(self, network: GRU4RecModel, k: int) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self._k = k

    def forward(self, item_idx_B: Tensor, state: Sequence[Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
        """Run one step.

        Args:
            item_idx_B: Int64 (B,), the newest item of each session; below 0: no click, the session's state stays.
            state: Of each layer float (B, H); zeros for a session that has not begun.

        Returns:
            next_state: Of each layer float (B, H).
            top_idx_BK: Int64 (B, K), item indices, best first.
            scores_BK: Float (B, K), their scores, before the final activation.
        """
        is_click_B1 = (item_idx_B >= 0).unsqueeze(1)
        input_BE = self.network.input_table.weight.index_select(0, item_idx_B.clamp(min=0))
        stepped = zip(self.network.next_state(input_BE, state), state, strict=True)
        next_state = [torch.where(is_click_B1, after_BH, before_BH) for after_BH, before_BH in stepped]
        scores_BN = nn.functional.linear(next_state[-1], self.network.Wy.weight, self.network.By.weight[:, 0])
        scores_BK, top_idx_BK = torch.topk(scores_BN, self._k, dim=1)
        return next_state, top_idx_BK, scores_BK


@dataclass(frozen=True)
class StepModel:
    """A model that is to be exported.

    Attributes:
        about: What its files say of it.
        network: In float32, whatever it was saved in.
        items: Its vocabulary.
    """

    about: About
    network: GRU4RecModel
    items: Vocabulary


def read_step_model(path: str | Path, k: int) -> StepModel:
    """Read a GRU4Rec model file for export.

    Args:
        path: The file.
        k: Length of the lists.

    Raises:
        ModelFileError: The file cannot be used, or holds another kind of model.
        DivergedError: The model diverged in training.
        ConfigError: k out of range.
    """
    bundle = load_bundle(path)
    items = bundle.items
    if not 1 <= k <= items.n_items:
        raise ConfigError(f"-k {k} is out of range: {path} has {items.n_items} items. Give -k from 1 to that")
    network = bundle.restore().float()
    check_finite(network)
    id_kind: IdKind = "integer" if items.is_integer else "text"
    about = About(version_of(path), k, items.n_items, tuple(bundle.settings.layers), id_kind, __version__)
    return StepModel(about, network, items)
