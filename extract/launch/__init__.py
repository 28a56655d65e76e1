"""How extractions are started: in this process, in several on one machine, or on a Ray cluster."""
