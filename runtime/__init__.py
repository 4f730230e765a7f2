"""The runtime: the shared vocabulary, the bundle and the decoding loop. It needs no torch, transformers or onnx."""

if __name__ != "specc.runtime":  # Under another name Python would load every class a second time.
    raise ImportError(f"import specc.runtime, not {__name__}: it is installed under specc")
