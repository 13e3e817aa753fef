"""The version of the package, and of every schema it writes."""

VERSION = "0.1.0"

#: `result.json` carries it as `schema`; it rises when a field changes its meaning or goes.
RESULT_SCHEMA = 4

#: The plan file (`plan.json`) carries it as `schema`.
PLAN_SCHEMA = 1
#: So do the notes of tuned networks (`tuned/*.json`).
TUNED_SCHEMA = 2
#: So does the front of a run with several bounds (`front.json`).
FRONT_SCHEMA = 1
#: Of the ONNX files that are written: the operators' version and the format's. A runtime must be as new as they are.
ONNX_OPSET, ONNX_IR = 20, 10
