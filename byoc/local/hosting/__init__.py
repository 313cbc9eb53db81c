"""Containers that serve: started, asked, watched and stopped."""
