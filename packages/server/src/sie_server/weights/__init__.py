"""Where a model's files come from: the local cache, the cluster's cache, the Hugging Face hub.

Adapters know none of this: they are given a folder. Nothing here reads a tensor or runs a model's code.
"""
