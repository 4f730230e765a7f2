"""The runtime: the shared vocabulary, the bundle and the decoding loop. No torch, no transformers, no onnx."""

if __name__ != "specc.runtime":  # a second copy of every class would load under another name
    raise ImportError(f"import specc.runtime, not {__name__}: it is installed under specc")
