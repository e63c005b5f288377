"""From the token vectors of a batch to one vector per sequence."""

import torch


def pool(hidden: torch.Tensor, lengths: list[int], mode: str) -> torch.Tensor:
    """Mean, first or last vector of each sequence of a packed [tokens, width] batch; returns [sequences, width]."""
    sequences = torch.split_with_sizes(hidden, lengths)
    match mode:
        case "mean":
            return torch.stack([sequence.mean(0) for sequence in sequences])
        case "cls":
            return torch.stack([sequence[0] for sequence in sequences])
        case _:
            return torch.stack([sequence[-1] for sequence in sequences])


def normalized(vectors: torch.Tensor) -> torch.Tensor:
    """Each row divided by its Euclidean norm (at least 1e-12)."""
    return torch.nn.functional.normalize(vectors, dim=1, eps=1e-12)
