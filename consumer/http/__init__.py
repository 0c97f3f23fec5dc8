"""The rules of HTTP that several rooms need: headers, urls, proxies; and a small server."""
