"""HTTP server of bundles: the Open Inference Protocol v2, and an image in, labels out for people with curl.

Needs the extra `serve`; nothing here is imported by the rest of the package but by the verb `atrous serve`.
"""
