"""The command line of SIE, and a whole cluster as local processes."""
