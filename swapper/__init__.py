"""Move live UDP and TCP traffic between two versions of a backend, in the kernel, losing no datagram."""
