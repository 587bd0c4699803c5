"""Decoding loops of our own, for modes in which both passes of a mixture run as one."""
