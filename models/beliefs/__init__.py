"""Beliefs: what exploration methods learn beside the click model. One kind of uncertainty a file.

belief      the protocol, and how a belief's state joins the parameters

A belief knows how sure the model is, an exploration method (`models.exploration`) what to show because of it: several
methods may share one belief.
"""
