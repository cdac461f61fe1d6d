"""The state of scorers that look at a session's clicks themselves: the newest few of them, newest first.

One int32 tensor (R, L) for R sessions. An entry is an item index + 1; 0 is no click, so that all zeros is a session
without events. Knows no scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

State = tuple[Tensor, ...]


def no_clicks(n_sessions: int, n_kept: int) -> State:
    """Return the state of sessions without events, of which ``n_kept`` clicks will be remembered."""
    return (torch.zeros(n_sessions, n_kept, dtype=torch.int32),)


def with_click(state: State, item_idx: Sequence[int] | np.ndarray) -> State:
    """Return the states after one more click each; the oldest beyond those kept are forgotten.

    Args:
        state: Of R sessions.
        item_idx: (R,), the newest item of each.
    """
    newest_R1 = torch.as_tensor(np.asarray(item_idx, dtype=np.int32) + np.int32(1)).unsqueeze(1)
    return (torch.cat([newest_R1, state[0][:, :-1]], dim=1),)
