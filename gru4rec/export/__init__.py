"""GRU4Rec as a step graph that needs no gru4rec: ONNX and torch.export files, and their check against the model."""
