"""Hosts that are a folder of this machine: a disk, or a mount of a file server."""
