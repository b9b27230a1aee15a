"""The protocol over REST: HTTP/1.1 connections, the answers to requests, and bodies."""
