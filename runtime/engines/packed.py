from __future__ import annotations
import onnxruntime as ort
def session(bundle, spec, options):
    return ort.InferenceSession(str(bundle.file(spec.file)), options, providers=["CPUExecutionProvider"])
