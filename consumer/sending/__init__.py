"""From a delivery to bytes on the wire: request, signature, egress policy, sockets."""
