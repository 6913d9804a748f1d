"""Benchmarks of hotrow, its peers and the machine. See README.md."""

import os
from pathlib import Path

# OpenBLAS takes processors newer than itself for older ones and then leaves AVX-512 unused, which would slow gensim
# and flatter hotrow. It reads this as NumPy or SciPy loads it, so it stands before any other import; compare.py prints
# what came of it.
_CPUINFO = Path("/proc/cpuinfo")
if _CPUINFO.is_file() and {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(_CPUINFO.read_text().split()):
    os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"
