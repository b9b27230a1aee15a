"""The protocol over REST: HTTP/1.1 connections, what answers a request, and bodies."""
