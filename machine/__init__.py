"""What works on the machine rather than on transactions: compiled loops, memory, timers, processors.

Everything here may be absent: each part has a switch (`TOLLGATE_MACHINE_…` in docs/settings.md), is timed
alone by `make bench-machine`, and does nothing on a system that lacks the call (`machine.linux`).
"""
