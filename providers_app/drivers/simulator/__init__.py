"""An invented hypervisor with real bytes and faults on demand, for demonstrations and tests."""
