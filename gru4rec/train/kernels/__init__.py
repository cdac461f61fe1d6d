"""The element-wise parts of a hand-written step, three times: in torch, compiled for CPUs, and in Triton for GPUs.

All three offer the functions of :mod:`gru4rec.train.kernels.torch_ops`, which is the readable one.
"""
