"""The features in front of a network's last layer, out of its ONNX file."""

from typing import Any

from scanloop.errors import BundleError


def with_features(model: bytes) -> bytes:
    """The network with the input of its last linear layer as its output: features (n, d) in the place of logits.

    Args:
        model: Serialised ModelProto, whose first output comes from Gemm, or from MatMul and Add, with constant weights.

    Raises:
        BundleError: Its last layer is of another kind.
    """
    import onnx

    proto = onnx.load_from_string(model)
    constants = {one.name for one in proto.graph.initializer}
    makers = {name: node for node in proto.graph.node for name in node.output}
    node = makers[proto.graph.output[0].name]
    while node.op_type in ("Add", "Identity"):
        node = makers[_moving(node, constants)]
    if node.op_type not in ("Gemm", "MatMul"):
        raise BundleError(
            f"the network ends in {node.op_type}, not in a linear layer: evaluate.map.slices 0 leaves it out"
        )
    features = _moving(node, constants)
    del proto.graph.output[:]
    proto.graph.output.append(onnx.helper.make_tensor_value_info(features, onnx.TensorProto.FLOAT, None))
    payload: bytes = proto.SerializeToString(deterministic=True)
    return payload


def _moving(node: Any, constants: set[str]) -> str:
    """The input of a node that is no weight."""
    (name,) = (name for name in node.input if name and name not in constants)
    return str(name)
