"""What runs the network of a bundle: ONNX Runtime, OpenVINO or torch, in a stated precision."""
