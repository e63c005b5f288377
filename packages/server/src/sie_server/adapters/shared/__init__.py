"""What several model families need: weights, tokenizers, encoders, pooling."""
