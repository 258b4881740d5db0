"""Hosts that run libvirt and QEMU/KVM, reached over a local socket, ssh or TLS."""
