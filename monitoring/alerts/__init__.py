"""Alert rules and routes, and the table of signals in docs/monitoring.md that is made from them."""
