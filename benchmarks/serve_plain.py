"""The service to compare with: FastAPI and torch as anyone would write them, one request at a time.

``python -m benchmarks.serve_plain MODEL PORT def|async``. The same weights and the same HTTP server; every request
reads its session anew and scores every item. ``def`` runs handlers in a pool of threads, ``async`` in the event loop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from torch import Tensor, nn

from gru4rec.bundle import load_bundle


class Question(BaseModel):
    session: list[int]
    k: int = 20


def main() -> None:
    path, port, handler = sys.argv[1:]
    torch.set_num_threads(1)
    uvicorn.run(
        application(path, handler), port=int(port), http="httptools", loop="uvloop", access_log=False, log_level="error"
    )


def application(path: str, handler: str) -> FastAPI:
    recommend = recommender(path)
    app = FastAPI()

    def threaded(question: Question) -> dict[str, Any]:
        return recommend(question.session, question.k)

    async def in_loop(question: Question) -> dict[str, Any]:
        return recommend(question.session, question.k)

    app.post("/v1/recommend")({"def": threaded, "async": in_loop}[handler])
    app.get("/readyz")(lambda: {"ready": True})
    return app


def recommender(path: str) -> Callable[[list[int], int], dict[str, Any]]:
    """Return what makes an answer from item ids, with the weights of a model of one layer and shared embedding."""
    bundle = load_bundle(path)
    weights = {name: torch.from_numpy(array) for name, array in bundle.weights.items()}
    item_NH, bias_N = weights["Wy.weight"], weights["By.weight"][:, 0]
    ids = bundle.items.ids_of(range(bundle.items.n_items))
    index = {item_id: item_idx for item_idx, item_id in enumerate(ids)}
    gru = _gru(weights, item_NH)

    @torch.inference_mode()
    def recommend(session: list[int], k: int) -> dict[str, Any]:
        known = torch.tensor([index[item_id] for item_id in session if item_id in index])
        _, hidden_BH = gru(item_NH[known])
        scores_N = torch.mm(hidden_BH, item_NH.T)[0] + bias_N
        best = torch.topk(scores_N, k)
        found = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return {"items": [{"id": ids[item_idx], "score": score} for item_idx, score in found]}

    return recommend


def _gru(weights: dict[str, Tensor], item_NH: Tensor) -> nn.GRU:
    gru = nn.GRU(item_NH.shape[1], item_NH.shape[1])
    gru.load_state_dict({f"{name.removeprefix('G.0.')}_l0": each for name, each in weights.items() if "G.0." in name})
    return gru.eval()


if __name__ == "__main__":
    main()
