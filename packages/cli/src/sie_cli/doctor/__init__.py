"""`sie doctor`: asks a cluster for one answer and follows the request along the chain that scales from zero."""
