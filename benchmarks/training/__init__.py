"""The training engine and its example, measured beside what they replace."""
