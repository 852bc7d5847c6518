"""KServe model server over a bundle: V1 and V2 (Open Inference Protocol) over HTTP. Knows bundles, no training code."""

import os

# numpy's matrix products are small here, and its waiting threads spin: before numpy is loaded, it is told to use one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
