"""The command ``byoc``: builds, runs and asks the two images from the user's machine."""
