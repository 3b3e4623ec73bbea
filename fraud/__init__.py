"""The pure core: the transaction contract, window definitions, velocity state and decisions.

Nothing here does I/O or acts on import; every other package may depend on this one and it
depends on none of them.
"""
