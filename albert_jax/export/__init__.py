"""Models for deployment: StableHLO and ONNX, with tokenizer and labels beside them."""
