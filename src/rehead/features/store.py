"""Activations by (image digest, prefix identity), memory-mapped and safe to be killed. No torch.

One LMDB environment for each prefix identity, so that freeing one frees its disk. A value is the raw little-endian
float16 of an array of fixed shape; numbers beyond float16's range are clipped to it. A value never changes: the first
that is put stays. Several processes and threads may use one store at once: one writes, all read. How an environment is
shared and guarded stands in `environment.py`; what is listed and cleared in `cache.py`.
"""
