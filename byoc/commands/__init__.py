"""The commands of ``byoc``: one small file each, loaded when it is called."""
