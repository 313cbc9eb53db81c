"""The whole story on one machine: train, pack, unpack, serve, ask for one digit."""
