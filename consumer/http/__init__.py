"""HTTP rules that several packages share (headers, URLs, proxies), and a small server."""
