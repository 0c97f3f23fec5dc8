"""Sends deliveries over HTTP: request, signature, egress policy, sockets."""
