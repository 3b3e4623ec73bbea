"""Functions that no generic aggregation says: each module has its `FUNCTIONS` by name, with one interface."""
