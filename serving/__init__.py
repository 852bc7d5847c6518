"""KServe model server over a bundle: V1 and V2 (Open Inference Protocol) over HTTP. Knows bundles, no training code."""
