"""The element-wise parts of a hand-written step, three times: in torch, compiled for CPUs, and in Triton for GPUs.

All offer the functions of :mod:`gru4rec.train.kernels.torch_ops`, which is the readable one; the compiled ones leave
out ``column_offsets`` and ``update_segments``, which only fixed shapes need.
"""
