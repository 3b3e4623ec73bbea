"""What one host exchanges with the shared store: it ships what it made and brings what others made."""
