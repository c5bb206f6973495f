"""Mixers, one a file: config, module in its three forms, census, and a naive reference.

``conf/layer/<name>.yaml`` names the class; nothing else registers a layer.
"""
