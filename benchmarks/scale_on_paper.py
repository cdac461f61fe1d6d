"""What training on many GPUs would take at best, by arithmetic: the table of docs/scale.md.

    python benchmarks/scale_on_paper.py

Cards are H100 SXM by NVIDIA's data sheets: 67 TFLOP/s in float32, of which half is assumed to be reached; NVLink 450
GB/s a direction; 400 Gbit/s InfiniBand a card between machines of 8. An exchange takes 15 microseconds in a machine and
40 between machines, however little it carries.
"""

from __future__ import annotations

N_ITEMS, N_HIDDEN, N_SAMPLE, CARDS_A_MACHINE = 100_000_000, 128, 8192, 8
FLOP_A_S, EXCHANGES = 67e12 / 2, 5


def sent_bytes(n_ranks: int, n_lanes: int, *, n_hidden: int = N_HIDDEN, n_lane_sums: int = 2) -> float:
    """Return what a process sends in a step: float32, rings, shared embedding, one layer; 5 lane sums with BPR-max."""
    n_network = 3 * n_hidden * (n_hidden + n_hidden) + 6 * n_hidden
    of_rows = n_lanes * (4 * n_hidden + 1) + n_network  # input and target rows, hidden states' and inputs' gradients
    share = (n_ranks - 1) / n_ranks
    gathered = share * n_lanes * n_hidden + (n_ranks - 1) * n_lane_sums * n_lanes
    return 4 * (2 * share * of_rows + gathered)


def main() -> None:
    for n_ranks, n_lanes in ((8, 4096), (64, 4096), (64, 32_768)):
        is_one_machine = n_ranks <= CARDS_A_MACHINE
        tables_gb = 3 * N_ITEMS * (N_HIDDEN + 1) * 4 / n_ranks / 1e9
        flop = (30 * n_lanes * N_HIDDEN**2 + 6 * n_lanes * N_HIDDEN * (n_lanes + N_SAMPLE)) / n_ranks
        sent = sent_bytes(n_ranks, n_lanes)
        products_ms, sent_ms = 1e3 * flop / FLOP_A_S, 1e3 * sent / (450e9 if is_one_machine else 50e9)
        latency_ms = EXCHANGES * (0.015 if is_one_machine else 0.04)
        step_ms = products_ms + sent_ms + latency_ms
        print(
            f"{n_ranks} GPUs, {n_lanes:,} lanes: item matrices {tables_gb:.1f} GB a GPU; products "
            f"{flop / 1e9:.1f} GFLOP, {products_ms:.2f} ms; sent {sent / 1e6:.0f} MB, {sent_ms:.2f} ms; "
            f"latency {latency_ms:.2f} ms; at best {step_ms:.2f} ms, {n_lanes / step_ms / 1e3:.1f} million events/s"
        )
    two = sent_bytes(2, 32, n_hidden=100)
    rows = 4 * (32 + 2048) * 101
    print(f"2 processes, 32 lanes, 100 units: {two / 1e3:.0f} KB; summing rows' gradients: {(two + rows) / 1e3:.0f} KB")


if __name__ == "__main__":
    main()
