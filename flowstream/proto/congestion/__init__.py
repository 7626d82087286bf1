"""Congestion control of one path to one viewer: what was sent, what came of it, what the path carries, and when to send.

A delay-based and a loss-based estimate in the manner of Google congestion control (draft-ietf-rmcat-gcc-02), on
transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01), with probing; and a pacer.
"""
