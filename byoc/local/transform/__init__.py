"""Batch transform: objects in, records to a container, objects out."""
