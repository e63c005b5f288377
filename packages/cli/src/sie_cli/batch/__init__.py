"""`sie encode`, `sie score` and `sie extract`: any number of texts through the cluster, in order, in bounded memory."""
