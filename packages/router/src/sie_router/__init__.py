"""The router of SIE: finds a worker for each request, or asks for one."""
