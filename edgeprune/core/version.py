"""The version of the package."""

VERSION = "0.1.0"

#: Of the ONNX files that are written: the operators' version and the format's. A runtime must be as new as they are.
ONNX_OPSET, ONNX_IR = 20, 10
